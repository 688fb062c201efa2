"""A Xen kernel as etch and lenny had it: a gzipped 32-bit ELF file, its modules, an initrd.

No machine could run it: it has the headers, notes, banner and symbols that tools read, and no code.
"""

import gzip
import struct

from pipeline.kernel.cpio import Archive

MODULES = {
    "drivers/xen/blkfront/xenblk": "",
    "drivers/xen/netfront/xennet": "",
    "fs/jbd/jbd": "",
    "fs/ext3/ext3": "jbd",
    "net/ipv4/netfilter/ip_tables": "",
}
_NOTES = {
    **{kind: struct.pack("<I", value) for kind, value in ((1, 0xC0100000), (3, 0xC0000000))},
    **{5: b"xen-3.0\0", 6: b"linux\0", 8: b"generic\0", 9: b"yes\0"},
}


def make_vmlinuz(abi: str) -> bytes:
    """What xend's domain builder loads."""
    notes = b""
    for kind, body in _NOTES.items():
        notes += (
            struct.pack("<III", 4, len(body), kind) + b"Xen\0" + body + b"\0" * (-len(body) % 4)
        )
    banner = f"Linux version {abi} (Debian 2.6) (waldi@debian.org) #1 SMP\n\0".encode()
    header = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 3, 1)
    header += struct.pack("<IIIIHHHHHH", 0xC0100000, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    program = struct.pack("<IIIIIIII", 4, 84, 0, 0, len(notes), len(notes), 4, 4)
    return gzip.compress(header + program + notes + banner, mtime=0)


def make_module(name: str, needs: str, abi: str) -> bytes:
    """A 32-bit .ko with a symbol of its own, and an undefined one of the module that it needs."""
    facts = (f"depends={needs}", "license=GPL", f"vermagic={abi} SMP mod_unload 686")
    modinfo = b"".join(f"{one}\0".encode() for one in facts)
    own, wanted = f"{name}_works", f"{needs}_works"
    strings = f"\0__ksymtab_{own}\0{own}\0{wanted}\0".encode()
    kinds = [(f"__ksymtab_{own}", 2), (own, 2), *([(wanted, 0)] if needs else [])]
    symbols = bytes(16)
    for text, section in kinds:
        at = strings.index(f"\0{text}\0".encode()) + 1
        symbols += struct.pack("<IIIBBH", at, 0, 0, 0x10, 0, section)
    names = b"\0.modinfo\0__ksymtab\0__ksymtab_strings\0.symtab\0.strtab\0.shstrtab\0"
    exported = f"{own}\0".encode()
    contents = (modinfo, bytes(8), exported, symbols, strings, names)
    body, table = b"", bytes(40)
    for number, (title, content) in enumerate(zip(_SECTIONS, contents, strict=True)):
        at = names.index(f"\0{title}\0".encode()) + 1
        kind, link, size = (2, 5, 16) if title == ".symtab" else (3 if number > 3 else 1, 0, 0)
        info = 1 if title == ".symtab" else 0
        table += struct.pack(
            "<10I", at, kind, 2, 0, 52 + len(body), len(content), link, info, 1, size
        )
        body += content
    header = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHI", 1, 3, 1)
    header += struct.pack("<IIIIHHHHHH", 0, 0, 52 + len(body), 0, 52, 0, 0, 40, 7, 6)
    return header + body + table


_SECTIONS = (".modinfo", "__ksymtab", "__ksymtab_strings", ".symtab", ".strtab", ".shstrtab")


def module_files(abi: str) -> dict[str, bytes]:
    """Path below / -> bytes of every module."""
    return {
        f"lib/modules/{abi}/kernel/{path}.ko": make_module(path.rpartition("/")[2], needs, abi)
        for path, needs in MODULES.items()
    }


def make_initrd(abi: str) -> bytes:
    """What update-initramfs of that time made, as far as anybody looks into it."""
    archive = Archive()
    archive.add_file("init", b"#!/bin/sh\n", mode=0o755)
    for path, content in module_files(abi).items():
        archive.add_file(path, content)
    return gzip.compress(archive.pack(), mtime=0)
