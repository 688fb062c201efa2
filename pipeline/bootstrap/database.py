"""dpkg's database for packages that are unpacked and not yet configured.

What `dpkg --unpack` would leave (deb-triggers(5), dpkg(1); dpkg's lib/dpkg/db-fsys-files.c,
src/main/unpack.c, src/main/trigproc.c): the control files and the list of each package, one stanza
of the status file, the interests in triggers, and what was set off of those (triggers/Unincorp,
which dpkg takes up when it starts; it drops what concerns a package that is not configured yet).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from pipeline.bootstrap.deb import Archive, Member, damaged, not_written, read_members
from pipeline.errors import VerificationError
from pipeline.mirror.stanzas import read_fields
from pipeline.walls.beneath import Beneath
from pipeline.walls.package_names import (
    require_architecture,
    require_control_file,
    require_package,
    require_path,
    require_trigger,
    require_version,
)

ADMIN = "var/lib/dpkg"
_COMING = f"{ADMIN}/tmp.ci"
_FORMAT = b"1\n"
_IDLE = re.compile(r"#|set -eu?$|exit 0$|dpkg-maintscript-helper [^;&|`$]* -- \"\$@\"$")
_REMOVE = "remove-on-upgrade "
_STANZA = re.compile(r"[!-9;-~]+:[^\n]*(?:\n[!-9;-~]+:[^\n]*|\n[ \t]+[^\s][^\n]*)*")
_TRIGGERS = {
    f"{verb}{how}" for verb in ("interest", "activate") for how in ("", "-await", "-noawait")
}
_REGISTER_MAX = 64 << 20


@dataclass(frozen=True)
class Control:
    """The control files of one package: `fields` of its stanza, every other file by name.

    `conffiles` are the paths that it ships as such, `removed` those that it takes away instead.
    """

    stanza: str
    fields: dict[str, str]
    conffiles: tuple[str, ...]
    removed: tuple[str, ...]
    files: dict[str, tuple[Member, bytes]]

    @property
    def name(self) -> str:
        return self.fields["package"]

    @property
    def label(self) -> str:
        """Its name in dpkg's database: with the architecture where several can be installed."""
        if self.fields.get("multi-arch") == "same":
            return f"{self.name}:{self.fields['architecture']}"
        return self.name

    @property
    def has_working_preinst(self) -> bool:
        """False when there is none, or one that does nothing but call dpkg-maintscript-helper.

        That only acts on an upgrade, from a version that it is told (dpkg-maintscript-helper(1)).
        """
        text = (
            self.files["preinst"][1].decode("utf-8", "replace") if "preinst" in self.files else ""
        )
        lines = (line.strip() for line in text.splitlines())
        return any(line and not _IDLE.match(line) for line in lines)

    @property
    def triggers(self) -> list[list[str]]:
        """The directives of its triggers file, as words."""
        text = _decode(self.files["triggers"][1]) if "triggers" in self.files else ""
        lines = (line.partition("#")[0].split() for line in text.split("\n"))
        return [words for words in lines if words]


def read_control(
    archive: Archive, *, name: str, version: str = "", architecture: str = ""
) -> Control:
    """The control part of a .deb; raises PipelineError for what is none, or another package's.

    `name`, and version and architecture unless empty, are what the signed index says.
    """
    files: dict[str, tuple[Member, bytes]] = {}
    for member in read_members(archive.control, name=name):
        if member.path == "/." and member.kind == "5":
            continue
        if member.kind != "0" or member.path[1:] in files:
            raise damaged(name, f"its control part has {member.path} twice, or not as a file")
        content = archive.control[member.start : member.start + member.size]
        files[member.path[1:]] = member, content
    if "control" not in files:
        raise damaged(name, "it has no control file")
    stanza = _decode(files.pop("control")[1]).strip("\n")
    text = _decode(files["conffiles"][1]) if "conffiles" in files else ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    shipped = tuple(line for line in lines if not line.startswith(_REMOVE))
    removed = tuple(
        line.removeprefix(_REMOVE).strip() for line in lines if line.startswith(_REMOVE)
    )
    try:
        fields = read_fields(stanza)
    except ValueError as error:
        raise damaged(name, f"its control file is not one stanza: {error}") from None
    control = Control(stanza, fields, shipped, removed, files)
    _verify(control, {"Package": name, "Version": version, "Architecture": architecture})
    return control


def _verify(control: Control, wanted: Mapping[str, str]) -> None:
    """Raise PipelineError for names that dpkg would not take, or that the index does not have."""
    package = wanted["Package"]
    where = f"package {package}"
    if not _STANZA.fullmatch(control.stanza):
        raise damaged(package, "its control file is not one stanza")
    for field, value in wanted.items():
        own = control.fields.get(field.lower(), "")
        if value and own != value:
            raise VerificationError(
                f"{where}: its control file says {field}: {ascii(own[:80])}, the index {value}",
                hint="the mirror's index and its package disagree: try another mirror",
            )
    require_package(control.name, where=where)
    require_version(control.fields.get("version", ""), where=where)
    require_architecture(control.fields.get("architecture", ""), where=where)
    for name in control.files:
        require_control_file(name, where=where)
    for path in (*control.conffiles, *control.removed):
        require_path(path, where=f"{where}: conffiles")
    for words in control.triggers:
        if len(words) != 2 or words[0] not in _TRIGGERS:
            raise damaged(package, f"no trigger: {' '.join(words)[:80]}")
        require_trigger(words[1], where=f"{where}: triggers")


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def write_package(root: Path, control: Control, files: Sequence[Member], tar: bytes) -> None:
    """The files of one package in the info folder of the tree's dpkg: its list, its control files.

    Raises PipelineError where there is something of such a name already.
    """
    stem = f"{ADMIN}/info/{control.label}"
    listing = "".join(f"{member.path}\n" for member in files)
    try:
        with Beneath(root) as tree:
            tree.write(f"{stem}.list", _encode(listing), mode=0o644)
            for name, (member, content) in control.files.items():
                tree.write(f"{stem}.{name}", content, mode=member.mode, mtime_s=member.mtime)
            if "md5sums" not in control.files:
                digests = _encode(_digests(control, files, tar))
                tree.write(f"{stem}.md5sums", digests, mode=0o644)
    except OSError as error:
        raise not_written(control.name, stem, error) from error


def write_control_files(root: Path, control: Control) -> None:
    """A package's control files where dpkg has them while it unpacks: tmp.ci.

    Raises PipelineError where they cannot be written, so for whatever a script left there.
    """
    try:
        with Beneath(root) as tree:
            tree.make_folder(_COMING)
            for name, (member, content) in control.files.items():
                tree.write(f"{_COMING}/{name}", content, mode=member.mode)
            tree.write(f"{_COMING}/control", _encode(f"{control.stanza}\n"), mode=0o644)
    except OSError as error:
        raise not_written(control.name, _COMING, error) from error


def remove_control_files(root: Path) -> None:
    """Take them away again, with what a script put beside them."""
    with Beneath(root) as tree:
        tree.remove(_COMING, missing_ok=True)


def _digests(control: Control, files: Sequence[Member], tar: bytes) -> str:
    """What dpkg writes for a package that brings no md5sums of its own."""
    return "".join(
        f"{hashlib.md5(tar[one.start : one.start + one.size]).hexdigest()}  {one.path[1:]}\n"
        for one in files
        if one.kind == "0" and one.path not in control.conffiles
    )


def begin_database(root: Path) -> None:
    """The database of a tree without packages."""
    with Beneath(root) as tree:
        tree.write(f"{ADMIN}/info/format", _FORMAT, mode=0o644)
        for name in ("status", "triggers/File", "triggers/Unincorp"):
            tree.write(f"{ADMIN}/{name}", b"", mode=0o644)


def add_packages(root: Path, packages: Mapping[str, tuple[Control, Sequence[Member]]]) -> None:
    """Add unpacked packages to what the database holds: stanzas, and their part in triggers.

    Raises PipelineError where a script has left something else in the place of its files.
    """
    ordered = [packages[name] for name in sorted(packages)]
    try:
        with Beneath(root) as tree:
            before = _decode(tree.read(f"{ADMIN}/triggers/File", limit=_REGISTER_MAX)).splitlines()
            watched = {line.partition(" ")[0] for line in before}
            _add(tree, "status", (_status(control) for control, _ in ordered))
            _add(
                tree,
                "triggers/Unincorp",
                (f"{name} -\n" for name in sorted(_activated(ordered, watched))),
            )
            for file, lines in _interests(control for control, _ in ordered).items():
                _add(tree, f"triggers/{file}", lines)
    except OSError as error:
        raise not_written("dpkg", ADMIN, error) from error


def _add(tree: Beneath, name: str, lines: Iterable[str]) -> None:
    tree.append(f"{ADMIN}/{name}", _encode("".join(lines)), mode=0o644)


def _interests(controls: Iterable[Control]) -> dict[str, list[str]]:
    """The lines of the files in dpkg's folder for triggers: one for all paths, else one a name."""
    found: dict[str, list[str]] = {}
    for control in controls:
        for word, *names in control.triggers:
            if word.startswith("interest"):
                line = control.label + ("/noawait" if word == "interest-noawait" else "")
                for name in names:
                    file, text = ("File", f"{name} {line}") if name[0] == "/" else (name, line)
                    found.setdefault(file, []).append(f"{text}\n")
    return found


def _activated(
    packages: Iterable[tuple[Control, Sequence[Member]]], watched: Set[str]
) -> Iterator[str]:
    """The triggers that packages set off: by name, or by a path at or below a watched one."""
    for control, members in packages:
        for word, *names in control.triggers:
            if word.startswith("activate"):
                yield from names
        for path in watched:
            if any(f"{one.path}/".startswith(f"{path}/") for one in members):
                yield path


def _status(control: Control) -> str:
    lines = [f" {path} newconffile {_REMOVE}".rstrip() for path in control.removed]
    lines += [f" {path} newconffile" for path in control.conffiles]
    named = "".join(f"{line}\n" for line in ("Conffiles:", *lines)) if lines else ""
    return f"{control.stanza}\nStatus: install ok unpacked\n{named}\n"
