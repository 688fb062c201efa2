"""vmlinuz, modules and initrd out of packages or files: `python -m pipeline.kernel.assembly ORDER`.

Runs in a builder's cage, because packages decide what is unpacked where. No link that they bring is
followed: a kernel, a module or a program of theirs is a regular file below its folder or an error.
"""

import json
import os
import re
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, UsageError
from pipeline.kernel.initrd import build_initrd
from pipeline.kernel.modules import ModuleFolder
from pipeline.process import run
from pipeline.walls.beneath import Beneath
from pipeline.walls.errand import carry_out

FACTS = "facts.json"
_KERNEL_BYTES = 512 << 20
_PROGRAM_BYTES = 64 << 20
_ABI = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}")
_INDEX_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Order:
    """One kernel to put together in the folder `room`.

    `debs` are its packages, or those that may bring the modules of `vmlinuz`, which is then a file;
    `modules` is a folder of them; `abi` names it, "" where the package does. `busybox` is the
    package of the initrd's programs, "" where `initrd` is a file. `has_old_tools` is for a modprobe
    that wants whole paths. `epoch` in seconds since 1970. Paths are absolute.
    """

    room: str
    debs: tuple[str, ...]
    name: str
    epoch: int
    fs: str
    abi: str = ""
    vmlinuz: str = ""
    modules: str = ""
    busybox: str = ""
    initrd: str = ""
    has_old_tools: bool = False


def assemble(table: dict[str, Any]) -> None:
    """Carry out an order; raises PipelineError."""
    order = Order(**{**table, "debs": tuple(table["debs"])})
    os.umask(0o022)
    room = Path(order.room)
    tree = room / "tree"
    tree.mkdir()
    if order.vmlinuz:
        abi, used = order.abi, _find_modules(order, tree)
        (room / "vmlinuz").write_bytes(Path(order.vmlinuz).read_bytes())
    else:
        used = list(range(len(order.debs)))
        for deb in order.debs:
            _unpack(deb, tree)
        abi = _take_kernel(order.name, tree, room)
    folder = _settle_modules(tree, abi)
    run(["depmod", "-b", tree, abi])
    modules = _make_initrd(order, folder, abi, room)
    if order.has_old_tools:
        name_whole_paths(folder, abi)
    _pack(tree, abi, room / "modules.tar", order.epoch)
    facts = {"abi": abi, "used": used, "initrd_modules": modules}
    (room / FACTS).write_text(json.dumps(facts))


def _unpack(deb: str, tree: Path) -> None:
    # base runs beside it and is what the rest waits for
    run(["nice", "dpkg-deb", "-x", deb, tree])


def _find_modules(order: Order, tree: Path) -> list[int]:
    """The modules of a kernel that is a file: its folder, or the first package that has them."""
    if order.modules:
        home = tree / "lib/modules"
        home.mkdir(parents=True)
        run(["cp", "-rT", order.modules, home / order.abi])
        return []
    with Beneath(tree, follow=False) as inside:
        for number, deb in enumerate(order.debs):
            _unpack(deb, tree)
            if any(inside.is_folder(f"{home}/{order.abi}") for home in _HOMES):
                return [number]
    raise UsageError(
        f"kernel {order.name}: its modules are neither in /lib/modules/{order.abi} nor in a "
        f"package linux-modules-{order.abi} of the suite",
        hint="give modules=/lib/modules/ABI",
    )


_HOMES = ("lib/modules", "usr/lib/modules")


def _take_kernel(name: str, tree: Path, room: Path) -> str:
    """The one kernel of the unpacked packages, as `vmlinuz` of the room; returns its ABI."""
    with Beneath(tree, follow=False) as inside:
        found = _boot_files(inside, "vmlinuz")
        if len(found) != 1:
            raise PipelineError(
                f"kernel package {name} brings {len(found)} kernels, expected one",
                hint="name a linux-image package, see `apt-cache search linux-image`",
            )
        ((abi, path),) = found.items()
        if not _ABI.fullmatch(abi):
            raise PipelineError(f"kernel package {name}: {abi!r} is no version of a kernel")
        (room / "vmlinuz").write_bytes(inside.read(path, limit=_KERNEL_BYTES))
        config = _boot_files(inside, "config").get(abi)
        if config:
            (room / "config").write_bytes(inside.read(config, limit=_PROGRAM_BYTES))
        for stem in ("vmlinuz", "config"):
            for one in _boot_files(inside, stem).values():
                inside.remove(one)
    return abi


def _boot_files(inside: Beneath, stem: str) -> dict[str, str]:
    """ABI -> path; from Linux 7.2 on Debian ships vmlinuz and config beside the modules."""
    found: dict[str, str] = {}
    if inside.is_folder("boot"):
        for name in inside.names("boot"):
            if name.startswith(f"{stem}-"):
                found[name.removeprefix(f"{stem}-")] = f"boot/{name}"
    home = "usr/lib/modules"
    if inside.is_folder(home):
        for abi in inside.names(home):
            if inside.exists(f"{home}/{abi}/{stem}"):
                found[abi] = f"{home}/{abi}/{stem}"
    return found


def _settle_modules(tree: Path, abi: str) -> Path:
    """The folder of the modules, at lib/modules/ABI whatever the package calls it."""
    home = f"lib/modules/{abi}"
    with Beneath(tree, follow=False) as inside:
        if not inside.exists(home):
            if not inside.is_folder(f"usr/{home}"):
                raise PipelineError(f"the kernel {abi} comes without modules", hint="see the log")
            inside.make_folders("lib/modules", mode=0o755)
            inside.rename(f"usr/{home}", home)
        elif not inside.is_folder(home):
            raise PipelineError(f"{home}: not a folder", hint="the package is not a kernel's")
        for link in ("build", "source"):
            inside.remove(f"{home}/{link}", missing_ok=True)
        _refuse_special(inside, home)
    return tree / home


def _refuse_special(inside: Beneath, home: str) -> None:
    """Modules are files and folders; a link (Ubuntu has some for debuggers) stays among them."""
    waiting = [home]
    while waiting:
        here = waiting.pop()
        for name in inside.names(here):
            path = f"{here}/{name}"
            mode = inside.stat(path).st_mode
            if stat.S_ISDIR(mode):
                waiting.append(path)
            elif not stat.S_ISREG(mode) and not (
                stat.S_ISLNK(mode) and _stays(here, inside.readlink(path), home)
            ):
                raise PipelineError(
                    f"{path}: neither a file nor a folder, nor a link to one beside it",
                    hint="the package is not a kernel's, or modules= names no folder of one",
                )


def _stays(folder: str, target: str, home: str) -> bool:
    """Whether a link's target, as it is written, lies below `home`."""
    if target.startswith("/"):
        return False
    return os.path.normpath(f"{folder}/{target}").startswith(f"{home}/")


def name_whole_paths(folder: Path, abi: str) -> None:
    """modules.dep as modprobe before module-init-tools 3.5 reads it: no path is relative.

    The binary indexes, which that modprobe does not know, would say otherwise: they go.
    """
    index = folder / "modules.dep"
    lines = [line.partition(":") for line in index.read_text().splitlines() if line]
    home = f"/lib/modules/{abi}"
    text = "".join(
        f"{home}/{path}:{''.join(f' {home}/{need}' for need in needs.split())}\n"
        for path, _, needs in lines
    )
    index.write_text(text)
    for path in folder.glob("modules.*.bin"):
        path.unlink()


def _make_initrd(order: Order, folder: Path, abi: str, room: Path) -> Sequence[str]:
    """The initrd, and the names of its modules."""
    target = room / "initrd.img"
    if order.initrd:
        target.write_bytes(Path(order.initrd).read_bytes())
        return ()
    unpacked = room / "busybox"
    _unpack(order.busybox, unpacked)
    with Beneath(unpacked, follow=False) as inside:
        # bin/, or usr/bin/ since the /usr merge; other files of that name are not the program
        program = next(
            (path for path in ("bin/busybox", "usr/bin/busybox") if inside.exists(path)), None
        )
        if program is None:
            raise PipelineError("busybox-static brings no program that the initrd could start")
        content = inside.read(program, limit=_PROGRAM_BYTES)
    made = build_initrd(content, ModuleFolder(folder), abi, file_system=order.fs)
    target.write_bytes(made.content)
    return made.modules


def _pack(tree: Path, abi: str, tar: Path, epoch: int) -> None:
    pack = ["tar", "--sort=name", "--numeric-owner", "--owner=0", "--group=0", "--mode=u=rwX,go=rX"]
    run([*pack, f"--mtime=@{epoch}", "-C", tree, "-cf", tar, f"lib/modules/{abi}"])


if __name__ == "__main__":
    sys.exit(carry_out(assemble))
