"""Canonical JSON, digests, durable writes: how inputs become fingerprints, files stay whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFault, PipelineError, UsageError
from pipeline.interruption import gate, passing
from pipeline.locks import make_locked

LIMIT = (4 << 20) - 2  # one byte more is read; of a sysctl 4 MiB are ENOMEM (proc_sysctl.c)
MOVE_IT_AWAY = "move it away; what it named stays where it is"


class Damaged(PipelineError):
    """A file of ours that holds what we never wrote; nothing was changed because of it."""


def read_bytes(path: Path, *, limit: int = LIMIT, follow: bool = False) -> bytes:
    """A plain file of at most `limit` bytes; FileNotFoundError where there is none.

    Raises Damaged for anything else of that name, EnvironmentFault where it may not be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        if path.is_symlink():
            raise Damaged(f"{path} is a link that leads nowhere", hint="move it away") from None
        raise
    except PermissionError as error:
        raise EnvironmentFault(f"{path} is not readable for this user", hint="as root") from error
    except OSError as error:  # a link, a socket, a device without a driver
        raise Damaged(f"{path} is no plain file ({error.strerror})", hint="move it away") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged(f"{path} is no plain file", hint="move it away")
    with open(descriptor, "rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise Damaged(f"{path} is larger than {limit >> 10} KiB", hint="move it away")
    return content


@contextmanager
def open_disk(path: str | Path) -> Iterator[FileIO]:
    """A file or block device that somebody else's configuration names, to read; raises OSError.

    Nothing else is opened: that waits for a FIFO's other end, and starts a watchdog(4).
    """
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise OSError(errno.ENODEV, "neither a file nor a block device")
        stream = FileIO(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    with stream:
        yield stream


def read_table(path: Path, what: str, *, limit: int = LIMIT) -> dict[str, Any]:
    """A JSON object; FileNotFoundError where there is no file, Damaged when it is not `what`."""
    try:
        table = json.loads(read_bytes(path, limit=limit))
    except (ValueError, RecursionError) as error:
        raise damaged(path, what, error) from error
    if not isinstance(table, dict):
        raise damaged(path, what, "no table")
    return table


def damaged(path: Path, what: str, why: object) -> Damaged:
    """The error for a file that is not what it should be."""
    text = str(why).partition("\n")[0][:200]
    return Damaged(f"{path} is not {what} ({text})", hint=MOVE_IT_AWAY)


def take(table: dict[str, Any], key: str, kind: type, *, default: object = None) -> Any:
    """A value of one type out of a table; ValueError where it is of another."""
    value = table.pop(key, default)
    if type(value) is not kind:  # bool is an int to isinstance
        raise ValueError(f"{key} is no {kind.__name__}")
    return value


TEXT_BYTES = 1 << 20
# of a path of a build; other letters that apt and shells take apart never meet these
UNUSABLE = frozenset("'\"")
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def read_named_text(path: Path, *, most: int = TEXT_BYTES) -> str:
    """A UTF-8 text of at most `most` bytes; raises UsageError for everything else.

    Windows' editors put a byte order mark before it.
    """
    try:
        require_file(path, os.stat(path))
        # what has become a FIFO meanwhile does not hold us up
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as stream:
            require_file(path, os.fstat(descriptor))
            content = stream.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    if len(content) > most:
        raise UsageError(
            f"{path}: longer than {most >> 10} KiB", hint="name a text that a person wrote"
        )
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a UTF-8 text") from error


def find_unusable(path: str) -> str:
    """What a path of a build may not hold, in words, or nothing."""
    for letter in path:
        if letter in UNUSABLE or not letter.isprintable():
            return ascii(letter) if letter not in UNUSABLE else "a quote"
    return ""


def require_file(path: Path, status: os.stat_result) -> None:
    """Raises UsageError for what is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise UsageError(f"{path}: this is {kind}, not a file")


CHUNK = 1 << 20
TREE_BYTES, TREE_FILES, TREE_DEPTH = 4 << 30, 100_000, 32
_ZEROS = bytes(CHUNK)


def canonical_json(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8 (after RFC 8785's idea)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def fingerprint(value: object) -> str:
    """sha256 (hex) over the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path, *, follow: bool = False) -> str:
    """sha256 (hex) of a file's bytes, holes as zeros without reading them (lseek(2), SEEK_DATA).

    `follow` is for what a person names, a link as well as a file: /vmlinuz, a keyring.
    """
    digest = hashlib.sha256()
    with open(open_plain(path.resolve() if follow else path), "rb", buffering=0) as stream:
        handle = stream.fileno()
        size = os.fstat(handle).st_size
        position = 0
        for data, hole in data_extents(handle, size):
            _update_zeros(digest, data - position)
            os.lseek(handle, data, os.SEEK_SET)
            for start in range(data, hole, CHUNK):
                digest.update(stream.read(min(CHUNK, hole - start)))
            position = hole
        _update_zeros(digest, size - position)
    return digest.hexdigest()


def open_plain(path: Path) -> int:
    """A regular file for reading; OSError for a link, FIFO, device or folder, without a wait."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def data_extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) in bytes of what is no hole in an open file (lseek(2), SEEK_DATA)."""
    position = 0
    while position < size:
        start = _seek(descriptor, position, os.SEEK_DATA, size)
        position = _seek(descriptor, start, os.SEEK_HOLE, size)
        if start < size:
            yield start, position


def _seek(handle: int, position: int, whence: int, size: int) -> int:
    try:
        return os.lseek(handle, position, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole from here on
            return size
        if error.errno == errno.EINVAL:  # a block device, which has no holes
            return position if whence == os.SEEK_DATA else size
        raise


def _update_zeros(digest: hashlib._Hash, count: int) -> None:
    whole, rest = divmod(count, CHUNK)
    for _ in range(whole):
        digest.update(_ZEROS)
    digest.update(_ZEROS[:rest])


def digest_tree(root: Path) -> dict[str, str]:
    """Each file below `root`: relative path -> mode and sha256; links by their target.

    Raises UsageError, before it is opened, for what is no file, link or folder, for a link in a
    circle, and for more than a person keeps in such a folder: TREE_FILES, TREE_DEPTH, TREE_BYTES.
    """
    found: dict[str, str] = {}
    bytes_left = TREE_BYTES
    for path, status in _walk(root):
        name = path.relative_to(root).as_posix()
        if not name.isprintable():
            raise UsageError(f"{root}: {ascii(name)}: a name that cannot be printed")
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(os.fsencode(path)).decode("utf-8", "backslashreplace")
            found[name] = f"link {target}"
            continue
        require_file(path, status)
        bytes_left -= status.st_size
        if bytes_left < 0 or len(found) == TREE_FILES:
            raise UsageError(
                f"{root}: more than {TREE_BYTES >> 30} GiB or {TREE_FILES} files",
                hint=f"is it the right folder? Last seen: {name}",
            )
        executable = "x" if status.st_mode & 0o111 else "-"
        found[name] = f"{executable} {digest_file(path)}"
    return found


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below a folder but its folders and links to such, by depth and name."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if len(folder.parts) - len(root.parts) > TREE_DEPTH:
            shown = Path(*folder.parts[: len(root.parts) + 2])
            raise UsageError(f"{shown}: folders in folders, more than {TREE_DEPTH} deep")
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
            kinds = [(entry, _is_folder(entry)) for entry in entries]
            yield from (
                (Path(entry.path), entry.stat(follow_symlinks=False))
                for entry, is_folder in kinds
                if not is_folder
            )
        except OSError as error:
            raise UsageError(f"{error.filename or folder}: {error.strerror}") from error
        waiting += [
            Path(entry.path)
            for entry, is_folder in reversed(kinds)
            if is_folder and not entry.is_symlink() and entry.name != "__pycache__"
        ]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that leads nowhere is none."""
    try:
        return stat.S_ISDIR(entry.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level: {"a": {"b": 1}} -> {"a: b": 1}, for comparing inputs."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat.update(flatten(inner, f"{prefix}{key}: "))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def write_durably(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file through a temporary neighbour, fsync and rename: whole or absent.

    The neighbour is locked until it has its name: `doit gc` takes others for a dead run's.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    with passing(aside), open(make_locked(aside, mode), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
        with gate("replace", path):
            os.replace(aside, path)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable (fsync(2) on a directory)."""
    _sync(path, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make a file's bytes durable; no link is followed."""
    _sync(path, os.O_NOFOLLOW)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
