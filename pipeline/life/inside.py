"""A program: changes /lib/modules of a guest whose file system is mounted, from inside a chroot.

    python -m pipeline.life.inside ROOT put ABI ARCHIVE | back ABI | drop ABI...

chroot(2) because the guest's links are the guest's: /lib may lead to usr/lib, or to anywhere. New
modules are unpacked aside and take their place by one rename; those that were there before under
the same name are kept as .ABI.previous, which is what `back` returns to.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from pipeline.store import exchange

MODULES = Path("/lib/modules")
SPARE_BYTES = 8 << 20
_OVERHEAD_BYTES = 4096


def main(words: list[str]) -> int:
    """Status 0, or 1 with a line that says why."""
    root, what, *rest = words
    with open(rest[1] if what == "put" else os.devnull, "rb") as archive:
        os.chroot(root)
        os.chdir("/")
        try:
            if what == "put":
                put(rest[0], archive)
            elif what == "back":
                go_back(rest[0])
            else:
                for abi in rest:
                    drop(abi)
        except OSError as error:
            print(f"{what}: {error}")
            return 1
    os.sync()
    return 0


def put(abi: str, archive: IO[bytes]) -> None:
    """Unpack the modules of an ABI and make them the ones that are used."""
    new, current, previous = _paths(abi)
    MODULES.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(new, ignore_errors=True)
    with tarfile.open(fileobj=archive) as tar:
        members = tar.getmembers()
        _refuse_full(members)
        for member in members:
            _extract(tar, member, abi, new)
    if current.is_dir():
        shutil.rmtree(previous, ignore_errors=True)
        exchange(new, current)
        os.rename(new, previous)
    else:
        os.rename(new, current)


def go_back(abi: str) -> None:
    """Use the modules again that were there before; those of now are removed."""
    new, current, previous = _paths(abi)
    shutil.rmtree(new, ignore_errors=True)
    if previous.is_dir():
        exchange(previous, current)
        shutil.rmtree(previous)


def drop(abi: str) -> None:
    """Remove the modules of an ABI; "-previous" after it means only those kept for `back`."""
    name = abi.removesuffix("-previous")
    new, current, previous = _paths(name)
    for path in (new, previous) if name != abi else (new, current, previous):
        shutil.rmtree(path, ignore_errors=True)


def _paths(abi: str) -> tuple[Path, Path, Path]:
    if "/" in abi or not abi or abi.startswith("."):
        raise OSError(f"{abi!r} is no ABI")
    return MODULES / f".{abi}.new", MODULES / abi, MODULES / f".{abi}.previous"


def _refuse_full(members: list[tarfile.TarInfo]) -> None:
    need = sum(member.size + _OVERHEAD_BYTES for member in members) + SPARE_BYTES
    state = os.statvfs(MODULES)
    free = state.f_bavail * state.f_frsize
    if free < need:
        raise OSError(f"no space: {need >> 20} MiB needed, {free >> 20} MiB free in the guest")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, abi: str, new: Path) -> None:
    inside = Path(member.name.removeprefix("./")).relative_to(f"lib/modules/{abi}")
    if ".." in inside.parts:
        raise OSError(f"{member.name} leads out of the archive")
    target = new / inside
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
    elif member.issym():
        with suppress(FileExistsError):
            target.symlink_to(member.linkname)
        return
    elif member.isfile():
        target.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(member)
        assert source is not None
        with open(target, "wb") as stream:
            shutil.copyfileobj(source, stream)
    else:
        return
    os.chmod(target, member.mode & 0o755 | 0o200)
    os.utime(target, (member.mtime, member.mtime))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
