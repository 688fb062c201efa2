"""Writing a finished image onto a block device so that nothing of a former owner stays.

What is data in the image is copied, everything else is zeroed by the kernel (BLKZEROOUT, which is a
write: see blkdiscard(8), --zeroout), to the last byte of the device. The first megabyte comes last:
a device that was half written when its build was killed holds no file system at all.
"""

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.console.progress import Bar, progress_bar
from pipeline.errors import EnvironmentFault, InUseError, VerificationError
from pipeline.files import data_extents
from pipeline.storage.gpt import SECTOR
from pipeline.storage.written import CHUNK, HEAD, Written

BLOCK = 64 << 10  # the smallest chunk of a thin pool
_ZEROS = bytes(BLOCK)
_BLKZEROOUT, _BLKROGET, _BLKSSZGET = 0x127F, 0x125E, 0x1268  # linux/fs.h
_PAGE = 4096  # the largest logical block that disks have
_ZERO_STEP = 256 << 20


def write_image(image: Path, device: Path, *, is_zeroed: bool = False) -> Written:
    """Make a device the image, zeros behind it, and compare; the device may be larger.

    Where `is_zeroed` (a new thin volume) the holes are not written, which would fill the pool, but
    read back and must be zero.

    Raises EnvironmentFault for a device that is too small, read only or that fails, or whose
    sectors are none that the image's partition table counts in, InUseError for one that the kernel
    holds for somebody, VerificationError when other bytes come back.
    """
    size = image.stat().st_size
    with _opened(device) as target, open(image, "rb", buffering=0) as source:
        _require_sectors(source.fileno(), target, device)
        room = os.lseek(target, 0, os.SEEK_END)
        if room < size:
            raise EnvironmentFault(
                f"{device} has {room >> 20} MiB, the guest needs {size >> 20} MiB",
                hint="name a larger device, or write a smaller size",
            )
        extents = tuple(data_extents(source.fileno(), size))
        try:
            _write_all(source.fileno(), target, extents, 0 if is_zeroed else room)
            os.fsync(target)
            digest = _compare(source.fileno(), target, extents, device)
            if is_zeroed:
                _require_zeros(target, extents, room, device)
        except OSError as error:
            raise _broken(device, error) from error
    return Written(room, digest, extents)


def copy_device(source: Path, device: Path, *, is_zeroed: bool = True) -> None:
    """Make a new volume the same as another: what is not zero is written, then all compared.

    Where `is_zeroed` (a new thin volume) nothing else is written, else it is zeroed. Raises what
    write_image does.
    """
    with _opened(device) as target, open(source, "rb", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        extents = tuple(_nonzero_extents(stream.fileno(), size))
        try:
            _write_all(stream.fileno(), target, extents, 0 if is_zeroed else size)
            os.fsync(target)
            _compare(stream.fileno(), target, extents, device)
            _require_zeros(target, extents, size, device)
        except OSError as error:
            raise _broken(device, error) from error


def _nonzero_extents(handle: int, size: int) -> Iterator[tuple[int, int]]:
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        if os.pread(handle, length, at) != _ZEROS[:length]:
            yield at, at + length


def _broken(device: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"{device}: {error.strerror} after a part was written",
        hint="see dmesg; a full thin pool is grown by lvextend",
    )


@contextmanager
def _opened(device: Path) -> Iterator[int]:
    """The device, held exclusively: mounts, device-mapper and md cannot take it meanwhile."""
    try:
        handle = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except PermissionError as error:
        raise EnvironmentFault(
            f"{device} cannot be written by this user or is read only",
            hint="start as root; see blockdev --getro",
        ) from error
    except OSError as error:
        if error.errno == 16:  # EBUSY
            raise InUseError(f"{device} is held by the kernel", hint="see lsblk") from error
        raise EnvironmentFault(f"{device}: {error.strerror}") from error
    try:
        state = fcntl.ioctl(handle, _BLKROGET, struct.pack("i", 0))
        if struct.unpack("i", state)[0]:
            raise EnvironmentFault(
                f"{device} is read only", hint="blockdev --setrw, or lvchange -p rw"
            )
        yield handle
    finally:
        os.close(handle)


def _require_sectors(source: int, target: int, device: Path) -> None:
    state = fcntl.ioctl(target, _BLKSSZGET, struct.pack("i", 0))
    size = struct.unpack("i", state)[0]
    if size != SECTOR and os.pread(source, 8, SECTOR) == b"EFI PART":
        raise EnvironmentFault(
            f"{device} has sectors of {size} bytes; a whole disk's table counts in {SECTOR}",
            hint="keep this guest in files, or on a disk that has them (lsblk -o NAME,LOG-SEC)",
        )


def _write_all(source: int, target: int, extents: tuple[tuple[int, int], ...], room: int) -> None:
    """Holes up to `room`, data from behind the head on, then the head."""
    _zero(target, 0, min(HEAD, room))
    data = sum(end - start for start, end in extents)
    with progress_bar("onto the volume", total=data, unit="B") as bar:
        position = 0
        for start, end in extents:
            _zero(target, position, min(start, room))
            _copy(source, target, max(start, HEAD), end, bar)
            position = end
        _zero(target, position, room)
        os.fsync(target)
        for start, end in extents:
            _copy(source, target, start, min(end, HEAD), bar)


def _copy(source: int, target: int, start: int, end: int, bar: Bar) -> None:
    for at in range(start, end, CHUNK):
        part = os.pread(source, min(CHUNK, end - at), at)
        done = 0
        while done < len(part):
            done += os.pwrite(target, part[done:], at + done)
        bar.advance(len(part))


def _zero(target: int, start: int, end: int) -> None:
    """Zero a range; what is not whole sectors is written."""
    first, last = -(-start // _PAGE) * _PAGE, end // _PAGE * _PAGE
    if first >= last:
        if end > start:
            os.pwrite(target, bytes(end - start), start)
        return
    os.pwrite(target, bytes(first - start), start)
    for at in range(first, last, _ZERO_STEP):
        fcntl.ioctl(target, _BLKZEROOUT, struct.pack("QQ", at, min(_ZERO_STEP, last - at)))
    os.pwrite(target, bytes(end - last), last)


def _compare(source: int, target: int, extents: tuple[tuple[int, int], ...], device: Path) -> str:
    """Read the data back from the device itself; returns its sha256."""
    os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
    digest = hashlib.sha256()
    for start, end in extents:
        for at in range(start, end, CHUNK):
            size = min(CHUNK, end - at)
            wanted = os.pread(source, size, at)
            if os.pread(target, size, at) != wanted:
                raise VerificationError(
                    f"{device} gives back other bytes than were written, at {at >> 20} MiB",
                    hint="the disk, its cable or its memory fails: see dmesg and smartctl",
                )
            digest.update(wanted)
    return digest.hexdigest()


def _require_zeros(
    target: int, extents: tuple[tuple[int, int], ...], room: int, device: Path
) -> None:
    position = 0
    for start, end in (*extents, (room, room)):
        for at in range(position, start, CHUNK):
            size = min(CHUNK, start - at)
            if os.pread(target, size, at) != bytes(size):
                raise VerificationError(
                    f"{device} holds what was not written, at {at >> 20} MiB",
                    hint="the thin pool does not zero its blocks: lvchange --zero y",
                )
        position = end
