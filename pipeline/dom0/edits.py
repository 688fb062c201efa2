"""An administrator's edits of a configuration, carried into the one that a rebuild renders.

Three texts: what we rendered last time, what is there now, what is rendered now. A key that nobody
edited gets its new value, one that was edited stays as it is, with its comments, and what both
changed is the administrator's and is told. Lists of disks and cards are joined entry by entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.dom0.config_file import Grammar, Segment, Value
from pipeline.errors import VerificationError
from pipeline.xen import specs
from pipeline.xen.cfg_syntax import quote_string
from pipeline.xen.xm import read_disk


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
