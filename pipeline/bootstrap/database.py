"""dpkg's database for packages that are unpacked and not yet configured.

What `dpkg --unpack` would leave (deb-triggers(5), dpkg(1); dpkg's lib/dpkg/db-fsys-files.c,
src/main/unpack.c, src/main/trigproc.c): the control files and the list of each package, one stanza
of the status file, the interests in triggers. An activation of a trigger leaves nothing here: dpkg
drops it for a package that is not configured yet, whose postinst then does the work anyway.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.bootstrap.archive import Archive, Member, damaged, read_members

ADMIN = "var/lib/dpkg"
_FORMAT = "1\n"
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
    def is_essential(self) -> bool:
        """True for what must always work, even unconfigured (deb-control(5))."""
        return self.fields.get("Essential") == "yes"

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


def read_fields(stanza: str) -> dict[str, str]:
    """The fields of a control stanza; further lines are joined to the first by a space."""
    unfolded = re.sub(r"\n[ \t]+", " ", stanza)
    pairs = (line.partition(":") for line in unfolded.split("\n"))
    return {key: value.strip() for key, _, value in pairs}


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


def write_database(tree: Path, controls: Iterable[Control]) -> None:
    """The files that are about all packages: status, info/format, the interests in triggers."""
    admin = tree / ADMIN
    ordered = sorted(controls, key=lambda control: control.label)
    (admin / "status").write_text("".join(map(_status, ordered)), encoding="utf-8")
    (admin / "info/format").write_text(_FORMAT)
    (admin / "triggers/Unincorp").touch()
    interests: dict[str, list[str]] = {}
    for control in ordered:
        for word, *names in control.triggers:
            if word.startswith("interest"):
                line = control.label + ("/noawait" if word == "interest-noawait" else "")
                for name in names:
                    file, text = ("File", f"{name} {line}") if name[0] == "/" else (name, line)
                    interests.setdefault(file, []).append(f"{text}\n")
    for file, lines in interests.items():
        (admin / "triggers" / file).write_text("".join(lines))


def _status(control: Control) -> str:
    lines = [f" {path} newconffile {_REMOVE}".rstrip() for path in control.removed]
    lines += [f" {path} newconffile" for path in control.conffiles]
    named = "".join(f"{line}\n" for line in ("Conffiles:", *lines)) if lines else ""
    return f"{control.stanza}\nStatus: install ok unpacked\n{named}\n"
