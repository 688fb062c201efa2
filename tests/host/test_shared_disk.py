"""A disk that two guests write to: made by one of them, named by both, never emptied unasked."""

from pathlib import Path

import pytest

from pipeline.artifact.sums import DISK_SUMS
from pipeline.errors import InUseError
from pipeline.xen import xl
from tests import small

pytestmark = pytest.mark.integration
SHARED = '[[shared]]\nname = "quorum"\nsize = "2M"\nowner = "one"\n'


def test_its_owner_makes_it_and_the_other_names_it(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "one", "two", text=SHARED)
    first, second = (small.build(project, name) for name in ("one", "two"))
    disk = first / "disk-quorum.img"
    assert disk.read_bytes() == bytes(2 << 20)
    assert (disk.stat().st_blocks, disk.stat().st_mode & 0o777) == (0, 0o600)
    assert not (second / disk.name).exists()
    assert disk.name in (first / DISK_SUMS).read_text()
    assert disk.name not in (second / DISK_SUMS).read_text()
    for folder in (first, second):
        seen = xl.parse((folder / f"{folder.name}.cfg").read_text()).disks[-1]
        assert (seen.target, seen.vdev, seen.access) == (str(disk), "xvda3", "shared")


def test_what_guests_wrote_to_it_is_kept_unless_somebody_gives_it_up(tmp_path: Path) -> None:
    project = small.make_project(tmp_path, "one", "two", text=SHARED)
    for name in ("one", "two"):
        small.build(project, name)
    disk = project.artifact("one") / "disk-quorum.img"
    with open(disk, "r+b") as stream:
        stream.write(b"votes")
    small.build(project, "two", "2")
    with pytest.raises(InUseError, match=r"disk-quorum\.img: the guest has written to it"):
        small.build(project, "one", "2")
    assert disk.read_bytes().startswith(b"votes")
    small.build(project, "one", "2", replace=True)
    assert disk.read_bytes() == bytes(2 << 20)
