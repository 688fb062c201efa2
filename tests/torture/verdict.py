"""What has to be true after a run, however it ended."""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from pipeline.artifact.sums import DISK_SUMS, SUMS, digest_as, read_sums
from pipeline.store.store import read_buildinfo
from tests.torture.program import Ground

_NOT_BYTES = ("buildinfo.json", "stages.json", SUMS)  # when it was built stands in them
_ASIDE = re.compile(r"^\..+\.(\d+|new|gone)(\.|$)")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bytes_of(ground: Ground) -> dict[str, str]:
    """Every byte that a build makes, without its clock."""
    found = {}
    for part in ("store", "volumes", "guests", "identity"):
        for path in sorted((ground.output / part).rglob("*")):
            name = path.relative_to(ground.output)
            hidden = any(one.startswith(".") for one in name.parts)
            if path.is_file() and not hidden and path.name not in (*_NOT_BYTES, "written.json"):
                found[str(name)] = digest(path)
    return found


def find_half(ground: Ground) -> list[str]:
    """Artifacts that are there and not whole: whatever is in its place has to be complete."""
    wrong = []
    places = [*ground.output.glob("store/[a-z]*/*"), *ground.output.glob("volumes/*")]
    for folder in [*places, *ground.output.glob("guests/*")]:
        if read_buildinfo(folder) is None:
            wrong.append(f"{folder}: no artifact, and in the place of one")
    for folder in [*ground.output.glob("guests/*"), *ground.output.glob("published/*/2*")]:
        wrong += find_wrong_sums(folder)
    return wrong


def find_wrong_sums(folder: Path) -> list[str]:
    """What a guest's folder lacks by its own lists, and the disk that none may lack."""
    if not (folder / SUMS).is_file() or not (folder / DISK_SUMS).is_file():
        return [f"{folder}: without its sums"]
    sums = {name: read_sums((folder / name).read_text()) for name in (SUMS, DISK_SUMS)}
    wrong = [] if "disk.img" in sums[DISK_SUMS] else [f"{folder}: without its disk"]
    for name, recorded in {**sums[SUMS], **sums[DISK_SUMS]}.items():
        path = folder / name
        if not path.is_file() or digest_as(recorded, path) != recorded:
            wrong.append(f"{path}: missing or other bytes")
    return wrong


def find_leftovers(ground: Ground) -> list[str]:
    """Scratch, files that were to be renamed, parts: nothing of them may stay."""
    scratch = ground.output / "scratch"
    left = [str(path) for path in scratch.iterdir()] if scratch.is_dir() else []
    for root in (ground.output, ground.host, ground.root / "guests"):
        for path in root.rglob(".*"):
            if _ASIDE.match(path.name) and scratch not in path.parents:
                left.append(str(path))
    state = ground.host / "var/lib/domu"
    left += [str(path) for path in state.glob("journal/*")] + [str(p) for p in state.glob("work/*")]
    return left


def find_unfit(ground: Ground, name: str) -> list[str]:
    """An installed guest's configuration that names what is not there."""
    config = ground.host / f"etc/xen/{name}.cfg"
    if not config.exists():
        return []
    named = re.findall(rf"{re.escape(str(ground.host))}[^'\",]+", config.read_text())
    return [
        f"{config} names {path}, which is not there" for path in named if not Path(path).exists()
    ]


def find_processes(pid: int) -> list[str]:
    """Who of a run's session still lives."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                head, _, tail = Path(entry.path, "stat").read_text().rpartition(")")
            except OSError:
                continue
            state, _parent, _group, session = tail.split()[:4]
            if session == str(pid) and state != "Z":
                found.append(f"{entry.name} {head.partition('(')[2]}")
    return found


def find_attached(root: Path) -> tuple[list[str], list[str]]:
    """Mounts below a folder, and loop devices on files in it."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [line.split()[4] for line in lines if line.split()[4].startswith(f"{root}/")]
    loops = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it may be detached at this very moment
            text = path.read_text().strip()
            loops += [f"{path.parts[3]} {text}"] if text.startswith(f"{root}/") else []
    return mounts, loops
