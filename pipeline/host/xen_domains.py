"""Which domains have a disk: those that run, as xenstore says, and those that are only defined.

xen-blkback's keys are in docs/misc/xenstore-paths.pandoc and blkif.h of Xen: `params` is what xl
was given, `physical-device` the kernel's numbers in hexadecimal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline import command
from pipeline.host.holders import Subject, relatives

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
    tool = command.find_tool("xenstore-ls")
    if tool is None or not any(socket.exists() for socket in SOCKETS):
        return []
    text = command.run(["xenstore-ls", "-f", _BACKENDS], accept=(0, 1))
    found = {}
    for backend, keys in _backends(text).items():
        if _is_this(subject, keys.get("params", ""), keys.get("physical-device", "")):
            number = backend.split("/")[0]
            found[number] = f"domain {number}{_name_of(number)}"
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


def _name_of(number: str) -> str:
    path = f"/local/domain/{number}/name"
    name = command.run(["xenstore-read", path], accept=(0, 1)).strip()
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
    from pipeline.xen import xl, xm  # jinja2 comes with them
    from pipeline.xen.text import SyntaxFault, Unsupported

    if "<domain" in text:
        return [one or other for one, other in _SOURCE.findall(text)]
    for parse in (xl.parse, xm.parse):
        try:
            return [disk.target for disk in parse(text, strict=False).disks]
        except (SyntaxFault, Unsupported, ValueError):
            continue
    return [_PREFIX.sub("", word) for word in _words(text)]


def _words(text: str) -> set[str]:
    """Every path in a text that no parser reads: rather one too many."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return set(re.findall(r"/[A-Za-z0-9_@%+=:./-]+", "\n".join(lines)))
