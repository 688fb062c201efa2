"""What an adoption changed: the tar as it came against the tar that guests are made of."""

import hashlib
import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any


def read_tar(path: Path) -> dict[str, tuple[object, ...]]:
    """Every path with its kind, rights, time, target, content and attributes."""
    found: dict[str, tuple[object, ...]] = {}
    archive: Any
    with tarfile.open(path) as archive:
        for member in archive:
            source = archive.extractfile(member) if member.isfile() or member.islnk() else None
            content = hashlib.file_digest(source, "sha256").hexdigest() if source else ""
            kept = {key: text for key, text in member.pax_headers.items() if key[:6] == "SCHILY"}
            kind = "file" if member.isfile() or member.islnk() else member.type
            target = member.linkname if member.issym() else ""
            name = "/" + member.name.removeprefix(".").strip("/")
            facts = (member.mode, member.uid, member.gid, int(member.mtime), target, content)
            found[name] = (kind, *facts, tuple(sorted(kept.items())))
    return found


def changed_paths(before: Path, after: Path, announced: set[str]) -> set[str]:
    """Paths that differ in anything, or stand on one side alone.

    Folders that were made for a new file that is announced, and the time of the one that those
    were made in, count with that file.
    """
    old, new = read_tar(before), read_tar(after)
    changed = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
    above = {str(folder) for path in announced for folder in PurePosixPath(path).parents}
    for path in changed & above - announced:
        was, became = old.get(path), new[path]
        if was is None or (was[:4], was[5:]) == (became[:4], became[5:]):
            changed.discard(path)
    return changed


def announced_paths(folder: Path) -> set[str]:
    """What its record says was changed."""
    return {
        change["path"] for change in json.loads((folder / "record.json").read_text())["changes"]
    }
