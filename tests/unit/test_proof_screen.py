"""Pictures of a guest's screen, and what stands on it."""

import struct
import zlib

import pytest

from pipeline.proof.first_screen import Screen, judge_screen, judge_service
from pipeline.proof.screen import Picture, read_pixels, render_png
from pipeline.proof.vga_text import read_font, read_lines

RED, BLACK = b"\xff\0\0", b"\0\0\0"


def test_a_picture_of_djpeg_becomes_a_png_with_the_same_pixels() -> None:
    picture = read_pixels(b"P6\n2 2\n255\n" + RED + BLACK + BLACK + RED)

    png = render_png(picture)

    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (2, 2)
    start = png.index(b"IDAT") + 4
    rows = zlib.decompressobj().decompress(png[start:])
    assert rows == b"\0" + RED + BLACK + b"\0" + BLACK + RED


def test_a_grey_picture_is_read_as_well() -> None:
    assert read_pixels(b"P5\n2 1\n255\n\x00\xff") == Picture(2, 1, BLACK + b"\xff\xff\xff")


def test_an_empty_screen_has_one_colour() -> None:
    assert Picture(2, 1, BLACK + BLACK).colours == 1
    assert Picture(2, 1, BLACK + RED).colours == 2


@pytest.mark.parametrize("content", [b"", b"JFIF", b"P6\n2 2\n255\nshort"])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="picture"):
        read_pixels(content)


def glyph(code: int) -> bytes:
    """A form of its own for each character; that of A is every VGA's."""
    if code == ord("A"):
        return bytes.fromhex("000010386cc6c6fec6c6c6c600000000")
    return bytes(2) + bytes([code, 255 - code] * 5) + bytes(4) if code > 0x20 else bytes(16)


BIOS = b"code" * 100 + b"".join(map(glyph, range(256))) + b"more code"
FIRMWARE = [
    *("SeaBIOS (version 1.16.2)", "", "Press ESC for boot menu.", "", "Booting from DVD/CD...")
]


def draw(lines: list[str], *, width: int = 9, marked: int = -1) -> Picture:
    """A text screen of 25 lines as a VGA draws it; the marked line is dark on light."""
    pixels = bytearray()
    for number in range(25):
        line = (lines[number] if number < len(lines) else "").ljust(80)
        for row in range(16):
            for letter in line:
                bits = glyph(ord(letter))[row] ^ (0xFF if number == marked else 0)
                for at in range(width):
                    is_light = bits >> (7 - at) & 1 if at < 8 else number == marked
                    pixels += b"\xaa\xa8\xab" if is_light else b"\0\3\0"
    return Picture(80 * width, 400, bytes(pixels))


def screen_of(picture: Picture) -> Screen:
    return judge_screen(picture, read_lines(picture, read_font(BIOS)))


@pytest.mark.parametrize("width", [8, 9])
def test_a_text_screen_is_read_by_the_font_that_drew_it(width: int) -> None:
    lines = ["GNU GRUB  version 2.06", " *Debian", "0123 AZaz ~!"]
    picture = draw(lines, width=width, marked=1)
    assert read_lines(picture, read_font(BIOS)) == lines


def test_a_bios_without_a_font_is_said() -> None:
    with pytest.raises(ValueError, match="without a font"):
        read_font(b"no font in here")


def test_what_the_firmware_says_itself_is_not_what_it_starts() -> None:
    assert screen_of(draw(FIRMWARE)).kind == "firmware"
    assert screen_of(draw([])).kind == "firmware"
    assert screen_of(draw([*FIRMWARE, "Welcome to GRUB!"])) == Screen("loaded", "Welcome to GRUB!")


@pytest.mark.parametrize(
    "fault",
    [
        "Boot failed: Could not read from CDROM (code 0003)",
        "No bootable device.",
        "Booting from Hard Disk...",
        "No configuration methods succeeded (http://ipxe.org/040ee186)",
    ],
)
def test_a_failure_of_the_firmware_is_known(fault: str) -> None:
    assert screen_of(draw([*FIRMWARE, fault])) == Screen("failed", fault)


def test_graphics_are_nothing_that_the_firmware_draws() -> None:
    picture = Picture(640, 480, bytes(range(256)) * (640 * 480 * 3 // 256))
    assert screen_of(picture) == Screen("loaded", "graphics of 640x480, 256 colours")
    assert screen_of(Picture(640, 480, bytes(640 * 480 * 3))).kind == "firmware"


LOG = """\
dnsmasq-dhcp[9]: DHCPACK(br-xen) 10.77.0.9 00:16:3e:00:00:09
dnsmasq-tftp[9]: sent /b/other.0 to 10.77.0.9
dnsmasq-dhcp[9]: DHCPACK(br-xen) 10.77.0.7 00:16:3e:00:00:07
dnsmasq-tftp[9]: sent /b/tftp/pxelinux.0 to 10.77.0.7
dnsmasq-tftp[9]: sent /b/tftp/ldlinux.c32 to 10.77.0.7
"""


@pytest.mark.parametrize(
    ("mac", "file", "levels"),
    [
        ("00:16:3E:00:00:07", "pxelinux.0", ["ok", "ok"]),
        ("00:16:3E:00:00:07", "grub.0", ["ok", "error"]),
        ("00:16:3E:00:00:08", "pxelinux.0", ["error", "error"]),
    ],
)
def test_the_log_tells_who_got_an_address_and_which_file(
    mac: str, file: str, levels: list[str]
) -> None:
    assert [found.level for found in judge_service(LOG, mac, file)] == levels
