"""An index that was unpacked before is taken again, if it is the very one."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.mirror.index import copy_unpacked
from pipeline.mirror.release import IndexFile, Release

TEXT = b"Package: bash\nVersion: 1\n\n"
NAME = "main/binary-amd64/Packages"


def release_of(text: bytes | None) -> Release:
    """A Release that vouches for this index, or for the compressed one alone."""
    files = {}
    if text is not None:
        files[NAME] = IndexFile(NAME, len(text), hashlib.sha256(text).hexdigest())
    date = datetime(2026, 1, 1, tzinfo=UTC)
    return Release("stable", "bookworm", date, None, (), has_by_hash=True, files=files)


@pytest.mark.parametrize(
    ("vouched", "taken"),
    [(TEXT, True), (TEXT.replace(b"bash", b"dash"), False), (TEXT + b"\n", False), (None, False)],
)
def test_only_the_bytes_that_the_release_vouches_for_are_taken_again(
    tmp_path: Path, vouched: bytes | None, taken: bool
) -> None:
    earlier, target = tmp_path / "earlier", tmp_path / "target"
    earlier.write_bytes(TEXT)
    places = [tmp_path / "gone", earlier]
    assert copy_unpacked(places, target, release_of(vouched), "main", "amd64") == taken
    assert target.exists() == taken
    if taken:
        assert target.read_bytes() == TEXT
        assert target.stat().st_ino != earlier.stat().st_ino
