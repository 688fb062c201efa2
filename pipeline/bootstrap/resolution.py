"""Which packages belong to a base tree: apt's own answer over the verified snapshot.

apt-get gets a configuration of its own (apt.conf(5), `Dir`), so nothing of the build host's apt
counts, and lists that are there already: it fetches nothing, it only says what it would fetch
(`--print-uris`, apt-get(8)). The request is that of mmdebstrap's variant minbase in one go:
essential packages, required ones and the include list (apt-patterns(7)).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pipeline.archive.sources import Source
from pipeline.bootstrap.order import Deb
from pipeline.errors import PipelineError

_URI = re.compile(r"^'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")
_ADDITIONAL = "The following additional packages will be installed:"
_FOLDERS = ("etc/apt/preferences.d", "cache/archives/partial", "state")


@dataclass(frozen=True)
class Resolution:
    """The packages of a tree, and which of them are there only because others need them."""

    debs: tuple[Deb, ...]
    additional: tuple[str, ...]


def resolve(
    packages: Sequence[str],
    sources: Sequence[Source],
    *,
    suite: str,
    arch: str,
    lists: Path,
    keyring: Path,
    folder: Path,
    run: Callable[..., str],
) -> Resolution:
    """Ask apt; `run` starts it, `folder` is for its files. Raises what `run` raises."""
    config = _write_config(folder, sources, arch=arch, lists=lists, keyring=keyring)
    narrow = f"?or(?archive(^{suite}$),?codename(^{suite}$)),?architecture({arch})"
    wanted = [f"?narrow({narrow},{which})" for which in ("?essential", "?priority(required)")]
    output = run(
        ["apt-get", "--yes", "--print-uris", "install", *wanted, *packages],
        env={"APT_CONFIG": str(config)},
    )
    return read_answer(output)


def read_answer(output: str) -> Resolution:
    """What apt-get printed; raises PipelineError when it names nothing to fetch."""
    lines = output.splitlines()
    debs = tuple(
        Deb(
            name=unquote(match["file"].partition("_")[0]),
            url=match["url"],
            size=int(match["size"]),
            sha256=match["sha256"],
        )
        for match in map(_URI.match, lines)
        if match
    )
    if not debs:
        raise PipelineError(
            "apt names no package to fetch for the base tree",
            hint="see the end of the stage's log; bootstrap=mmdebstrap resolves in another way",
        )
    return Resolution(debs, tuple(_additional(lines)))


def _additional(lines: Sequence[str]) -> list[str]:
    found: list[str] = []
    start = lines.index(_ADDITIONAL) + 1 if _ADDITIONAL in lines else len(lines)
    for line in lines[start:]:
        if not line.startswith("  "):
            break
        found += [name.partition(":")[0] for name in line.split()]
    return found


def _write_config(
    folder: Path, sources: Sequence[Source], *, arch: str, lists: Path, keyring: Path
) -> Path:
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = [source.one_line(keyring=keyring) for source in sources]
    (folder / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in lines))
    (folder / "state/status").touch()
    settings = {
        "Dir": folder,
        "Dir::State::Status": folder / "state/status",
        "Dir::State::Lists": lists,
        "Dir::Cache": folder / "cache",
        # 70 MB that nobody reads again
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::ForceHash": "SHA256",
        "Debug::NoLocking": "true",
        "pkgCacheGen::ForceEssential": ",",
    }
    config = folder / "apt.conf"
    config.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    return config
