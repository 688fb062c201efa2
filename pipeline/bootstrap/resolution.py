"""Which packages belong to a base tree: apt's own answer over the verified snapshot.

apt-get gets a configuration of its own (apt.conf(5), `Dir`), so nothing of the build host's apt
counts, and lists that are there already: it fetches nothing, it only says what it would fetch
(`--print-uris`, apt-get(8)). The request is that of mmdebstrap's variant minbase in one go:
essential packages, required ones and the include list (apt-patterns(7)).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.bootstrap.order import Deb
from pipeline.errors import PipelineError, VerificationError
from pipeline.mirror.apt_lists import write_selected_lists
from pipeline.mirror.snapshot import Snapshot
from pipeline.mirror.stanzas import read_fields
from pipeline.walls.package_names import require_architecture, require_package, require_version

_URI = re.compile(r"'(?P<url>[^']+)' \S+ (?P<size>[0-9]+) SHA256:(?P<sha256>[0-9a-f]{64})")
_SIZE_KIB = re.compile("[0-9]{1,12}")
TREE_MIB = 1500  # what a base may take unpacked
_ADDITIONAL = "The following additional packages will be installed:"
_FOLDERS = ("etc/apt/preferences.d", "cache/archives/partial")
Named = tuple[Deb, dict[str, str], bytes]


@dataclass(frozen=True)
class Resolution:
    """The packages of a tree, in the waves that they are configured in.

    `automatic` are those that are there only because others need them.
    """

    waves: tuple[tuple[Deb, ...], ...]
    automatic: tuple[str, ...]

    @property
    def debs(self) -> tuple[Deb, ...]:
        """All of them."""
        return sum(self.waves, ())

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """What `asdict` gave, through JSON."""
        waves = tuple(tuple(Deb(**deb) for deb in wave) for wave in table["waves"])
        return cls(waves, tuple(table["automatic"]))


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
    write_config(snapshot, arch=arch, folder=folder)
    (folder / "status").touch()
    narrow = f"?or(?archive(^{suite}$),?codename(^{suite}$)),?architecture({arch})"
    wanted = [f"?narrow({narrow},{which})" for which in ("?essential", "?priority(required)")]
    return read_answer(ask_apt([*wanted, *packages], folder, run), stanzas)


def ask_apt(packages: Sequence[str], folder: Path, run: Callable[..., str]) -> str:
    """What apt says that it would do to install these."""
    return run(
        ["apt-get", "--yes", "--print-uris", "install", *packages],
        cwd=folder,  # no letter of the path then meets apt's configuration
        env={"APT_CONFIG": "apt.conf"},
    )


def read_answer(output: str, stanzas: Iterable[bytes]) -> Resolution:
    """What apt-get printed, with the stanzas of its lists.

    PipelineError when it names nothing, a package without a SHA-256, one that no stanza describes,
    or more than TREE_MIB.
    """
    lines = output.splitlines()
    named = find_named(lines, stanzas)
    packages = {deb.name: fields for deb, fields, _ in named}
    debs = {deb.name: deb for deb, _, _ in named}
    if sum(deb.installed_kib or 0 for deb in debs.values()) > TREE_MIB * 1024:
        raise PipelineError(f"the packages of the base tree say that they take over {TREE_MIB} MiB")
    if not debs:
        raise PipelineError(
            "apt names no package to fetch for the base tree",
            hint="see the end of the stage's log; bootstrap=mmdebstrap resolves in another way",
        )
    relations = Relations(packages)
    waves = tuple(tuple(debs[name] for name in sorted(wave)) for wave in relations.waves())
    automatic = set(list_below(lines, _ADDITIONAL)) - relations.essential
    return Resolution(waves, tuple(sorted(automatic)))


def find_named(lines: Iterable[str], stanzas: Iterable[bytes]) -> list[Named]:
    """The packages that apt would fetch, each with the fields of its stanza and the stanza.

    PipelineError for one without a SHA-256, and for one that no stanza describes.
    """
    matches = {match["sha256"]: match for match in map(_read_uri, lines) if match}
    named: dict[str, Named] = {}
    for stanza in stanzas:
        try:
            fields = read_fields(stanza)
        except ValueError as error:
            raise VerificationError(f"a package index: {ascii(str(error))} is no field") from None
        match = matches.get(fields.get("sha256", ""))
        if match:
            deb = _read_deb(fields, match)
            named[deb.name] = (deb, fields, stanza)
    described = {deb.sha256 for deb, _, _ in named.values()}
    if missing := sorted(
        match["url"] for sha256, match in matches.items() if sha256 not in described
    ):
        raise PipelineError(f"apt names {missing[0]}, which no package index describes")
    return list(named.values())


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
    name = fields.get("package", "")
    where = f"package index: {match['url']}"
    size = fields.get("installed-size", "0")
    if not _SIZE_KIB.fullmatch(size):
        raise PipelineError(f"{where}: Installed-Size: {ascii(size[:80])} is not a number")
    return Deb(
        require_package(name, where=where),
        match["url"],
        int(match["size"]),
        match["sha256"],
        require_version(fields.get("version", ""), where=where),
        require_architecture(fields.get("architecture", ""), where=where),
        int(size),
    )


def list_below(lines: Sequence[str], title: str) -> list[str]:
    """The names of packages that apt lists below a line."""
    names: list[str] = []
    start = lines.index(title) + 1 if title in lines else len(lines)
    for line in lines[start:]:
        if not line.startswith("  "):
            break
        names += [name.rstrip("*").partition(":")[0] for name in line.split()]
    return names


def write_config(snapshot: Snapshot, *, arch: str, folder: Path) -> None:
    """apt's settings for `ask_apt`; lists and status are beside them."""
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = [source.one_line() for source in snapshot.sources]
    (folder / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in lines))
    settings = {
        "Dir": "./",
        "Dir::State::Status": "./status",
        "Dir::State::Lists": "./lists",
        "Dir::Cache": "./cache",
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::ForceHash": "SHA256",
        "Debug::NoLocking": "true",
        "pkgCacheGen::ForceEssential": ",",
    }
    text = "".join(f'{key} "{value}";\n' for key, value in settings.items())
    (folder / "apt.conf").write_text(text)


class Relations:
    """A set of packages that is complete in itself: each name with its fields."""

    def __init__(self, packages: Mapping[str, Mapping[str, str]]) -> None:
        self._packages = packages
        self._providers: dict[str, str] = {}
        for name in sorted(packages):
            for provided in read_relation(packages[name].get("provides", "")):
                self._providers.setdefault(provided[0], name)

    @property
    def essential(self) -> set[str]:
        """The essential packages and all that they need."""
        return self._closure(
            name for name, fields in self._packages.items() if fields.get("essential") == "yes"
        )

    def waves(self) -> list[set[str]]:
        """The packages in the order of configuring, the essential ones first.

        A preinst may use what its package pre-depends on, so that is configured by then (Debian
        Policy 7.2); apt goes to the same length.
        """
        essential = self.essential
        wanted: list[set[str]] = []
        wave = set(self._packages) - essential
        while wave and wave not in wanted:
            wanted.append(wave)
            needed = (one for name in wave for one in self._find(name, "pre-depends"))
            wave = self._closure(needed) - essential
        done, found = set(essential), [essential]
        for wave in reversed(wanted):
            found.append(wave - done)
            done |= wave
        return found

    def _closure(self, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._find(name, "pre-depends") + self._find(name, "depends")
        return found

    def _find(self, name: str, field: str) -> list[str]:
        """Of each relation the first alternative that is in the set, itself or by a provider."""
        found = []
        for choices in read_relation(self._packages[name].get(field, "")):
            real = (
                choice if choice in self._packages else self._providers.get(choice)
                for choice in choices
            )
            found += [one for one in real if one][:1]
        return found


def read_relation(field: str) -> list[list[str]]:
    """The names in a dependency field: for each relation its alternatives."""
    relations = (relation.split("|") for relation in field.split(",") if relation.strip())
    return [[re.split(r"[\s:(\[]", one.strip())[0] for one in choices] for choices in relations]
