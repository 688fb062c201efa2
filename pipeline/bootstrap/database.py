"""dpkg's database for packages that are unpacked and not yet configured.

What `dpkg --unpack` would leave (deb-triggers(5), dpkg(1); dpkg's lib/dpkg/db-fsys-files.c,
src/main/unpack.c, src/main/trigproc.c): the control files and the list of each package, one stanza
of the status file, the interests in triggers, and what was set off of those (triggers/Unincorp,
which dpkg takes up when it starts; it drops what concerns a package that is not configured yet).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from pipeline.bootstrap.archive import Archive, Member, damaged, read_members
from pipeline.bootstrap.relations import read_fields

ADMIN = "var/lib/dpkg"
_FORMAT = "1\n"
_IDLE = re.compile(r"#|set -eu?$|exit 0$|dpkg-maintscript-helper [^;&|`$]* -- \"\$@\"$")
_REMOVE = "remove-on-upgrade "


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
        """The package's name."""
        return self.fields["Package"]

    @property
    def label(self) -> str:
        """Its name in dpkg's database: with the architecture where several can be installed."""
        if self.fields.get("Multi-Arch") == "same":
            return f"{self.name}:{self.fields['Architecture']}"
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
        text = self.files["triggers"][1].decode() if "triggers" in self.files else ""
        lines = (line.partition("#")[0].split() for line in text.splitlines())
        return [words for words in lines if words]


def read_control(archive: Archive, *, name: str) -> Control:
    """The control part of a .deb; raises PipelineError for what is none."""
    files = {
        member.path[1:]: (member, archive.control[member.start : member.start + member.size])
        for member in read_members(archive.control, name=name)
        if member.kind == "0"
    }
    if "control" not in files:
        raise damaged(name, "it has no control file")
    stanza = files.pop("control")[1].decode("utf-8").strip("\n")
    text = files["conffiles"][1].decode("utf-8") if "conffiles" in files else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    shipped = tuple(line for line in lines if not line.startswith(_REMOVE))
    removed = tuple(line.removeprefix(_REMOVE) for line in lines if line.startswith(_REMOVE))
    return Control(stanza, read_fields(stanza), shipped, removed, files)


def write_package(folder: Path, control: Control, files: Sequence[Member], tar: bytes) -> None:
    """The files of one package in `folder`, dpkg's info: its list, its control files."""
    stem = f"{folder}/{control.label}"
    listing = "".join(f"{member.path}\n" for member in files)
    Path(f"{stem}.list").write_bytes(os.fsencode(listing))
    for name, (member, content) in control.files.items():
        path = f"{stem}.{name}"
        Path(path).write_bytes(content)
        os.chmod(path, member.mode)
        os.utime(path, (member.mtime, member.mtime))
    if "md5sums" not in control.files:
        Path(f"{stem}.md5sums").write_bytes(os.fsencode(_digests(control, files, tar)))


def _digests(control: Control, files: Sequence[Member], tar: bytes) -> str:
    """What dpkg writes for a package that brings no md5sums of its own."""
    return "".join(
        f"{hashlib.md5(tar[one.start : one.start + one.size]).hexdigest()}  {one.path[1:]}\n"
        for one in files
        if one.kind == "0" and one.path not in control.conffiles
    )


def begin_database(tree: Path) -> None:
    """The database of a tree without packages."""
    admin = tree / ADMIN
    (admin / "info/format").write_text(_FORMAT)
    for name in ("status", "triggers/File", "triggers/Unincorp"):
        (admin / name).touch()


def add_packages(tree: Path, packages: Mapping[str, tuple[Control, Sequence[Member]]]) -> None:
    """Add unpacked packages to what the database holds: stanzas, and their part in triggers."""
    admin = tree / ADMIN
    before = (admin / "triggers/File").read_text().splitlines()
    watched = {line.partition(" ")[0] for line in before}
    ordered = [packages[name] for name in sorted(packages)]
    with open(admin / "status", "a", encoding="utf-8") as status:
        status.writelines(_status(control) for control, _ in ordered)
    with open(admin / "triggers/Unincorp", "a") as pending:
        for name in sorted(_activated(ordered, watched)):
            pending.write(f"{name} -\n")
    for control, _ in ordered:
        for word, *names in control.triggers:
            if word.startswith("interest"):
                line = control.label + ("/noawait" if word == "interest-noawait" else "")
                for name in names:
                    file, text = ("File", f"{name} {line}") if name[0] == "/" else (name, line)
                    with open(admin / "triggers" / file, "a") as interests:
                        interests.write(f"{text}\n")


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
