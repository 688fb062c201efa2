"""fs-verity digests and files of check sums, against what `fsverity digest` 1.5 printed."""

import hashlib
from pathlib import Path

import pytest

from pipeline.artifact.sums import DISK_SUMS, SUMS, digest_as, measure_file, read_sums, write_sums

KNOWN = {
    0: "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
    1: "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551",
    4096: "97d68fd59e435f0c8d8a4e69b99b0efff591b6edd88ebc16db2e0ded0aef6a70",
    4097: "eab60fa27fc8713cbb4e28f5769ced1369b524ab9cb0e7871cf740f4e161fee0",
    524288: "2b97a60cfb70964020778e4bfcfe379d6e10ef87e9fb9ecbe5a360b8ab54b924",
    524289: "e93cde54cb2c42b5ddaec9c14e2948539c42ee0cccaa9b29e8efa2addb47d11b",
    67113864: "009a4f7b502e78f4c7c580112be74d02b8445f4abf397a3b1f347fd876f9df02",
}


def make_file(path: Path, size: int) -> Path:
    """A hole, but for the words `boot` in the middle and `end` at the end."""
    with open(path, "wb") as stream:
        stream.truncate(size)
        if size > 8:
            stream.seek(size // 2)
            stream.write(b"boot")
            stream.seek(size - 3)
            stream.write(b"end")
    return path


@pytest.mark.parametrize("size", KNOWN)
def test_the_digest_is_what_fsverity_prints(tmp_path: Path, size: int) -> None:
    assert measure_file(make_file(tmp_path / "file", size)) == f"sha256:{KNOWN[size]}"


def test_holes_and_written_zeros_have_the_same_digest(tmp_path: Path) -> None:
    sparse = make_file(tmp_path / "sparse", 3 << 20)
    full = tmp_path / "full"
    full.write_bytes(sparse.read_bytes())
    assert sparse.stat().st_blocks < full.stat().st_blocks
    assert measure_file(sparse) == measure_file(full)


def test_every_file_stands_in_one_of_the_two_sums(tmp_path: Path) -> None:
    disk = make_file(tmp_path / "disk.img", 1 << 20)
    (tmp_path / "web1.cfg").write_text("name = 'web1'\n")
    write_sums(tmp_path, disks=("disk.*",))
    plain = hashlib.sha256(b"name = 'web1'\n").hexdigest()
    assert (tmp_path / SUMS).read_text() == f"{plain}  web1.cfg\n"
    assert (tmp_path / DISK_SUMS).read_text() == f"{measure_file(disk)} disk.img\n"
    listed = read_sums((tmp_path / SUMS).read_text() + (tmp_path / DISK_SUMS).read_text())
    assert listed == {name: digest_as(listed[name], tmp_path / name) for name in listed}
    assert set(listed) == {"disk.img", "web1.cfg"}
