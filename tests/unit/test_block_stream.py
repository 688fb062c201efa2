"""An image as a stream of blocks: the same bytes come out, or nothing at all."""

import os
import random
from pathlib import Path

import pytest
import zstandard

from pipeline.artifact.block_stream import BLOCK, read_stream, write_stream
from pipeline.errors import VerificationError

SHUFFLED = random.Random(1).randbytes(600 * BLOCK)


def image(path: Path, *pieces: tuple[int, bytes], size: int) -> Path:
    """A sparse file with these bytes at these places."""
    with open(path, "wb") as stream:
        for place, content in pieces:
            stream.seek(place)
            stream.write(content)
        stream.truncate(size)
    return path


def there_and_back(new: Path, older: Path | None = None) -> int:
    """Bytes on the way; what comes out is what went in, holes too."""
    packed, made = new.with_name("packed"), new.with_name("made")
    write_stream(new, packed, older=older)
    read_stream(packed, made, size=new.stat().st_size, older=older)
    assert made.read_bytes() == new.read_bytes()
    assert made.stat().st_blocks <= new.stat().st_blocks + 16
    return packed.stat().st_size


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 700 * BLOCK + 7])
def test_an_image_of_any_size_comes_out_as_it_went_in(tmp_path: Path, size: int) -> None:
    there_and_back(image(tmp_path / "new", (0, SHUFFLED[: size // 2]), size=size))


def test_a_hole_costs_nothing(tmp_path: Path) -> None:
    big = image(tmp_path / "new", (3 << 20, b"x"), (900 << 20, b"y"), size=1 << 30)
    packed, made = tmp_path / "packed", tmp_path / "made"
    write_stream(big, packed)
    assert packed.stat().st_size < 4096
    read_stream(packed, made, size=1 << 30)
    assert made.stat().st_blocks * 512 < 1 << 20


def test_what_has_moved_is_copied_from_where_it_was(tmp_path: Path) -> None:
    old = image(tmp_path / "old", (0, SHUFFLED), size=1000 * BLOCK)
    moved = SHUFFLED[200 * BLOCK :] + b"new" * BLOCK + SHUFFLED[: 100 * BLOCK]
    new = image(tmp_path / "new", (50 * BLOCK, moved), size=1000 * BLOCK + 5)
    assert there_and_back(new, old) < 500


def test_an_end_that_is_no_block_is_found_again(tmp_path: Path) -> None:
    old = image(tmp_path / "old", (0, SHUFFLED[: 9 * BLOCK + 99]), size=9 * BLOCK + 99)
    new = image(tmp_path / "new", (BLOCK, SHUFFLED[: 9 * BLOCK + 99]), size=10 * BLOCK + 99)
    assert there_and_back(new, old) < 500


def stream(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "crafted"
    path.write_bytes(zstandard.compress(content))
    return path


HEAD = b"DOMU-BLOCKS-1\n" + (8 * BLOCK).to_bytes(8, "little")
END = b"\x00" * 13


def run(kind: int, count: int, place: int = 0) -> bytes:
    return bytes([kind]) + count.to_bytes(4, "little") + place.to_bytes(8, "little")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"DOMU-BLOCKS-2\n",
        HEAD,
        HEAD + END,
        HEAD + run(1, 9) + END,
        HEAD + run(1, 2**32 - 1) + END,
        HEAD + run(2, 8) + b"short",
        HEAD + run(3, 8, 2**40) + END,
        HEAD + run(3, 8) + END,
        HEAD + run(9, 8) + END,
        HEAD.replace(b"\x80", b"\x90") + run(1, 8) + END,
    ],
    ids=range(11),
)
def test_a_stream_that_cannot_be_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(VerificationError, match="no stream of this image"):
        read_stream(stream(tmp_path, content), tmp_path / "made", size=8 * BLOCK)


def test_what_is_no_zstd_frame_or_wants_much_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(5000))
    settings = zstandard.ZstdCompressionParameters(window_log=30)
    wide = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    (tmp_path / "wide").write_bytes(wide.compress(HEAD + run(1, 8) + END) + wide.flush())
    for name in ("noise", "wide"):
        with pytest.raises(VerificationError):
            read_stream(tmp_path / name, tmp_path / f"{name}-made", size=8 * BLOCK)
