"""Kernel packages as a stranger might make them, for tests/host/test_evil_kernels.py."""

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ABI = "9.9.9-evil"
_AR = b"!<arch>\n"


@dataclass
class Contents:
    """The data part of a kernel package under construction."""

    tar: tarfile.TarFile

    def folder(self, name: str, mode: int = 0o755) -> object:
        """A folder."""
        return self._add(name, tarfile.DIRTYPE, mode=mode)

    def file(self, name: str, content: bytes = b"x", mode: int = 0o644) -> object:
        return self._add(name, tarfile.REGTYPE, content=content, mode=mode)

    def link(self, name: str, target: str) -> object:
        return self._add(name, tarfile.SYMTYPE, target=target)

    def hard(self, name: str, target: str) -> object:
        return self._add(name, tarfile.LNKTYPE, target=target)

    def special(self, name: str, kind: bytes) -> object:
        return self._add(name, kind)

    def _add(
        self, name: str, kind: bytes, *, content: bytes = b"", mode: int = 0o644, target: str = ""
    ) -> object:
        info = tarfile.TarInfo(f"./{name}")
        info.type, info.mode, info.linkname, info.size = kind, mode, target, len(content)
        info.devmajor, info.devminor = 1, 5
        self.tar.addfile(info, io.BytesIO(content))
        return info


Craft = Callable[[Contents, str], object]


def make_package(path: Path, craft: Craft, witness: Path) -> Path:
    """Write a .deb of a kernel that `craft` fills; it knows the path of what it wants to harm."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:
        craft(Contents(tar), str(witness))
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w") as tar:
        text = b"Package: linux-image-evil\nVersion: 1\nArchitecture: amd64\nMaintainer: x\n"
        text += b"Description: x\n"
        info = tarfile.TarInfo("./control")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    members = (
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", gzip.compress(control.getvalue(), 1)),
        ("data.tar.gz", gzip.compress(data.getvalue(), 1)),
    )
    with open(path, "wb") as deb:
        deb.write(_AR)
        for name, content in members:
            deb.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            deb.write(content + b"\n" * (len(content) % 2))
    return path


def whole(contents: Contents, *, without: tuple[str, ...] = ()) -> object:
    """What a kernel package has, but for the parts that a case makes itself."""
    if "boot" not in without:
        contents.folder("boot")
    if "vmlinuz" not in without:
        contents.file(f"boot/vmlinuz-{ABI}", b"kernel " * 100)
    if "modules" not in without:
        for name in ("lib", "lib/modules", f"lib/modules/{ABI}"):
            contents.folder(name)
        contents.file(f"lib/modules/{ABI}/modules.builtin", _BUILT_IN)
    return contents


_BUILT_IN = b"kernel/drivers/block/xen-blkfront.ko\nkernel/fs/ext4/ext4.ko\n"


def _home(contents: Contents) -> object:
    return [contents.folder(name) for name in ("lib", "lib/modules")]


def _modules_link(contents: Contents, witness: str) -> None:
    whole(contents, without=("modules",))
    _home(contents)
    contents.link(f"lib/modules/{ABI}", witness)


def _above_link(name: str) -> Craft:
    def craft(contents: Contents, witness: str) -> None:
        whole(contents, without=("modules",) if name.startswith("lib") else ("boot", "vmlinuz"))
        if name == "lib/modules":
            contents.folder("lib")
        contents.link(name, witness)
        contents.file(f"{name}/vmlinuz-{ABI}", b"owned")
        contents.folder(f"{name}/{ABI}")
        contents.file(f"{name}/{ABI}/owned", b"owned")

    return craft


def _vmlinuz_link(target: str) -> Craft:
    def craft(contents: Contents, witness: str) -> None:
        whole(contents, without=("vmlinuz",))
        contents.link(f"boot/vmlinuz-{ABI}", target.format(witness=witness))

    return craft


def _vmlinuz_special(kind: bytes) -> Craft:
    def craft(contents: Contents, _witness: str) -> None:
        whole(contents, without=("vmlinuz",))
        contents.special(f"boot/vmlinuz-{ABI}", kind)

    return craft


def _in_modules(what: Callable[[Contents, str, str], object]) -> Craft:
    def craft(contents: Contents, witness: str) -> None:
        whole(contents)
        what(contents, f"lib/modules/{ABI}", witness)

    return craft


def _named(name: str) -> Craft:
    def craft(contents: Contents, witness: str) -> None:
        contents.file(name.format(witness=witness), b"owned")
        whole(contents)

    return craft


def _abi(abi: str) -> Craft:
    def craft(contents: Contents, _witness: str) -> None:
        whole(contents, without=("vmlinuz",))
        contents.file(f"boot/vmlinuz-{abi}", b"kernel")

    return craft


CASES: dict[str, Craft] = {
    "modules folder is a link": _modules_link,
    "lib is a link": _above_link("lib"),
    "lib/modules is a link": _above_link("lib/modules"),
    "boot is a link": _above_link("boot"),
    "kernel links to a file": _vmlinuz_link("{witness}/file"),
    "kernel links to shadow": _vmlinuz_link("/etc/shadow"),
    "kernel links to zero": _vmlinuz_link("/dev/zero"),
    "kernel links upwards": _vmlinuz_link("../../../../../../etc/passwd"),
    "kernel links to itself": _vmlinuz_link(f"vmlinuz-{ABI}"),
    "kernel links to a process": _vmlinuz_link("/proc/1/environ"),
    "kernel is a pipe": _vmlinuz_special(tarfile.FIFOTYPE),
    "kernel is a device": _vmlinuz_special(tarfile.CHRTYPE),
    "kernel is a disk": _vmlinuz_special(tarfile.BLKTYPE),
    "kernel is a folder": _vmlinuz_special(tarfile.DIRTYPE),
    "a module links out": _in_modules(lambda c, h, w: c.link(f"{h}/a.ko", f"{w}/file")),
    "modules.dep links out": _in_modules(lambda c, h, w: c.link(f"{h}/modules.dep", f"{w}/file")),
    "modules.alias.bin links out": _in_modules(
        lambda c, h, w: c.link(f"{h}/modules.alias.bin", f"{w}/made")
    ),
    "modules.order links out": _in_modules(
        lambda c, h, w: c.link(f"{h}/modules.order", f"{w}/file")
    ),
    "modules.builtin is a link": _in_modules(
        lambda c, h, w: c.link(f"{h}/modules.builtin.bin", f"{w}/made")
    ),
    "a link beside": _in_modules(
        lambda c, h, w: [c.folder(f"{h}/vdso"), c.link(f"{h}/vdso/a.debug", "../modules.builtin")]
    ),
    "a link goes up and down": _in_modules(
        lambda c, h, w: c.link(f"{h}/a.ko", f"../../../lib/modules/../../{w}/file")
    ),
    "build is a link": _in_modules(lambda c, h, w: c.link(f"{h}/build", w)),
    "source is a folder": _in_modules(lambda c, h, w: c.folder(f"{h}/source")),
    "a module is a pipe": _in_modules(lambda c, h, w: c.special(f"{h}/a.ko", tarfile.FIFOTYPE)),
    "a module is a device": _in_modules(lambda c, h, w: c.special(f"{h}/a.ko", tarfile.CHRTYPE)),
    "a module is garbage": _in_modules(lambda c, h, w: c.file(f"{h}/a.ko", b"\x7fELF" * 9)),
    "a module is a broken xz": _in_modules(lambda c, h, w: c.file(f"{h}/a.ko.xz", b"\xfd7zXZ")),
    "a module is a hard link": _in_modules(lambda c, h, w: c.hard(f"{h}/a.ko", f"{w}/file")),
    "a module has a line's end": _in_modules(lambda c, h, w: c.file(f"{h}/a\nb.ko")),
    "modules are deep": _in_modules(
        lambda c, h, w: [c.folder(f"{h}/{'d/' * n}d") for n in range(60)]
    ),
    "a name leads upwards": _named("../../../../../..{witness}/made"),
    "a name is absolute": _named("{witness}/made"),
    "a name is long": _named("boot/" + "n" * 300),
    "a name has an escape": _named("boot/\x1b]0;owned\x07"),
    "the version leads upwards": _abi("../../x"),
    "the version has a blank": _abi("a b"),
    "the version is a flag": _abi("-b"),
    "the version is empty": _abi(""),
    "the version is long": _abi("v" * 200),
    "two kernels": lambda c, w: (whole(c), c.file("boot/vmlinuz-other", b"x"))[0],
    "no kernel": lambda c, w: whole(c, without=("vmlinuz",)),
    "no modules": lambda c, w: whole(c, without=("modules",)),
    "nothing": lambda c, w: None,
    "no driver of Xen's disks": lambda c, w: (
        whole(c, without=("modules",)),
        _home(c),
        c.folder(f"lib/modules/{ABI}"),
    )[0],
    "kernel beside the modules is a link": lambda c, w: (
        whole(c, without=("vmlinuz", "modules")),
        [c.folder(n) for n in ("usr", "usr/lib", "usr/lib/modules", f"usr/lib/modules/{ABI}")],
        c.link(f"usr/lib/modules/{ABI}/vmlinuz", f"{w}/file"),
    )[0],
}
