"""Pictures of a guest's screen."""

from __future__ import annotations

import struct
import zlib

import pytest

from pipeline.proof.screen import Picture, read_pixels, render_png

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
