"""A frozen tree gives the golden image that it gave before: on any day, machine, e2fsprogs.

What a mirror has moves on, so guests made of it can be compared with their past only while it
stands still (tests/golden.json). This tree never moves.
"""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from pipeline.bootstrap.epoch import write_epoch
from pipeline.files import digest_file
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.stage import Job
from pipeline.stages import image
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

EPOCH = 1_700_000_000
FROZEN = {
    "bookworm": "4008d59aa0535c00ab8c02ef9e3b8a79748dda729b9b65c6fecec40e05206747",
    "wheezy": "69fe7ac341cacc31076c1fbd35740b1d43c04ded58ef408f6360e6c7a13c5594",
    "lenny": "11fafda48174de9a8656774c3e46709ce8a44436808abc9ca67c05f2cce5ca81",
}


def entry(name: str, content: bytes = b"", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(f"./{name}" if name != "." else ".")
    member.size, member.mtime, member.mode = len(content), EPOCH - 1000, 0o644
    for key, value in facts.items():
        setattr(member, key, value)
    return member, content


def write_tree(tar: Path) -> None:
    """What a root file system has: owners, links of both kinds, modes, a big and a long file."""
    noise = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(100_000))
    modes = {"tmp": 0o1777, "root": 0o700}
    folders = (".", "etc", "usr", "usr/bin", "var", "tmp", "root")
    entries = [
        *(entry(name, type=tarfile.DIRTYPE, mode=modes.get(name, 0o755)) for name in folders),
        entry("etc/shadow", b"root:*:19000:0:99999:7:::\n", gid=42, mode=0o640),
        entry("etc/empty", b"", uid=1000, gid=100),
        entry("usr/bin/su", noise[:70_000], mode=0o4755),
        entry("usr/bin/su-too", type=tarfile.LNKTYPE, linkname="./usr/bin/su", mode=0o4755),
        entry("bin", type=tarfile.SYMTYPE, linkname="usr/bin", mode=0o777),
        entry("var/far", type=tarfile.SYMTYPE, linkname="x/" * 100, mode=0o777),
        entry("var/big", noise),
        entry("var/zeros", b"\0" * 200_000 + noise[:10]),
        entry(f"var/{'n' * 200}", b"long name\n", mtime=0),
        *(entry(f"usr/bin/program-{n:03}", noise[n : n + n * 7]) for n in range(300)),
    ]
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        # by name, as the rootfs stage writes them: tar sets a folder's time when it leaves it
        for member, content in sorted(entries, key=lambda one: one[0].name.split("/")):
            archive.addfile(member, io.BytesIO(content))


def make_image(folder: Path, suite: str) -> Path:
    rootfs, scratch = folder / "rootfs", folder / "scratch"
    for path in (rootfs, scratch):
        path.mkdir(parents=True)
    write_epoch(rootfs, EPOCH)
    write_tree(rootfs / "rootfs.tar")
    spec = Spec.model_validate({"name": "web1", "suite": suite, "security": False})
    project = Project(ROOT, folder / "output", folder / "guests")
    image.build(Job(spec, {}, project, scratch, folder / "log", {"rootfs": rootfs}))
    return next(scratch.glob("golden*.img"))


@pytest.mark.parametrize("suite", sorted(FROZEN))
def test_a_frozen_tree_gives_the_image_that_it_gave_before(tmp_path: Path, suite: str) -> None:
    assert digest_file(make_image(tmp_path / "made", suite)) == FROZEN[suite]
