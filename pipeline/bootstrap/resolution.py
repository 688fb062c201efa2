"""Which packages belong to a base tree: apt's own answer over the verified snapshot.

apt-get gets a configuration of its own (apt.conf(5), `Dir`), so nothing of the build host's apt
counts, and lists that are there already: it fetches nothing, it only says what it would fetch
(`--print-uris`, apt-get(8)). The request is that of mmdebstrap's variant minbase in one go:
essential packages, required ones and the include list (apt-patterns(7)).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.snapshot import Snapshot
from pipeline.bootstrap.order import Deb
from pipeline.bootstrap.relations import Relations, read_fields
from pipeline.bootstrap.selection import write_selected_lists
from pipeline.errors import PipelineError

_URI = re.compile(r"^'(?P<url>[^']+)' \S+ (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")
_ADDITIONAL = "The following additional packages will be installed:"
_FOLDERS = ("etc/apt/preferences.d", "cache/archives/partial")


@dataclass(frozen=True)
class Resolution:
    """The packages of a tree, in the waves that they are configured in.

    `automatic` are those that are there only because others need them.
    """

    waves: tuple[tuple[Deb, ...], ...]
    automatic: tuple[str, ...]


def resolve(
    packages: Sequence[str],
    snapshot: Snapshot,
    *,
    suite: str,
    arch: str,
    folder: Path,
    run: Callable[..., str],
) -> Resolution:
    """Ask apt; `run` starts it, `folder` is for its files. Raises what `run` raises."""
    stanzas = write_selected_lists(snapshot, arch, packages, folder / "lists")
    config = _write_config(snapshot, arch=arch, folder=folder)
    narrow = f"?or(?archive(^{suite}$),?codename(^{suite}$)),?architecture({arch})"
    wanted = [f"?narrow({narrow},{which})" for which in ("?essential", "?priority(required)")]
    output = run(
        ["apt-get", "--yes", "--print-uris", "install", *wanted, *packages],
        env={"APT_CONFIG": str(config)},
    )
    return read_answer(output, stanzas)


def read_answer(output: str, stanzas: Iterable[bytes]) -> Resolution:
    """What apt-get printed, with the stanzas of its lists; PipelineError when it names nothing."""
    lines = output.splitlines()
    matches = {match["sha256"]: match for match in map(_URI.match, lines) if match}
    packages: dict[str, dict[str, str]] = {}
    debs: dict[str, Deb] = {}
    for stanza in stanzas:
        fields = read_fields(stanza.decode("utf-8"))
        match = matches.get(fields.get("SHA256", ""))
        if match:
            name = fields["Package"]
            packages[name] = fields
            debs[name] = Deb(name, match["url"], int(match["size"]), match["sha256"])
    if not debs:
        raise PipelineError(
            "apt names no package to fetch for the base tree",
            hint="see the end of the stage's log; bootstrap=mmdebstrap resolves in another way",
        )
    relations = Relations(packages)
    waves = tuple(tuple(debs[name] for name in sorted(wave)) for wave in relations.waves())
    automatic = set(_additional(lines)) - relations.essential
    return Resolution(waves, tuple(sorted(automatic)))


def _additional(lines: Sequence[str]) -> list[str]:
    found: list[str] = []
    start = lines.index(_ADDITIONAL) + 1 if _ADDITIONAL in lines else len(lines)
    for line in lines[start:]:
        if not line.startswith("  "):
            break
        found += [name.partition(":")[0] for name in line.split()]
    return found


def _write_config(snapshot: Snapshot, *, arch: str, folder: Path) -> Path:
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = [source.one_line(keyring=snapshot.keyring) for source in snapshot.sources]
    (folder / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in lines))
    (folder / "status").touch()
    settings = {
        "Dir": folder,
        "Dir::State::Status": folder / "status",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
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
