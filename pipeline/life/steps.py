"""The steps of a journal: each may be repeated, so that a kill between them does no harm."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.canonical import sync_folder
from pipeline.life.layout import Layout

Step = dict[str, str]
Perform = Callable[[Layout, Step], None]


def rename(source: Path, target: Path) -> Step:
    """Put a prepared file in its place."""
    return {"kind": "rename", "source": str(source), "path": str(target)}


def remove(path: Path) -> Step:
    """Remove a file or link."""
    return {"kind": "remove", "path": str(path)}


def remove_tree(path: Path) -> Step:
    """Remove a folder that we made, with all in it, and its parent if that is empty then."""
    return {"kind": "remove-tree", "path": str(path)}


def remove_empty(path: Path) -> Step:
    """Remove a folder, and its parent, where they are empty."""
    return {"kind": "remove-empty", "path": str(path)}


def _rename(_layout: Layout, step: Step) -> None:
    source, target = Path(step["source"]), Path(step["path"])
    if os.path.lexists(source):
        os.replace(source, target)
        sync_folder(target.parent)


def _remove(_layout: Layout, step: Step) -> None:
    with suppress(IsADirectoryError):  # whoever put a folder in a file's place keeps it
        Path(step["path"]).unlink(missing_ok=True)


def _remove_tree(layout: Layout, step: Step) -> None:
    path = Path(step["path"])
    while path.is_dir():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    _remove_empty(layout, step)


def _remove_empty(_layout: Layout, step: Step) -> None:
    path = Path(step["path"])
    for folder in (path, path.parent):
        with suppress(OSError):
            folder.rmdir()


_OWN: dict[str, Perform] = {
    "rename": _rename,
    "remove": _remove,
    "remove-tree": _remove_tree,
    "remove-empty": _remove_empty,
}
# what opens file systems and volumes is imported where it is carried out
_ELSEWHERE = {
    "modules": ("pipeline.life.guest_root", "perform_modules"),
    "set-size": ("pipeline.life.resize", "perform_size"),
    "lv-remove": ("pipeline.life.logical", "perform_removal"),
    "lv-rename": ("pipeline.life.logical", "perform_rename"),
}


_MOST = 4096
_WORD = re.compile(r"[A-Za-z0-9+_.~-]{1,255}")
_KEYS = {
    **dict.fromkeys(("remove", "remove-tree", "remove-empty"), ("path",)),
    "rename": ("source", "path"),
    "modules": ("guest", "what", "abis"),
    "set-size": ("path", "size"),
    "lv-remove": ("group", "path"),
    "lv-rename": ("group", "source", "path"),
}


def read_steps(layout: Layout, guest: str, found: list[object]) -> list[Step]:
    """Steps out of a journal's file; ValueError for what we never write.

    What is removed or renamed lies where a guest's things are, whatever the file says.
    """
    if len(found) > _MOST:
        raise ValueError(f"{len(found)} steps")
    steps = []
    for number, step in enumerate(found, 1):
        if type(step) is not dict or not all(type(value) is str for value in step.values()):
            raise ValueError(f"step {number} is no table of texts")
        kind = step.get("kind")
        if kind not in _KEYS or set(step) != {"kind", *_KEYS[kind]}:
            raise ValueError(f"step {number}: {kind!r}")
        _require_place(layout, guest, step)
        steps.append(step)
    return steps


def _require_place(layout: Layout, guest: str, step: Step) -> None:
    kind = step["kind"]
    if kind in ("modules", "lv-remove", "lv-rename"):
        words = [word for key in _KEYS[kind] for word in step[key].split()]
        if kind == "modules" and step["guest"] != guest:
            raise ValueError(f"it is about {step['guest']!r}")
        if not all(_WORD.fullmatch(word) and word not in (".", "..") for word in words):
            raise ValueError(f"{kind}: {words}")
        return
    files = (layout.configs, layout.auto, layout.saves, layout.state / "installed")
    disks = layout.images / guest
    for path in (Path(step[key]) for key in ("source", "path") if key in step):
        is_file = kind in ("remove", "rename") and path.parent in files and guest in path.name
        is_disk = disks in path.parents or (kind == "set-size" and Path("/dev") in path.parents)
        is_disk = is_disk and ".." not in path.parts
        if not (is_file or is_disk):
            raise ValueError(f"{kind} of {str(path)!r}")
    if kind == "set-size" and not step["size"].isdigit():
        raise ValueError(f"size {step['size']!r}")


def perform(layout: Layout, steps: Iterable[Step]) -> None:
    """Carry steps out, in order."""
    for step in steps:
        if step["kind"] in _OWN:
            _OWN[step["kind"]](layout, step)
        else:
            module, name = _ELSEWHERE[step["kind"]]
            getattr(importlib.import_module(module), name)(layout, step)


def write_aside(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file that is not in its place yet, and wait for the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        error.filename = str(path)  # write(2) does not know it
        raise
