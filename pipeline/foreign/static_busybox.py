"""A static busybox for an initrd: one that is here already, on this host or in the store."""

import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import EnvironmentFault
from pipeline.kernel.cpio import read_initrd
from pipeline.project import Project

_MACHINES = {"amd64": 0x3E, "i386": 0x03}
_INTERPRETER = 3  # PT_INTERP, which a static program has not (elf(5))
_HOST = (Path("/bin/busybox"), Path("/usr/bin/busybox"))
_MOST = 16 << 20


def find_busybox(project: Project, arch: str, target: Path) -> Path:
    """Written to `target`; EnvironmentFault where there is none for the architecture."""
    for content in _offered(project):
        if _is_static(content, arch):
            target.write_bytes(content)
            return target
    raise EnvironmentFault(
        f"an initrd for its kernel takes a static busybox for {arch}, and there is none here",
        hint="apt-get install busybox-static; or build any guest first, which brings one",
    )


def _offered(project: Project) -> Iterator[bytes]:
    for path in _HOST:
        if path.is_file() and path.stat().st_size <= _MOST:
            yield path.read_bytes()
    for path in sorted(project.store.glob("kernel/*/initrd.img")):
        try:
            entries = read_initrd(path.read_bytes())
        except ValueError:  # damaged: another one will do
            continue
        for entry in entries:
            if entry.path == "bin/busybox" and stat.S_ISREG(entry.mode):
                yield entry.content


def _is_static(program: bytes, arch: str) -> bool:
    """Whether it is an ELF program of this machine that needs no dynamic linker."""
    if program[:4] != b"\x7fELF" or len(program) < 64:
        return False
    is_64 = program[4] == 2
    if int.from_bytes(program[18:20], "little") != _MACHINES.get(arch):
        return False
    first, size, count = (
        (program[32:40], program[54:56], program[56:58])
        if is_64
        else (program[28:32], program[42:44], program[44:46])
    )
    start, step = int.from_bytes(first, "little"), int.from_bytes(size, "little")
    headers = (start + step * number for number in range(int.from_bytes(count, "little")))
    return all(int.from_bytes(program[at : at + 4], "little") != _INTERPRETER for at in headers)
