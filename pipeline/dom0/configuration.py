"""A guest's configuration on its host: read as the administrator left it, merged, put in its place.

Bytes that are not UTF-8 (a comment in Latin-1) pass through unchanged: they are surrogates in the
text (PEP 383) and the same bytes again when it is written. Texts, links and records are prepared
aside and put in place by renames.
"""

import codecs
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pipeline.artifact.kernel_folder import KERNEL, RAMDISK
from pipeline.dom0.inventory import Installed, link_target, marked, read_installed
from pipeline.dom0.layout import Layout
from pipeline.errors import InUseError, PipelineError, UsageError, VerificationError
from pipeline.files import read_bytes
from pipeline.storage.steps import Step, find_staged, remove, rename
from pipeline.storage.transaction import Transaction, write_aside
from pipeline.xen import specs, xl, xm
from pipeline.xen.boot import Direct, Firmware
from pipeline.xen.cfg_syntax import quote_string
from pipeline.xen.domain import Domain
from pipeline.xen.render import render_xl, render_xm
from pipeline.xen.xm import read_disk

Value = str | int | list[str]
LIMIT = 1 << 20
_SUFFIX = ".domu-new"
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def read_config(layout: Layout, name: str) -> str | None:
    """The configuration as it is; None where there is none. Raises what read_text does."""
    try:
        return read_text(layout.config(name))
    except FileNotFoundError:
        return None


def read_text(path: Path) -> str:
    """The text of a configuration.

    Raises EnvironmentFault where this user may not read it, VerificationError for UTF-16,
    PipelineError for what is no plain file, FileNotFoundError.
    """
    content = read_bytes(path, limit=LIMIT, follow=True)
    if content.startswith(_WIDE) or b"\0" in content:
        raise VerificationError(
            f"{path} is no text that the toolstack reads (UTF-16, or zero bytes in it)",
            hint=f"write it as UTF-8: iconv -f UTF-16 -t UTF-8 {path}; or move it away",
        )
    return content.decode(errors="surrogateescape")


def encode(text: str) -> bytes:
    """The bytes of a configuration's text."""
    return text.encode(errors="surrogateescape")


@dataclass(frozen=True)
class Segment:
    """A stretch of a configuration: one statement (its keys), or a line that assigns nothing."""

    text: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grammar:
    """How a toolstack reads a configuration; raises ValueError with the line for what it cannot."""

    toolstack: str

    def values(self, text: str) -> dict[str, Value]:
        """Key to value."""
        read = xm.parse_assignments if self.toolstack == "xm" else xl.parse_assignments
        return read(_readable(text))

    def domain(self, text: str) -> Domain:
        """The domain that it describes, keys that our model does not carry left out."""
        parse = xm.parse if self.toolstack == "xm" else xl.parse
        return parse(_readable(text), strict=False)

    def segments(self, text: str) -> Iterator[Segment]:
        """The text in pieces: a statement ends with the first line that completes it."""
        open_text = ""
        for line in text.splitlines(keepends=True):
            open_text += line
            try:
                keys = tuple(self.values(open_text))
            except ValueError:
                continue
            yield Segment(open_text, keys)
            open_text = ""
        if open_text:
            yield Segment(open_text)


def _readable(text: str) -> str:
    """For parsers that take no surrogates: the foreign bytes read as Latin-1."""
    return re.sub("[\udc80-\udcff]", lambda found: chr(ord(found[0]) - 0xDC00), text)


def require_readable(grammar: Grammar, path: Path, text: str) -> Domain:
    """The domain of a configuration; VerificationError with the line where it cannot be read."""
    try:
        return grammar.domain(text)
    except ValueError as error:
        raise VerificationError(f"{path}: {error}", hint="correct it, then again") from error


def render(domain: Domain, *, toolstack: str, xen: str) -> str:
    """The configuration for the host's toolstack; raises UsageError for what it cannot express."""
    try:
        return render_xm(domain, xen=xen) if toolstack == "xm" else render_xl(domain, xen=xen)
    except ValueError as error:
        raise UsageError(f"{domain.name}: {error}", hint="correct the spec") from error


def moved_domain(
    domain: Domain, targets: Mapping[str, str], kernel: Path | None, firmware: Path | None = None
) -> Domain:
    """The same domain with its disks at `targets` (vdev to path), its kernel in a folder, and its
    UEFI firmware in one.
    """
    disks = tuple(disk.at(targets.get(disk.vdev, disk.target)) for disk in domain.disks)
    boot = domain.boot
    if isinstance(boot, Direct) and kernel is not None:
        boot = replace(
            boot,
            kernel=str(kernel / KERNEL),
            ramdisk=str(kernel / RAMDISK) if boot.ramdisk else None,
        )
    if isinstance(boot, Firmware) and firmware is not None:
        boot = replace(boot, path=str(firmware / PurePosixPath(boot.path).name))
    return replace(domain, disks=disks, boot=boot)


def current_text(layout: Layout, record: Installed) -> str:
    """The configuration as it is, the administrator's edits included; as we wrote it if gone.

    Raises what read_config does.
    """
    text = read_config(layout, record.name)
    return record.config_text if text is None else text


def changed_text(
    layout: Layout,
    record: Installed,
    change: Callable[[str], str],
    *,
    targets: Mapping[str, str] | None = None,
    kernel: Path | None = None,
    hint: str,
) -> str:
    """The configuration as it is, edits of the administrator's included, changed in one thing.

    That is where disks are (`targets`, vdev to path) or the kernel's folder. Raises
    VerificationError when `change` does not reach just that.
    """
    path, text = layout.config(record.name), current_text(layout, record)
    grammar = Grammar(record.toolstack)
    was, now = (require_readable(grammar, path, version) for version in (text, change(text)))
    expected = moved_domain(was, targets or {}, kernel)
    if now != expected or now == was:
        raise VerificationError(
            f"{path} is not written so that this can be replaced in it", hint=hint
        )
    return change(text)


def prepare_texts(
    change: Transaction, layout: Layout, record: Installed, disks: Sequence[Step] = ()
) -> list[Step]:
    """Write configuration, link and record beside their places; returns the steps of the commit.

    `disks` are the steps that put disks in their places: they tell where those are now.
    """
    steps = prepare_config(change, layout, record)
    return [*steps, *prepare_record(change, layout, record, disks)]


def prepare_config(change: Transaction, layout: Layout, record: Installed) -> list[Step]:
    """The same for configuration and link alone; a link that leads there already stays."""
    name = record.name
    config, link = layout.config(name), layout.auto_link(name)
    change.will_make(*(remove(_aside(path)) for path in (config, link)))
    config.parent.mkdir(parents=True, exist_ok=True)
    # readable by root alone: a vfb may hold a password of the administrator's
    write_aside(_aside(config), encode(record.config_text))
    _give_back(_aside(config), record.origin)
    steps = [rename(_aside(config), config)]
    is_linked = is_our_link(layout, name)
    if record.is_autostarted and not is_linked:
        link.parent.mkdir(parents=True, exist_ok=True)
        _aside(link).symlink_to(f"../{config.name}")
        steps.append(rename(_aside(link), link))
    elif is_linked and not record.is_autostarted:
        steps.append(remove(link))
    return steps


def _give_back(path: Path, origin: Mapping[str, str]) -> None:
    """Owner and mode of a configuration that was here before doit, which its record has."""
    access = re.fullmatch(r"(\d{1,9}):(\d{1,9}) ([0-7]{3})", origin.get("access", ""))
    if access:
        os.chown(path, int(access[1]), int(access[2]))
        path.chmod(int(access[3], 8))


def prepare_record(
    change: Transaction, layout: Layout, record: Installed, disks: Sequence[Step] = ()
) -> list[Step]:
    """Write the record beside its place; the marks of the disks are those of now."""
    kept = layout.record(record.name)
    change.will_make(remove(_aside(kept)))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_aside(_aside(kept), marked(record, find_staged(disks)).to_json())
    return [rename(_aside(kept), kept)]


def refuse_foreign(layout: Layout, name: str) -> None:
    """Raises InUseError when a configuration or link of that name is there that is not ours."""
    config, link = layout.config(name), layout.auto_link(name)
    hint = "move it away, or give the guest another name"
    if os.path.lexists(config) and read_installed(layout, name) is None:
        raise InUseError(f"{config} is there and was not installed by doit", hint=hint)
    if os.path.lexists(link) and not is_our_link(layout, name):
        raise InUseError(f"{link} is there and was not made by doit", hint=hint)


def is_our_link(layout: Layout, name: str) -> bool:
    """Whether the link in auto/ is one that we made or would make."""
    target = link_target(layout.auto_link(name))
    return target in (f"../{name}.cfg", str(layout.config(name)))


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}{_SUFFIX}")


def is_edited(layout: Layout, record: Installed) -> bool:
    """Whether an administrator's hand is in the configuration."""
    try:
        return read_config(layout, record.name) != record.rendered
    except PipelineError:
        return True


# an administrator's edits, carried into the configuration that a rebuild renders. Three texts: what
# we rendered last time, what is there now, what is rendered now. A key that nobody edited gets its
# new value, one that was edited stays as it is, with its comments, and what both changed is the
# administrator's and is told. Lists of disks are joined entry by entry.


@dataclass(frozen=True)
class Merged:
    """The text to write, and what was kept, changed and not taken over, in words."""

    text: str
    notes: tuple[str, ...]


def merge(
    path: Path, grammar: Grammar, *, last: str, now: str, new: str, moves: Mapping[str, str]
) -> Merged:
    """The configuration with the edits between `last` and `now` and the changes up to `new`.

    `moves` are paths of ours that are elsewhere from now on. Raises VerificationError where the
    file is written so that this cannot be done.
    """
    last, now = (_moved(text, moves) for text in (last, now))
    if now == last:
        return Merged(new, ())
    try:
        before, edited, wanted = (grammar.values(text) for text in (last, now, new))
        segments = list(grammar.segments(_with_header(last, now, new)))
    except ValueError as error:
        raise VerificationError(
            f"{path}: {error}", hint="correct it; or move it away, and it is written anew"
        ) from error
    fresh = {segment.keys: segment.text for segment in grammar.segments(new)}
    notes = []
    for key in [*wanted, *(set(before) - set(wanted)), *(set(edited) - set(wanted) - set(before))]:
        was, mine, theirs = before.get(key), edited.get(key), wanted.get(key)
        if mine == theirs or was == theirs:
            if mine != was and mine != theirs:
                notes.append(f"kept: {_show(key, mine)}")
            continue
        result = theirs if mine == was else _join(grammar, key, was, mine, theirs)
        if result != mine:
            text = fresh.get((key,), "") if result == theirs else _render(key, result)
            segments = _replaced(path, segments, key, text)
            notes.append(f"changed: {_show(key, mine)} -> {_show(key, result)}")
        if result != theirs:
            notes.append(f"kept: {_show(key, result)}; the new build says {_show(key, theirs)}")
    text = "".join(segment.text for segment in segments)
    return Merged(text, tuple(notes or ["kept: comments and order"]))


def _moved(text: str, moves: Mapping[str, str]) -> str:
    """The text with paths of ours replaced, in strings and comments alike."""
    if not moves:
        return text
    longest = sorted(moves, key=len, reverse=True)
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, longest))})(?![\w.+-])")
    return pattern.sub(lambda found: moves[found[0]], text)


def _with_header(last: str, now: str, new: str) -> str:
    """The first comment lines name versions: those that nobody edited are the new ones."""
    old, fresh = _header(last), _header(new)
    return fresh + now.removeprefix(old) if old and now.startswith(old) else now


def _header(text: str) -> str:
    found = re.match(r"(?:#[^\n]*\n)*", text)
    return found[0] if found else ""


def _join(
    grammar: Grammar, key: str, was: Value | None, mine: Value | None, theirs: Value | None
) -> Value | None:
    """What both changed: disks joined, each once, everything else the administrator's."""
    if key != "disk" or not all(isinstance(value, list) for value in (was, mine, theirs)):
        return mine
    assert isinstance(was, list) and isinstance(mine, list) and isinstance(theirs, list)
    kept = [entry for entry in mine if entry in theirs or entry not in was]
    taken = {_vdev(grammar, entry) for entry in kept}
    dropped = {_vdev(grammar, entry) for entry in was} - {_vdev(grammar, entry) for entry in mine}
    more = [entry for entry in theirs if _vdev(grammar, entry) not in taken | dropped]
    return [*kept, *more]


def _vdev(grammar: Grammar, entry: str) -> str:
    try:
        read = read_disk if grammar.toolstack == "xm" else specs.read_xl_disk
        return read(entry).vdev
    except ValueError:
        return entry


def with_keys(path: Path, grammar: Grammar, text: str, changes: Mapping[str, Value | None]) -> str:
    """The text with other values for these keys, None for no such key; all else as it stands.

    A key that was not there comes behind the one before it in `changes`. Raises VerificationError
    where one of them is assigned twice.
    """
    spot = None
    for key, value in changes.items():
        segments = list(grammar.segments(text))
        at = next((n for n, segment in enumerate(segments) if key in segment.keys), None)
        if at is not None and grammar.values(text)[key] == value:
            pass  # as it is written
        elif at is not None:
            segments = _replaced(path, segments, key, _render(key, value))
        elif value is not None:
            at = len(segments) if spot is None else spot
            is_ended = not at or segments[at - 1].text.endswith("\n")
            rendered = _render(key, value)
            segments.insert(at, Segment(rendered if is_ended else f"\n{rendered}"))
        spot = spot if at is None else at + (value is not None)
        text = "".join(segment.text for segment in segments)
    return text


def _replaced(path: Path, segments: list[Segment], key: str, text: str) -> list[Segment]:
    """The segments with another text for a key, at its place or at the end."""
    at = [number for number, segment in enumerate(segments) if key in segment.keys]
    if len(at) > 1 or any(segments[number].keys != (key,) for number in at):
        raise VerificationError(
            f"{path} assigns {key} more than once, or beside another key on one line",
            hint="write it once, on lines of its own; or move the file away",
        )
    if at:
        segments = [*segments]
        segments[at[0]] = Segment(text, (key,))
        return segments
    ends = not segments or segments[-1].text.endswith("\n")
    return [*segments, Segment(text if ends else f"\n{text}", (key,))]


def _render(key: str, value: Value | None) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        inner = "".join(f"    {quote_string(entry)},\n" for entry in value)
        return f"{key} = [\n{inner}]\n"
    return f"{key} = {quote_string(value) if isinstance(value, str) else value}\n"


def _show(key: str, value: Value | None) -> str:
    if value is None:
        return f"no {key}"
    if any(word in key for word in ("vfb", "passw", "vnc")):
        return f"{key} (not shown, it may hold a password)"
    text = str(value)
    return f"{key} = {text if len(text) <= 120 else text[:117] + '...'}"
