"""FAT file systems, read back by Debian's own tools."""

import os
import stat
import time
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.process import run
from pipeline.storage.fat import make_fat

pytestmark = [pytest.mark.integration]
MIB = 1 << 20
EPOCH = 1_700_000_000
LOADER = bytes(range(256)) * 4096
FILES = {
    "EFI/BOOT/BOOTX64.EFI": LOADER,
    "EFI/debian/grub.cfg": b"search\n",
    "meta-data": b"instance-id: x\n",
}


def make(
    image: Path, size_mib: int, label: str = "cidata", files: dict[str, bytes] = FILES
) -> Path:
    make_fat(
        run,
        image,
        size_bytes=size_mib * MIB,
        label=label,
        serial="0123abcd",
        files=files,
        epoch=EPOCH,
    )
    return image


@pytest.mark.parametrize(("size_mib", "version"), [(2, "FAT12"), (33, "FAT16"), (64, "FAT32")])
def test_a_file_system_is_clean_has_its_label_twice_and_its_files(
    tmp_path: Path, size_mib: int, version: str
) -> None:
    image = make(tmp_path / "esp.img", size_mib)
    assert image.stat().st_size == size_mib * MIB
    assert stat.S_IMODE(image.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["esp.img"]
    run(["fsck.fat", "-n", image])
    facts = run(["blkid", "-p", "-o", "export", image]).splitlines()
    wanted = {"LABEL=cidata", "LABEL_FATBOOT=cidata", "UUID=0123-ABCD", f"VERSION={version}"}
    assert wanted <= set(facts)
    listed = run(["mdir", "-b", "-/", "-i", image, "::"])
    for path, content in FILES.items():
        assert f"::/{path}\n" in listed
        out = tmp_path / "out"
        run(["mcopy", "-n", "-i", image, f"::/{path}", out])
        assert out.read_bytes() == content
        out.unlink()


def test_another_time_another_folder_and_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    first = make(tmp_path / "a.img", 64, "EFI").read_bytes()
    time.sleep(2.1)  # FAT counts in steps of two seconds
    (tmp_path / "other").mkdir()
    turned = dict(reversed(FILES.items()))
    second = make(tmp_path / "other" / "b.img", 64, "EFI", turned).read_bytes()
    assert first == second


def test_files_that_do_not_fit_are_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="larger than 0 MiB"):
        make_fat(
            run,
            tmp_path / "x.img",
            size_bytes=MIB // 2,
            label="x",
            serial="00000000",
            files=FILES,
            epoch=EPOCH,
        )
    assert not os.listdir(tmp_path)
