"""Two disks compared file by file: every byte of what has the same size, nothing by its time."""

from collections import Counter
from collections.abc import Iterable, Iterator

from pipeline.report.disk_contents import KERNEL, RECORDS, Inventory
from pipeline.report.night_model import FileChange, FileChanges, FileGroup, FileKind
from pipeline.storage.ext import DamagedImage, ExtImage, Inode

MOST_LISTED = 1000
_FILE_BYTES, _ALL_BYTES = 512 << 20, 16 << 30


def compare_disks(before: ExtImage, old: Inventory, after: ExtImage, new: Inventory) -> FileChanges:
    """What was added, removed and changed: files by content, links by target, owners and modes.

    A kernel's modules, which all go and come, and dpkg's records stand last in the list.
    """
    changes = list(_compare(before, old, after, new))
    counts = Counter(change.kind for change in changes)
    listed = sorted(changes, key=lambda change: change.owner in (KERNEL, RECORDS))
    return FileChanges(
        added=counts["added"],
        removed=counts["removed"],
        changed=counts["changed"],
        groups=tuple(group_by_owner(changes)),
        listed=tuple(listed[:MOST_LISTED]),
    )


def _compare(
    before: ExtImage, old: Inventory, after: ExtImage, new: Inventory
) -> Iterator[FileChange]:
    room = _ALL_BYTES
    for path in sorted({*old.files, *new.files}):
        was, now = old.files.get(path), new.files.get(path)
        room -= was.size if was and now and was.size == now.size <= _FILE_BYTES else 0
        if room < 0:
            raise DamagedImage("more bytes in its files than a guest has")
        if _is_folder(was) and _is_folder(now):
            continue
        kind: FileKind
        if was is None or now is None:
            if _is_folder(was) or _is_folder(now):
                continue  # its files are what is named
            kind = "added" if was is None else "removed"
        elif _is_known_same(before, was, after, now):
            continue
        else:
            kind = "changed"
        owner = (old if now is None else new).owner_of(path)
        yield FileChange(path, kind, owner, was.size if was else 0, now.size if now else 0)


def _is_folder(inode: Inode | None) -> bool:
    return inode is not None and inode.kind == "folder"


def _is_known_same(before: ExtImage, was: Inode, after: ExtImage, now: Inode) -> bool:
    """Whether it is the same; what cannot be read counts as changed."""
    try:
        return _is_same(before, was, after, now)
    except DamagedImage:
        return False


def _is_same(before: ExtImage, was: Inode, after: ExtImage, now: Inode) -> bool:
    facts = [(inode.mode, inode.owner, inode.group, inode.size) for inode in (was, now)]
    if facts[0] != facts[1]:
        return False
    if was.kind == "link":
        return before.read_link(was) == after.read_link(now)
    if was.kind == "file" and was.size <= _FILE_BYTES:
        return before.read(was, limit=_FILE_BYTES) == after.read(now, limit=_FILE_BYTES)
    if was.kind == "file":
        return True  # of that size no package brings one
    return was.block == now.block  # a device: its numbers stand there


def group_by_owner(changes: Iterable[FileChange]) -> list[FileGroup]:
    """One line for each package, the one that grew or shrank most first."""
    counts: dict[str, Counter[str]] = {}
    for change in changes:
        count = counts.setdefault(change.owner, Counter())
        count[change.kind] += 1
        count["growth"] += change.bytes_after - change.bytes_before
    groups = [
        FileGroup(owner, count["added"], count["removed"], count["changed"], count["growth"])
        for owner, count in counts.items()
    ]
    return sorted(groups, key=lambda group: (-abs(group.growth_bytes), group.owner))
