"""What a PC's text screen says, read off its picture with the font of the VGA BIOS that drew it."""

from collections import Counter
from collections.abc import Iterator

from pipeline.proof.screen import Picture

# seabios' package has it wherever QEMU shows an HVM guest
FONT_FILE = "/usr/share/seabios/vgabios-cirrus.bin"
ROWS, COLUMNS = 16, 80
_A = bytes.fromhex("000010386cc6c6fec6c6c6c600000000")  # how every VGA draws it
_PRINTABLE = range(0x20, 0x7F)
_LEAST_CONTRAST = 48  # of 255: what a JPEG makes of one colour differs by less
_MOST_UNKNOWN = 0.2  # frames and arrows are no letters; more of that is a picture

Font = dict[bytes, str]


def read_font(bios: bytes) -> Font:
    """Glyph of 16 rows to character; ValueError where there is no such font."""
    start = bios.find(_A) - ord("A") * ROWS
    if start < 0 or len(bios) < start + 256 * ROWS:
        raise ValueError("a VGA BIOS without a font of 8x16")
    glyphs = {code: bios[start + code * ROWS : start + (code + 1) * ROWS] for code in range(256)}
    # frames and blocks first, so that a letter of the same form wins
    others = {glyph: " " for code, glyph in glyphs.items() if code not in _PRINTABLE}
    return others | {glyphs[code]: chr(code) for code in reversed(_PRINTABLE)}


def read_lines(picture: Picture, font: Font) -> list[str]:
    """The lines of the screen, the empty ones left out; [] for a picture that is no text."""
    width = picture.width // COLUMNS
    if width not in (8, 9) or picture.width % COLUMNS:
        return []
    lines = ["".join(line) for line in _read_cells(picture, width, font)]
    counted = Counter("".join(lines))
    written = counted.total() - counted[" "]
    if counted["\ufffd"] > written * _MOST_UNKNOWN:
        return []
    return [line.rstrip() for line in lines if line.strip()]


def _read_cells(picture: Picture, width: int, font: Font) -> Iterator[list[str]]:
    light = bytes(map(max, picture.pixels[::3], picture.pixels[1::3], picture.pixels[2::3]))
    for top in range(0, picture.height - ROWS + 1, ROWS):
        rows = [light[y * picture.width :][: picture.width] for y in range(top, top + ROWS)]
        cells = ([row[x : x + 8] for row in rows] for x in range(0, picture.width, width))
        yield [_read_cell(cell, font) for cell in cells]


def _read_cell(rows: list[bytes], font: Font) -> str:
    """A character, " " for one colour or a frame, U+FFFD for what the font has not."""
    low, high = min(map(min, rows)), max(map(max, rows))
    if high - low < _LEAST_CONTRAST:
        return " "
    middle = (low + high) // 2
    bits = bytes(sum((value > middle) << (7 - at) for at, value in enumerate(row)) for row in rows)
    dark = bytes(value ^ 0xFF for value in bits)  # a line that is marked
    # the cursor stands at the bottom of its cell
    return font.get(bits) or font.get(dark) or font.get(bits[:13] + bytes(3)) or "\ufffd"
