"""A file of somebody else's becomes a guest's spec, with an answer for each of its keys."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

from pipeline.errors import Finding, SpecError, UsageError, WrongValueError
from pipeline.files import open_disk
from pipeline.foreign.import_keys import Answer
from pipeline.foreign.import_spec import Draft, Host, draft, show_value
from pipeline.foreign.import_text import Configuration, Key, Kind, read_configuration
from pipeline.spec.layers import Layer
from pipeline.spec.load import Draft as SpecDraft
from pipeline.spec.load import draft_layer
from pipeline.xen.devices import Disk
from pipeline.xen.domain import Domain

# without these nothing of a guest would be left: a mistake in them is an error
_ESSENTIAL = frozenset({"name", "suite", "type"})
_INNER = re.compile(r"interfaces\[(\d+)\]\.(\w+)")
_MOST_LETTERS = 200
_QCOW2, _VHD, _VHD_FOOTER = b"QFI\xfb", b"conectix", 512


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What a configuration comes to: the spec, not written yet, and the report of every key."""

    source: Path
    kind: Kind
    spec: SpecDraft
    domain: Domain
    answers: Mapping[str, Answer]  # by aspect of the domain
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many keys have which outcome."""
        return dict(Counter(finding.code for finding in self.findings))


def import_text(
    text: str,
    source: Path,
    guests: Path,
    *,
    name: str = "",
    suite: str = "",
    replaces: bool = False,
    host: Host | None = None,
) -> Imported:
    """The spec of the configuration in `source`. Raises UsageError for what makes none.

    `host` says what the files are that it names; without it they are looked at.
    """
    try:
        read = read_configuration(text, name=name or source.stem)
        if name:
            read = replace(read, domain=replace(read.domain, name=name))
    except WrongValueError as mistake:
        key = f"{mistake.key}: " if mistake.key else ""
        raise UsageError(f"{source}: {key}{mistake.message}", hint=mistake.hint) from mistake
    except ValueError as fault:
        raise UsageError(f"{source}: {fault}", hint=_hint_of(str(fault))) from fault
    made = draft(read, look_at(read.domain, source) if host is None else host, suite=suite)
    _check_name(guests, made, source, replaces=replaces)
    _settle(made, source, guests)
    trimmed = _leave_out(made, read, guests, source)
    findings = tuple(_report(read, made, trimmed, source.name))
    remarks = tuple(_remarks(read.kind, source, findings))
    spec = _try(trimmed, made, source, guests)
    return Imported(
        source=source,
        kind=read.kind,
        spec=replace(spec, remarks=remarks),
        domain=read.domain,
        answers=made.answers,
        findings=findings,
    )


def _hint_of(fault: str) -> str:
    if "program code" in fault or "computed" in fault:
        return "write out what the file computes: a file that xl reads has values only"
    if "not of Xen" in fault:
        return "a spec of its own says what is built instead: doit create"
    return "xl, xm or virsh could not read it either; mend it there, or name another file"


def _check_name(guests: Path, made: Draft, source: Path, *, replaces: bool) -> None:
    path = guests / f"{made.values['name']}.toml"
    if path.exists() and not replaces:
        raise UsageError(
            f"{source}: {path.parent.name}/{path.name} exists already",
            hint="replace=yes writes it anew; name=... gives the guest another name",
        )


def _settle(made: Draft, source: Path, guests: Path) -> None:
    """Keys that a spec refuses are answered with its reason, and left out."""
    while True:
        try:
            _try(made.values, made, source, guests)
            return
        except SpecError as error:
            given_up = [_give_up(made, problem) for problem in error.problems]
            if not any(given_up):
                raise  # else each turn has a key less


def _try(values: dict[str, object], made: Draft, source: Path, guests: Path) -> SpecDraft:
    layer = Layer(source.name, source.parent, {k: v for k, v in values.items() if k != "name"})
    return draft_layer(str(made.values["name"]), layer, guests, [], may_exist=True)


def _give_up(made: Draft, problem: Finding) -> bool:
    """Take the key out that a problem is about; whether there was one."""
    answer = Answer("cannot be said", problem.text, problem.hint)
    inner = _INNER.fullmatch(problem.subject)
    tables: Any = made.values.get("interfaces", [])
    if inner and int(inner[1]) < len(tables) and inner[2] in tables[int(inner[1])]:
        del tables[int(inner[1])][inner[2]]
        made.answers[f"card{int(inner[1]) + 1} {inner[2]}"] = answer
        return True
    keys = [problem.subject.partition("[")[0], *problem.others]
    key = next((key for key in keys if key in made.values and key not in _ESSENTIAL), None)
    if key is None:
        return False
    del made.values[key]
    aspect = made.owners.get(key, key)
    made.answers[aspect] = answer
    if aspect == "cmdline":
        made.answers["extra"] = answer
    return True


def _leave_out(made: Draft, read: Configuration, guests: Path, source: Path) -> dict[str, object]:
    """The keys without those that the file does not say and that hold anyway."""
    said = {key.aspect for key in read.keys}
    fixed: dict[str, object] = {
        key: made.values[key] for key in ("suite", "arch") if key in made.values
    }
    usual = _try(fixed, made, source, guests).spec
    return {
        key: value
        for key, value in made.values.items()
        if key in (*fixed, "type") or made.owners.get(key) in said or getattr(usual, key) != value
    }


def _report(
    read: Configuration, made: Draft, values: dict[str, object], source: str
) -> Iterator[Finding]:
    """An answer for each key of the file, then what a spec says besides."""
    anyway = Answer("not needed", "it is what holds anyway")
    for key in read.keys:
        answer = key.answer or made.answers.get(key.aspect, anyway)
        yield answer.about(key.name, _shown(key), source)
    said = {key.aspect for key in read.keys}
    for aspect, answer in made.answers.items():
        if answer.outcome == "added" and aspect not in said:
            yield answer.about(aspect, "", source)
    for word, value in values.items():
        aspect = made.owners.get(word, word)
        answer = made.answers.get(aspect, anyway)
        if aspect not in said and answer.outcome == "taken":
            text = f"{word} = {show_value(value)}: what {read.kind} does where nothing is said"
            yield Answer("added", text).about(aspect, "", source)


def _shown(key: Key) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in key.value)
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 3]}..."


def _remarks(kind: Kind, source: Path, findings: tuple[Finding, ...]) -> Iterator[str]:
    shown = "".join(letter if letter.isprintable() else "?" for letter in str(source))
    lost = [finding for finding in findings if finding.code == "cannot be said"]
    yield f"From {shown} ({kind}). What it says and a spec cannot:{'' if lost else ' nothing'}"
    for finding in lost:
        yield f"  {finding.subject} = {finding.message}"


def look_at(domain: Domain, source: Path) -> Host:
    """What this host says of the files that a domain names, and whether it starts with the host."""
    sizes = {disk.target: _size_mib(disk) for disk in domain.disks if disk.target}
    boot = domain.boot
    named = (getattr(boot, "kernel", ""), getattr(boot, "ramdisk", None) or "")
    folder = source.parent / "auto"
    links = folder.iterdir() if folder.is_dir() else ()
    is_linked = any(link.resolve() == source.resolve() for link in links)
    return Host(
        sizes={path: size for path, size in sizes.items() if size},
        files=frozenset(path for path in named if path and os.path.isfile(path)),
        autostart=is_linked,
    )


def _size_mib(disk: Disk) -> int:
    """How large the guest sees it, in MiB; 0 where that cannot be seen."""
    try:
        with open_disk(disk.target) as stream:
            size = _read_size(stream, disk.format)
    except (OSError, ValueError):
        return 0
    return -(-size // (1 << 20)) if size < 1 << 54 else 0


def _read_size(stream: FileIO, form: str) -> int:
    """In bytes: the container's own word, or the length."""
    size = stream.seek(0, os.SEEK_END)
    if form == "qcow2":  # docs/interop/qcow2.txt of QEMU: size at byte 24
        head = os.pread(stream.fileno(), 32, 0)
        return int.from_bytes(head[24:32], "big") if head.startswith(_QCOW2) else 0
    if form == "vhd":  # its footer, current size at byte 48
        foot = os.pread(stream.fileno(), 64, max(size - _VHD_FOOTER, 0))
        return int.from_bytes(foot[48:56], "big") if foot.startswith(_VHD) else 0
    return size
