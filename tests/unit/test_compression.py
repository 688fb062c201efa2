"""Every form of compression: read whole, refused when cut, damaged or a bomb."""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import lz4.block
import lz4.frame
import pytest
import zstandard

from pipeline.compression import SUFFIXES, TooLongError, find_compression, unpack

TEXT = b"kernel" * 1000


def pack_legacy(*parts: bytes) -> bytes:
    """LZ4 as kernels have it."""
    blocks = [lz4.block.compress(part, store_size=False) for part in parts]
    packed = b"".join(struct.pack("<I", len(block)) + block for block in blocks)
    return b"\x02\x21\x4c\x18" + packed


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "bzip2": ("bzip2", bz2.compress),
    "xz": ("xz", lzma.compress),
    "lzma": ("lzma", lambda text: lzma.compress(text, lzma.FORMAT_ALONE)),
    "lz4": ("lz4", lz4.frame.compress),
    "lz4 of kernels": ("lz4", pack_legacy),
    "zstd": ("zstd", zstandard.compress),
    "zstd without a size": ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress),
}
every_form = pytest.mark.parametrize("form", PACKERS)


@every_form
def test_it_is_known_by_its_first_bytes_and_read_to_the_last(form: str) -> None:
    name, pack = PACKERS[form]
    assert find_compression(pack(TEXT)) == name
    assert name in SUFFIXES.values()
    assert unpack(memoryview(pack(TEXT)), name, limit=len(TEXT)) == TEXT


@every_form
def test_streams_follow_one_another_with_zeros_between(form: str) -> None:
    name, pack = PACKERS[form]
    packed = pack(b"one") + (b"" if "kernels" in form else bytes(8)) + pack(b"two") + bytes(8)
    assert unpack(packed, name, limit=99) == b"onetwo"


@pytest.mark.parametrize("form", [form for form in PACKERS if "kernels" not in form])
def test_what_follows_is_garbage_or_of_no_interest(form: str) -> None:
    name, pack = PACKERS[form]
    packed = pack(TEXT) + b"\xffgarbage"
    assert unpack(packed, name, limit=len(TEXT), is_first_enough=True) == TEXT
    with pytest.raises(ValueError, match=r"damaged|cut short"):
        unpack(packed, name, limit=len(TEXT))


@every_form
@pytest.mark.parametrize("kept", [0, 3, -1, -5])
def test_a_stream_that_is_cut_short_is_told(form: str, kept: int) -> None:
    name, pack = PACKERS[form]
    with pytest.raises(ValueError, match=f"the {name} stream is (cut short|damaged)"):
        assert unpack(pack(TEXT)[:kept], name, limit=len(TEXT)) == TEXT


@every_form
@pytest.mark.parametrize("is_first_enough", [True, False])
def test_a_bomb_ends_at_its_limit(form: str, is_first_enough: bool) -> None:
    name, pack = PACKERS[form]
    bomb = pack(bytes(4 << 20)) * 3
    with pytest.raises(TooLongError, match="more than 2 MiB"):
        unpack(bomb, name, limit=2 << 20, is_first_enough=is_first_enough)
    with pytest.raises(TooLongError, match="more than 9 bytes"):
        unpack(bomb, name, limit=9, is_first_enough=is_first_enough)


@every_form
def test_damage_is_told(form: str) -> None:
    name, pack = PACKERS[form]
    packed = pack(TEXT)
    with pytest.raises(ValueError, match=f"the {name} stream is"):
        unpack(packed[:7] + b"\xff" * 60, name, limit=len(TEXT))


def test_a_dictionary_of_gigabytes_is_refused() -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    machine = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    packed = machine.compress(TEXT) + machine.flush()
    assert unpack(packed, "zstd", limit=len(TEXT)) == TEXT
    with pytest.raises(ValueError, match="the zstd stream is damaged"):
        unpack(packed, "zstd", limit=len(TEXT), window=1 << 20)
    packed = lzma.compress(TEXT, lzma.FORMAT_ALONE)
    with pytest.raises(ValueError, match="Memory usage"):
        unpack(packed[:1] + struct.pack("<I", 1 << 30) + packed[5:], "lzma", limit=len(TEXT))


@pytest.mark.parametrize("name", ["lzo", "unknown", "brotli"])
def test_what_cannot_be_unpacked_is_told(name: str) -> None:
    with pytest.raises(ValueError, match=f"no decompressor for {name}"):
        unpack(TEXT, name, limit=len(TEXT))


def test_what_is_not_packed_is_bounded_too() -> None:
    assert unpack(TEXT, "none", limit=len(TEXT)) == TEXT
    with pytest.raises(TooLongError):
        unpack(TEXT, "none", limit=len(TEXT) - 1)
