"""The time of packages: that of the newest, whatever else their headers say."""

from pathlib import Path

import pytest

from pipeline.bootstrap.epoch import find_epoch, read_epoch, write_epoch
from pipeline.errors import PipelineError

YEAR_1980 = 315_532_800


def deb_of(folder: Path, time: str) -> Path:
    """The beginning of a package, with this in the field for its time."""
    path = folder / f"{time.strip()}.deb"
    path.write_bytes(f"!<arch>\n{'debian-binary':<16}{time:<12}0     0     100644  4\n".encode())
    return path


def test_the_newest_package_says_the_time(tmp_path: Path) -> None:
    debs = [deb_of(tmp_path, time) for time in ("1700000000", "1600000000")]
    assert find_epoch(debs) == find_epoch(reversed(debs)) == 1_700_000_000


@pytest.mark.parametrize("time", ["0", "-5", "today", "86399"])
def test_a_package_without_a_time_of_our_days_does_not_count(tmp_path: Path, time: str) -> None:
    assert find_epoch([deb_of(tmp_path, time)]) == YEAR_1980
    assert find_epoch([]) == YEAR_1980


def test_a_time_is_one_that_an_old_inode_holds(tmp_path: Path) -> None:
    assert find_epoch([deb_of(tmp_path, "999999999999")]) == 2**31 - 1


def test_what_a_stage_has_noted_is_read_again(tmp_path: Path) -> None:
    write_epoch(tmp_path, 1_700_000_000)
    assert read_epoch(tmp_path) == 1_700_000_000
    (tmp_path / "epoch").write_text("yesterday\n")
    with pytest.raises(PipelineError, match="no time"):
        read_epoch(tmp_path)
