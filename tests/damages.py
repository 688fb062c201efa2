"""Ways in which a file stops being what it was."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]


def flip(path: Path) -> None:
    """One bit in the middle, in place."""
    with open(path, "r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1) or b"x"
        stream.seek(path.stat().st_size // 2)
        stream.write(bytes([byte[0] ^ 1]))


def instead(make: Damage) -> Damage:
    """Something else in its place."""

    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def be_link(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.real"))
    path.symlink_to(f"{path.name}.real")


def remove(path: Path) -> None:
    """A file, a link or a folder with all in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


DAMAGES: dict[str, Damage] = {
    "flip": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "link": be_link,
    "FIFO": instead(os.mkfifo),
    "folder": instead(Path.mkdir),
    "loop": instead(lambda path: path.symlink_to(path.name)),
    "huge": lambda path: os.truncate(path, 1 << 40),
    "garbage": lambda path: path.write_bytes(b"\xff\xfe\x00garbage"),
    "gone": Path.unlink,
}
