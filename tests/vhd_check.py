"""What `vhd-util check` looks at in a dynamic VHD, and reading its disk: from its rules, not ours.

Source: xapi-project/blktap, vhd/lib/vhd-util-check.c and libvhd.c (vhd_has_batmap, vhd_chs). Each
refusal has the words of that program, where it has some.
"""

import struct

from pipeline.formats.vhd import find_geometry

SECTOR = 512
_FOOTER_FIELDS = (
    "cookie features version data_offset timestamp creator creator_version system "
    "original_size size cylinders heads sectors type checksum uuid saved rest"
).split()
_UNUSED = 0xFFFFFFFF


class Refused(Exception):
    """What is wrong."""


def check_vhd(content: bytes, *, now: int) -> bytes:
    """The disk in a VHD; `now` is the time in seconds since 1970. Raises Refused."""
    primary, backup = content[-SECTOR:], content[:SECTOR]
    footer = _check_footer(primary, now)
    _check_footer(backup, now)
    if primary != backup:
        raise Refused("primary and backup footers do not match")
    if footer["type"] != 3:
        raise Refused("XCP-ng takes no static VHD")
    at, count, block = _check_header(content, footer)
    table = struct.unpack_from(f">{count}I", content, at)
    bits, heads_end = _check_batmap(content, at, table)
    _check_table(table, heads_end, len(content), block)
    _check_blocks(content, table, bits)
    return _read(content, table, block, footer["size"])


def _check_footer(sector: bytes, now: int) -> dict[str, int]:
    values = struct.unpack(">8sIIQI4sIIQQHBBII16sB427s", sector)
    footer = dict(zip(_FOOTER_FIELDS, values, strict=True))
    if footer["cookie"] != b"conectix":
        raise Refused("invalid cookie")
    if footer["checksum"] != ~(sum(sector) - sum(sector[64:68])) & 0xFFFFFFFF:
        raise Refused("invalid checksum")
    if footer["features"] != 2:
        raise Refused("invalid extra features")
    if footer["version"] != 0x10000:
        raise Refused("invalid file format version")
    if footer["timestamp"] > now - 946_684_800 + 1800:
        raise Refused("creation time in future")
    if footer["creator"][:3] != b"tap":
        # vhd-util resize: "not created by xen"; qemu-img's has no batmap
        raise Refused("not created by xen")
    if not 0x10002 <= footer["creator_version"] <= 0x10003:
        raise Refused("unsupported tap creator version")
    told = (footer["cylinders"], footer["heads"], footer["sectors"])
    if find_geometry(footer["size"]) < told:
        raise Refused("geometry too large")
    if footer["saved"] not in (0, 1) or any(footer["rest"]):
        raise Refused("invalid 'reserved' bits")
    return footer


def _check_header(content: bytes, footer: dict[str, int]) -> tuple[int, int, int]:
    head = content[footer["data_offset"] :][:1024]
    cookie, nowhere, at, version, count, block, checksum = struct.unpack_from(">8sQQIIII", head)
    if cookie != b"cxsparse":
        raise Refused("header: invalid cookie")
    if checksum != ~(sum(head) - sum(head[36:40])) & 0xFFFFFFFF:
        raise Refused("header: invalid checksum")
    if version != 0x10000 or nowhere != 0xFFFFFFFFFFFFFFFF:
        raise Refused("invalid header version")
    if at % SECTOR or at + 4 * count > len(content) - SECTOR:
        raise Refused("invalid table offset")
    if block != 2 << 20:
        raise Refused("invalid block size")
    if any(head[40:]):
        raise Refused("invalid non-null parent")
    if count * block < footer["size"]:
        raise Refused("the table is too short for the size")
    return at, count, block


def _check_batmap(content: bytes, at: int, table: tuple[int, ...]) -> tuple[bytes, int]:
    """The map, and where the heads end."""
    place = -(-(at + 4 * len(table)) // SECTOR) * SECTOR
    cookie, offset, sectors, version, checksum = struct.unpack_from(">8sQIII", content, place)
    if cookie != b"tdbatmap":
        raise Refused("batmap: invalid cookie")
    if version > 0x10002:
        raise Refused("unsupported batmap version")
    bits = content[offset : offset + sectors * SECTOR]
    if not sectors or len(bits) * 8 < len(table) or offset % SECTOR:
        raise Refused("invalid batmap size")
    if checksum != ~sum(bits) & 0xFFFFFFFF:
        raise Refused("batmap: invalid checksum")
    end: int = offset + len(bits)
    return bits, end


def _check_blocks(content: bytes, table: tuple[int, ...], bits: bytes) -> None:
    for number, start in enumerate(table):
        is_full = bits[number >> 3] << (number & 7) & 0x80
        if is_full and start == _UNUSED:
            raise Refused("batmap shows unallocated block full")
        if is_full and content[start * SECTOR :][:SECTOR] != b"\xff" * SECTOR:
            raise Refused("a full block has sectors that are not written")


def _check_table(table: tuple[int, ...], heads_end: int, length: int, block: int) -> None:
    taken = sorted(start for start in table if start != _UNUSED)
    sectors = 1 + block // SECTOR
    for start, following in zip(taken, [*taken[1:], length // SECTOR - 1], strict=True):
        if start * SECTOR < heads_end:
            raise Refused("clobbers headers")
        if start + sectors > length // SECTOR - 1:
            raise Refused("clobbers footer")
        if start + sectors > following:
            raise Refused("clobbers block")


def _read(content: bytes, table: tuple[int, ...], block: int, size: int) -> bytes:
    disk = bytearray(len(table) * block)
    for number, start in enumerate(table):
        if start != _UNUSED:
            data = (start + 1) * SECTOR
            disk[number * block : (number + 1) * block] = content[data : data + block]
    return bytes(disk[:size])
