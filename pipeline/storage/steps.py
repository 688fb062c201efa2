"""What a change of a guest is made of: steps, each of which may be repeated.

A journal holds them as tables of texts. Whoever reads one believes nothing: what a step changes
lies where a guest's things are, or its volume carries the guest's tag.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.errors import InUseError, PipelineError, show_value
from pipeline.files import digest_file, sync_folder
from pipeline.storage import lvm
from pipeline.storage.disks import NEW, OLD
from pipeline.storage.ext import size_in_superblock
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.root_place import TAIL, find_root, fit_table
from pipeline.store.store import BUILDINFO, exchange

Step = dict[str, str]
_MOST = 4096
_SIZES = ("set-size", "set-whole-size")
_WORD = re.compile(r"[A-Za-z0-9+_.~-]{1,255}")


@dataclass(frozen=True)
class Kind:
    """A kind of step: its keys beside `kind`, and what carries it out; it may be repeated.

    `permits` says whether one out of a journal may be carried out, where the site's rules for
    paths and words do not say it.
    """

    keys: tuple[str, ...]
    perform: Callable[[Site, str, Step], None]
    permits: Callable[[Step], bool] | None = None

    @property
    def is_of_paths(self) -> bool:
        """Whether it changes files, not what only has a name."""
        return "path" in self.keys and "group" not in self.keys


@dataclass(frozen=True)
class Site:
    """Where the changes of guests are noted, and where what they change may lie.

    `journal`, `lock`, `work` and `record` are paths below `state`, {} in them is the guest. The
    files of a guest are in the folders `files` and have its name in theirs, or below a folder of
    its name in `trees`; its volumes carry `tag` and its name. `kinds` are steps that the caller
    knows, `read_older` makes a journal of an earlier version one of today's.
    """

    state: Path
    files: tuple[Path, ...]
    trees: tuple[Path, ...]
    tag: str
    journal: str = "journal/{}.json"
    lock: str = "locks/{}"
    work: str = "work/{}"
    record: str = "installed/{}.json"
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    read_older: Callable[[dict[str, Any]], dict[str, Any]] = lambda table: table

    def journal_of(self, guest: str) -> Path:
        """What is being done to a guest at this moment."""
        return self.state / self.journal.format(guest)

    def work_of(self, guest: str) -> Path:
        """A folder for whoever holds the guest's lock; a killed command's is removed."""
        return self.state / self.work.format(guest)

    def is_tagged(self, guest: str, volume: lvm.Volume) -> bool:
        """Whether a volume is this guest's."""
        return f"{self.tag}{guest}" in volume.tags


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


def exchange_folder(source: Path, target: Path, buildinfo: str) -> Step:
    """Put a prepared folder in its place; what was there before is at `source` then.

    `buildinfo` is the digest of the new one's buildinfo.json, which tells it from the old one.
    """
    return {"kind": "exchange", "source": str(source), "path": str(target), "digest": buildinfo}


def set_size(file: Path, size_bytes: int) -> Step:
    """Give a disk that is a file this size, never less than its ext file system's."""
    return {"kind": "set-size", "path": str(file), "size": str(size_bytes)}


def set_whole_size(disk: Path, *, size_bytes: int, root_bytes: int) -> Step:
    """Give a disk with a partition table this size, if it is a file, and its root file system's
    partition that one; neither less than an ext file system in it needs."""
    sizes = {"size": str(size_bytes), "root": str(root_bytes)}
    return {"kind": "set-whole-size", "path": str(disk), **sizes}


def rename_volume(group: str, source: str, final: str) -> Step:
    """Give a volume, by its name or uuid, its final name; the guest's own that has it is put aside
    as `put_aside` says."""
    return {"kind": "lv-rename", "group": group, "source": source, "path": final}


def remove_volume(device: Path) -> Step:
    """Remove a volume with the guest's tag; while somebody uses it, the change is not finished."""
    return {"kind": "lv-remove", "group": device.parent.name, "path": device.name}


def find_staged(steps: Iterable[Step]) -> dict[str, Path]:
    """Where things are that these steps put in their places, by place."""
    staged = {}
    for step in steps:
        if step["kind"] == "rename":
            staged[step["path"]] = Path(step["source"])
        elif step["kind"] == "lv-rename":
            staged[f"/dev/{step['group']}/{step['path']}"] = Path(
                "/dev", step["group"], step["source"]
            )
    return staged


def put_aside(final: str, uuid: str) -> str:
    """The name that a volume gets whose place the one with this uuid takes."""
    return f"{final}{OLD}{uuid[:6]}"


def _rename(_site: Site, _guest: str, step: Step) -> None:
    source, target = Path(step["source"]), Path(step["path"])
    if os.path.lexists(source):
        os.replace(source, target)
        sync_folder(target.parent)


def _remove(_site: Site, _guest: str, step: Step) -> None:
    with suppress(IsADirectoryError):  # whoever put a folder in a file's place keeps it
        Path(step["path"]).unlink(missing_ok=True)


def _remove_tree(site: Site, guest: str, step: Step) -> None:
    path = Path(step["path"])
    while path.is_dir():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    _remove_empty(site, guest, step)


def _remove_empty(_site: Site, _guest: str, step: Step) -> None:
    path = Path(step["path"])
    for folder in (path, path.parent):
        with suppress(OSError):
            folder.rmdir()


def _exchange(_site: Site, _guest: str, step: Step) -> None:
    source, target = Path(step["source"]), Path(step["path"])
    if not source.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    is_new = (source / BUILDINFO).is_file() and digest_file(source / BUILDINFO) == step["digest"]
    if not os.path.lexists(target):
        source.rename(target)
    elif is_new:
        exchange(source, target)
    sync_folder(target.parent)


def _set_size(_site: Site, _guest: str, step: Step) -> None:
    path = Path(step["path"])
    if path.is_file():
        state = path.stat()
        set_file_size(path, max(int(step["size"]), size_in_superblock(path)))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # its guest has not written


def _set_whole_size(site: Site, guest: str, step: Step) -> None:
    path = Path(step["path"])
    if not path.exists():
        return
    state = path.stat()
    place = find_root(path, is_whole=True)
    root = max(int(step["root"]), size_in_superblock(path, offset=place.offset))
    size = max(int(step["size"]), place.offset + root + TAIL)
    if path.is_file():
        set_file_size(path, max(size, state.st_size))
        fit_table(path, disk_bytes=size, root_bytes=root)
        set_file_size(path, size)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        return
    if site.is_tagged(guest, volume := lvm.require_volume(process.run, path)):
        fit_table(path, disk_bytes=volume.size, root_bytes=root)


def set_file_size(path: Path, size_bytes: int) -> None:
    """Cut a file or make it longer by a hole, durably."""
    with open(path, "rb+") as stream:
        os.ftruncate(stream.fileno(), size_bytes)
        os.fsync(stream.fileno())


def _rename_volume(site: Site, guest: str, step: Step) -> None:
    group, source, final = step["group"], step["source"], step["path"]
    volumes = lvm.list_volumes(process.run, group)
    new = next((found for found in volumes if source in (found.name, found.uuid)), None)
    if new is None and NEW not in source:
        raise PipelineError(f"{group}: the volume that was to become {final} is gone")
    if new is None or new.name == final:
        return
    old = next((found for found in volumes if found.name == final), None)
    if old is not None:
        if not site.is_tagged(guest, old):
            raise InUseError(f"{old.path} was not made for {guest}", hint="rename it: lvrename")
        refuse_if_used(old.path)
        lvm.rename_volume(process.run, group, final, put_aside(final, new.uuid))
    lvm.rename_volume(process.run, group, new.name, final)


def _remove_volume(site: Site, guest: str, step: Step) -> None:
    found = lvm.find_volume(process.run, step["group"], step["path"])
    if found is not None and site.is_tagged(guest, found):
        refuse_if_used(found.path)
        lvm.remove_volume(process.run, found)


_KINDS = {
    "rename": Kind(("source", "path"), _rename),
    "remove": Kind(("path",), _remove),
    "remove-tree": Kind(("path",), _remove_tree),
    "remove-empty": Kind(("path",), _remove_empty),
    "exchange": Kind(("source", "path", "digest"), _exchange),
    "set-size": Kind(("path", "size"), _set_size),
    "set-whole-size": Kind(("path", "size", "root"), _set_whole_size),
    "lv-rename": Kind(("group", "source", "path"), _rename_volume),
    "lv-remove": Kind(("group", "path"), _remove_volume),
}


def read_steps(site: Site, guest: str, found: list[object]) -> list[Step]:
    """Steps out of a journal's file; ValueError for what we never write.

    What is removed or renamed lies where a guest's things are, whatever the file says.
    """
    if len(found) > _MOST:
        raise ValueError(f"{len(found)} steps")
    kinds = {**_KINDS, **site.kinds}
    steps = []
    for number, step in enumerate(found, 1):
        if type(step) is not dict or not all(type(value) is str for value in step.values()):
            raise ValueError(f"step {number} is no table of texts")
        kind = kinds.get(step.get("kind", ""))
        if kind is None or set(step) != {"kind", *kind.keys}:
            raise ValueError(f"step {number}: {step.get('kind')!r}")
        if kind.permits is not None:
            if not kind.permits(step):
                raise ValueError(f"step {number}: {show_value(step)}")
        elif kind.is_of_paths:
            _require_place(site, guest, step)
        else:
            _require_words(guest, step, kind)
        steps.append(step)
    return steps


def _require_words(guest: str, step: Step, kind: Kind) -> None:
    words = [word for key in kind.keys for word in step[key].split()]
    if step.get("guest", guest) != guest:
        raise ValueError(f"it is about {step['guest']!r}")
    if not all(_WORD.fullmatch(word) and word not in (".", "..") for word in words):
        raise ValueError(f"{step['kind']}: {words}")


def _require_place(site: Site, guest: str, step: Step) -> None:
    kind = step["kind"]
    for path in (Path(step[key]) for key in ("source", "path") if key in step):
        is_file = path.parent in site.files and guest in path.name
        is_file = is_file and kind in ("remove", "rename", "exchange")
        is_disk = any(tree / guest in path.parents for tree in site.trees)
        is_disk = is_disk or (kind in _SIZES and Path("/dev") in path.parents)
        if not is_file and (not is_disk or ".." in path.parts):
            raise ValueError(f"{kind} of {str(path)!r}")
    for key in ("size", "root"):
        if not step.get(key, "0").isdigit():
            raise ValueError(f"{key} {step[key]!r}")


def perform(site: Site, guest: str, steps: Iterable[Step]) -> None:
    """Carry steps out, in order."""
    kinds = {**_KINDS, **site.kinds}
    for step in steps:
        kinds[step["kind"]].perform(site, guest, step)
