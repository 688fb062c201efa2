"""A CD as small as El Torito allows: its boot sector writes one line on the screen, and stops."""

import struct
from pathlib import Path

SECTOR = 2048
FIRST = 16
_ORIGIN = 0x7C00
# si = the line, behind the code; each byte by int 10h, ah=0Eh; at its zero the processor stops
_CODE = bytes.fromhex("31c08ed8be187cac84c07409b40ebb0700cd10ebf2f4ebfd")


def make_cd(path: Path, line: str = "") -> Path:
    """An ISO image of a boot sector that writes `line`; without one, an image that boots nothing.

    Sources: ECMA-119, 8; El Torito 1.0, section 2, of Phoenix and IBM.
    """
    sectors = {FIRST: b"\1CD001\1".ljust(SECTOR, b"\0")}
    if line:
        record = b"\0CD001\1EL TORITO SPECIFICATION".ljust(0x47, b"\0") + struct.pack("<I", 19)
        validation = struct.pack("<BBH24sHBB", 1, 0, 0, b"", 0, 0x55, 0xAA)
        total = sum(struct.unpack("<16H", validation)) & 0xFFFF
        validation = validation[:28] + struct.pack("<H", -total & 0xFFFF) + validation[30:]
        entry = struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, SECTOR // 512, 20)
        assert _CODE[4:7] == b"\xbe" + struct.pack("<H", _ORIGIN + len(_CODE))
        sectors |= {17: record, 19: validation + entry, 20: _CODE + line.encode() + b"\0"}
    sectors[18] = b"\xffCD001\1"
    with path.open("wb") as stream:
        for number, content in sectors.items():
            stream.seek(number * SECTOR)
            stream.write(content.ljust(SECTOR, b"\0"))
        stream.truncate(64 * SECTOR)
    return path
