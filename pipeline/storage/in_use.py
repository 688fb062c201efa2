"""Who holds a block device or a file in this kernel: mounts, swap, md, device-mapper, loops, files.

O_EXCL is not enough: it finds none of those that open a device like a file, xen-blkback among them
(its holder is NULL), so each register of the kernel is asked by itself. Sources: proc(5), sysfs(5),
Documentation/ABI/stable/sysfs-block, dmsetup(8).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.errors import InUseError
from pipeline.storage import lvm
from pipeline.xen import xl, xm

_SYS = Path("/sys/dev/block")


@dataclass(frozen=True)
class Subject:
    """What is asked about: a file (device and inode), or a block device (major and minor)."""

    path: Path
    inode: tuple[int, int] | None = None
    device: tuple[int, int] | None = None

    @classmethod
    def of(cls, path: Path) -> Subject | None:
        """The file or device behind a path; None where there is nothing."""
        try:
            found = path.stat()
        except OSError:
            return None
        if stat.S_ISBLK(found.st_mode):
            return cls(path, device=_numbers(found.st_rdev))
        return cls(path, inode=(found.st_dev, found.st_ino))

    def is_at(self, path: str | Path) -> bool:
        """Whether another path leads to the same file or device."""
        other = Subject.of(Path(path))
        return other is not None and (other.inode, other.device) == (self.inode, self.device)


def find_holders(subject: Subject) -> list[str]:
    """Each holder in words: `mounted on /srv`, `/dev/loop3`, `process 17 (qemu)`..."""
    found = [*_loops(subject)]
    if subject.device is not None:
        found += [*_mounts(subject.device), *_swaps(subject), *_stacked(subject.device)]
        found += _opened(subject.device)
    else:
        found += _swaps(subject)
    return [*found, *_processes(subject)]


def relatives(device: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The device, its partitions, and the disk that it is a partition of."""
    yield device
    folder = _SYS / f"{device[0]}:{device[1]}"
    for partition in folder.glob("*/partition"):
        yield _read_numbers(partition.parent / "dev")
    if (folder / "partition").exists():
        yield _read_numbers(folder.resolve().parent / "dev")


def _read_numbers(path: Path) -> tuple[int, int]:
    major, minor = path.read_text().strip().split(":")
    return int(major), int(minor)


def _numbers(number: int) -> tuple[int, int]:
    return os.major(number), os.minor(number)


def _mounts(device: tuple[int, int]) -> Iterator[str]:
    """By the kernel's number, and by name: btrfs has numbers of its own."""
    wanted = set(relatives(device))
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        fields = head.split()
        source = Subject.of(Path(tail.split()[1].replace("\\040", " ")))
        major, minor = fields[2].split(":")
        if (int(major), int(minor)) in wanted or (source and source.device in wanted):
            yield f"the file system mounted on {fields[4]}"


def _swaps(subject: Subject) -> Iterator[str]:
    wanted = set(relatives(subject.device)) if subject.device else set()
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        path = line.split()[0]
        found = Subject.of(Path(path))
        if subject.is_at(path) or (found and found.device in wanted):
            yield f"swap on {path}"


def _stacked(device: tuple[int, int]) -> Iterator[str]:
    """What lies on top: device-mapper, md, bcache; on a partition of it too."""
    for major, minor in relatives(device):
        for holder in (_SYS / f"{major}:{minor}/holders").glob("*"):
            name = holder.resolve() / "dm/name"
            shown = f" ({name.read_text().strip()})" if name.is_file() else ""
            yield f"/dev/{holder.name}{shown}, which lies on it"


def _opened(device: tuple[int, int]) -> Iterator[str]:
    """device-mapper counts every opener, of the kernel too."""
    if not (_SYS / f"{device[0]}:{device[1]}/dm").is_dir() or os.geteuid() != 0:
        return
    if process.find_tool("dmsetup") and (count := lvm.open_count(process.run, device)):
        yield f"{count} openers in device-mapper's count"


def _loops(subject: Subject) -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            path = backing.read_text().strip()
            if path == str(subject.path) or subject.is_at(path):
                yield f"/dev/{backing.parent.parent.name}"


def _processes(subject: Subject) -> Iterator[str]:
    own = str(os.getpid())
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and entry.name != own and _has_open(Path(entry.path), subject):
            yield f"process {entry.name} ({_name_of(Path(entry.path))})"


def _has_open(running: Path, subject: Subject) -> bool:
    try:
        for handle in os.scandir(running / "fd"):
            found = os.stat(handle.path)
            if subject.inode and (found.st_dev, found.st_ino) == subject.inode:
                return True
            is_block = subject.device and stat.S_ISBLK(found.st_mode)
            if is_block and _numbers(found.st_rdev) == subject.device:
                return True
    except OSError:
        return False
    return False


def _name_of(running: Path) -> str:
    try:
        return (running / "comm").read_text().strip()
    except OSError:
        return "ended"


def refuse_if_used(path: Path) -> None:
    """Raise InUseError naming each holder of a file or block device: mounted, swapped on, under md
    or device-mapper, behind a loop device, open in a process, attached to a domain.

    What a user may not see (other users' processes) stays unseen.
    """
    subject = Subject.of(path)
    if subject is None:
        return
    holders = [*find_running(subject), *find_holders(subject)]
    if holders:
        raise InUseError(
            f"{path} is in use by {', '.join(holders)}",
            hint="shut the guest down (xl shutdown NAME), unmount or detach it, then try again",
        )


def refuse_if_defined(path: Path) -> None:
    """Raise InUseError when a configuration of Xen's or libvirt's names this disk.

    Callers ask only where the user has not said replace=yes.
    """
    subject = Subject.of(path)
    if subject is not None and (found := find_defined(subject)):
        raise InUseError(
            f"{path} is a disk of the guest that {', '.join(found)} defines",
            hint="replace=yes writes it anew and loses what that guest wrote",
        )


SOCKETS = (
    Path("/run/xenstored/socket"),
    Path("/var/run/xenstored/socket"),
    Path("/dev/xen/xenbus"),
)
CONFIGURATIONS = (
    *(("/etc/xen", "*.cfg"), ("/etc/xen", "*.sxp"), ("/etc/xen/auto", "*")),
    ("/etc/libvirt/libxl", "*.xml"),
)
_BACKENDS = "/local/domain/0/backend"
_PREFIX = re.compile(r"^(?:[a-z0-9]+:)*(?=/)")
_SOURCE = re.compile(r"<source\s+(?:file|dev)=(?:'([^']+)'|\"([^\"]+)\")")


def find_running(subject: Subject) -> list[str]:
    """`domain 5 (web1)` for each domain that has this disk attached."""
    tool = process.find_tool("xenstore-ls")
    if tool is None or not any(socket.exists() for socket in SOCKETS):
        return []
    text = process.run(["xenstore-ls", "-f", _BACKENDS], accept=(0, 1))
    found = {}
    for backend, keys in _backends(text).items():
        if _is_this(subject, keys.get("params", ""), keys.get("physical-device", "")):
            number = backend.split("/")[0]
            found[number] = f"domain {number}{_domain_name(number)}"
    return list(found.values())


def _backends(text: str) -> dict[str, dict[str, str]]:
    """`DOMID/DEVID` to its keys, for every kind of disk backend (vbd, vbd3, qdisk, tap...)."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        path, equals, value = line.partition(" = ")
        parts = path.removeprefix(f"{_BACKENDS}/").split("/")
        if equals and len(parts) == 4:
            found.setdefault("/".join(parts[1:3]), {})[parts[3]] = value.strip().strip('"')
    return found


def _is_this(subject: Subject, params: str, numbers: str) -> bool:
    if re.fullmatch(r"[0-9a-f]+:[0-9a-f]+", numbers) and subject.device:
        major, minor = (int(part, 16) for part in numbers.split(":"))
        if (major, minor) in set(relatives(subject.device)):
            return True
    path = _PREFIX.sub("", params)
    return path.startswith("/") and (path == str(subject.path) or subject.is_at(path))


def _domain_name(number: str) -> str:
    path = f"/local/domain/{number}/name"
    name = process.run(["xenstore-read", path], accept=(0, 1)).strip()
    return f" ({name})" if name and "couldn't" not in name else ""


def find_defined(subject: Subject) -> list[str]:
    """The configuration files that name this disk, whether their guest runs or not."""
    files = {path.resolve(): path for path in _configurations()}
    return [str(path) for path in files.values() if _names(path, subject)]


def _configurations() -> Iterator[Path]:
    for folder, pattern in CONFIGURATIONS:
        for path in sorted(Path(folder).glob(pattern)):
            if path.is_file():
                yield path


def _names(path: Path, subject: Subject) -> bool:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    return any(
        disk == str(subject.path) or subject.is_at(disk) for disk in _disks_in(text) if disk
    ) or str(subject.path) in _words(text)


def _disks_in(text: str) -> list[str]:
    """The targets of a configuration in the form of xl, xm or libvirt; none where it has none."""
    if "<domain" in text:
        return [one or other for one, other in _SOURCE.findall(text)]
    for parse in (xl.parse, xm.parse):
        try:
            return [disk.target for disk in parse(text, strict=False).disks]
        except ValueError:
            continue
    return [_PREFIX.sub("", word) for word in _words(text)]


def _words(text: str) -> set[str]:
    """Every path in a text that no parser reads: rather one too many."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return set(re.findall(r"/[A-Za-z0-9_@%+=:./-]+", "\n".join(lines)))
