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

from pipeline.bootstrap.order import Deb
from pipeline.errors import PipelineError, VerificationError
from pipeline.mirror.apt_lists import write_selected_lists
from pipeline.mirror.relations import Relations, read_fields
from pipeline.mirror.snapshot import Snapshot
from pipeline.walls.package_names import require_architecture, require_package, require_version

_URI = re.compile(r"'(?P<url>[^']+)' \S+ (?P<size>[0-9]+) SHA256:(?P<sha256>[0-9a-f]{64})")
_SIZE_KIB = re.compile("[0-9]{1,12}")
TREE_MIB = 1500  # what a base may take unpacked
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
    """What apt-get printed, with the stanzas of its lists.

    PipelineError when it names nothing, a package without a SHA-256, one that no stanza describes,
    or more than TREE_MIB.
    """
    lines = output.splitlines()
    matches = {match["sha256"]: match for match in map(_read_uri, lines) if match}
    packages: dict[str, dict[str, str]] = {}
    debs: dict[str, Deb] = {}
    for stanza in stanzas:
        fields = read_fields(stanza.decode("utf-8", "surrogateescape"))
        match = matches.get(fields.get("SHA256", ""))
        if match:
            deb = _read_deb(fields, match)
            packages[deb.name], debs[deb.name] = fields, deb
    described = {deb.sha256 for deb in debs.values()}
    if missing := sorted(
        match["url"] for sha256, match in matches.items() if sha256 not in described
    ):
        raise PipelineError(f"apt names {missing[0]}, which no package index describes")
    if sum(deb.installed_kib or 0 for deb in debs.values()) > TREE_MIB * 1024:
        raise PipelineError(f"the packages of the base tree say that they take over {TREE_MIB} MiB")
    if not debs:
        raise PipelineError(
            "apt names no package to fetch for the base tree",
            hint="see the end of the stage's log; bootstrap=mmdebstrap resolves in another way",
        )
    relations = Relations(packages)
    waves = tuple(tuple(debs[name] for name in sorted(wave)) for wave in relations.waves())
    automatic = set(_additional(lines)) - relations.essential
    return Resolution(waves, tuple(sorted(automatic)))


def _read_uri(line: str) -> re.Match[str] | None:
    """A line that names a package to fetch, None for any other; PipelineError for half a one."""
    if not line.startswith("'"):
        return None
    match = _URI.fullmatch(line)
    if match is None:
        raise VerificationError(
            f"apt names a package without a SHA-256: {line[:200]}",
            hint="the mirror's index lacks the digest; without one a package is not taken",
        )
    return match


def _read_deb(fields: dict[str, str], match: re.Match[str]) -> Deb:
    name = fields.get("Package", "")
    where = f"package index: {match['url']}"
    size = fields.get("Installed-Size", "0")
    if not _SIZE_KIB.fullmatch(size):
        raise PipelineError(f"{where}: Installed-Size: {ascii(size[:80])} is not a number")
    return Deb(
        require_package(name, where=where),
        match["url"],
        int(match["size"]),
        match["sha256"],
        require_version(fields.get("Version", ""), where=where),
        require_architecture(fields.get("Architecture", ""), where=where),
        int(size),
    )


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
