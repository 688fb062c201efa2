"""What LVM, xenstore and a tar's listing say, read; what is made of it."""

import json
from pathlib import Path

import pytest

from pipeline import process
from pipeline.errors import EnvironmentFault
from pipeline.storage import in_use
from pipeline.storage.filesystems import measure_tree
from pipeline.storage.in_use import Subject
from pipeline.storage.lvm import make_group, make_volume, parse_report
from pipeline.storage.written import BuiltDisk, Written, read_record, write_record

ROW = {
    **{"vg_name": "VG0", "lv_name": "web1-disk", "lv_uuid": "u", "lv_size": "4194304"},
    **{"lv_attr": "Vwi-a-tz--", "lv_tags": "domu:guest=web1,b", "pool_lv": "pool", "origin": ""},
    **{"data_percent": "12.50", "metadata_percent": "", "lv_kernel_major": "254"},
    **{"lv_kernel_minor": "3", "chunk_size": "0", "zero": "unknown"},
}
REPORT = '  {\n      "report": [\n          {\n              "lv": [\n %s ]}]}\n'


def test_a_report_is_read_between_lvms_warnings() -> None:
    text = "  WARNING: {odd}\n" + REPORT % json.dumps(ROW) + "  WARNING: more\n"
    (row,) = parse_report(text, "lv")
    volume = make_volume(row)
    assert (volume.size, volume.device, volume.filled) == (4 << 20, (254, 3), 12.5)
    assert volume.is_thin and not volume.is_pool
    assert volume.tags == {"domu:guest=web1", "b"}
    assert make_volume({**row, "lv_kernel_major": "-1"}).device is None


def test_no_report_is_an_error_in_lvms_words() -> None:
    with pytest.raises(EnvironmentFault, match="permission denied"):
        parse_report("  /dev/mapper/control: open failed: permission denied\n", "lv")


def test_extents_are_counted_upwards() -> None:
    row = {"vg_name": "VG0", "vg_size": "100", "vg_free": "0", "vg_extent_size": "4194304"}
    group = make_group({**row, "vg_free_count": "7"})
    assert (group.extents(1), group.extents(4 << 20), group.extents((4 << 20) + 1)) == (1, 1, 2)


# as `xenstore-ls -f /local/domain/0/backend` prints it
STORE = """\
/local/domain/0/backend = ""
/local/domain/0/backend/vbd = ""
/local/domain/0/backend/vbd/5 = ""
/local/domain/0/backend/vbd/5/51713 = ""
/local/domain/0/backend/vbd/5/51713/frontend-id = "5"
/local/domain/0/backend/vbd/5/51713/physical-device = "fe:3"
/local/domain/0/backend/vbd/5/51713/params = "/dev/VG0/web1-disk"
/local/domain/0/backend/vbd/5/51713/state = "4"
/local/domain/0/backend/qdisk/6/51714/params = "aio:/srv/swap.img"
/local/domain/0/backend/vif/5/0/bridge = "br-xen"
"""


@pytest.mark.parametrize(
    ("subject", "domains"),
    [
        (Subject(Path("/dev/other"), device=(0xFE, 3)), ["domain 5"]),
        (Subject(Path("/dev/other"), device=(0xFE, 4)), []),
        (Subject(Path("/dev/VG0/web1-disk")), ["domain 5"]),
        (Subject(Path("/srv/swap.img")), ["domain 6"]),
        (Subject(Path("/srv/swap")), []),
    ],
)
def test_domains_are_known_by_the_numbers_and_the_names_of_their_disks(
    subject: Subject, domains: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(argv: list[str], **_options: object) -> str:
        return STORE if argv[0] == "xenstore-ls" else ""

    monkeypatch.setattr(process, "run", answer)
    monkeypatch.setattr(process, "find_tool", lambda _name: "/usr/bin/xenstore-ls")
    monkeypatch.setattr(in_use, "SOCKETS", (tmp_path,))
    assert in_use.find_running(subject) == domains


def test_a_disk_and_its_partitions_are_relatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "sdb"
    (disk / "sdb1").mkdir(parents=True)
    (disk / "dev").write_text("8:16\n")
    (disk / "sdb1/dev").write_text("8:17\n")
    (disk / "sdb1/partition").write_text("1\n")
    numbers = tmp_path / "block"
    numbers.mkdir()
    (numbers / "8:16").symlink_to(disk)
    (numbers / "8:17").symlink_to(disk / "sdb1")
    monkeypatch.setattr(in_use, "_SYS", numbers)
    assert set(in_use.relatives((8, 16))) == {(8, 16), (8, 17)}
    assert set(in_use.relatives((8, 17))) == {(8, 17), (8, 16)}


LISTED = """\
drwxr-xr-x 0/0               0 2026-01-01 00:00 ./
drwxr-xr-x 0/0               0 2026-01-01 00:00 ./var/
drwxrwxrwt 0/0               0 2026-01-01 00:00 ./var/tmp/
-rw-r--r-- 0/0         5000000 2026-01-01 00:00 ./var/lib/one
-rw-r--r-- 0/0        10000000 2026-01-01 00:00 ./var/tmp/two
-rwsr-xr-x 0/0        20000000 2026-01-01 00:00 ./usr/bin/su
crw-rw-rw- 0/0             1,3 2026-01-01 00:00 ./dev/null
"""


def test_each_file_system_is_measured_by_what_lies_below_its_mount_point() -> None:
    layout = [("/", "ext4"), ("/var", "ext4"), ("/var/tmp", "xfs")]
    root, var, tmp = measure_tree(LISTED.replace("1,3", "13"), layout, 99)
    assert (root.mib, var.mib, tmp.mib) == (20, 5, 10)
    assert (root.mode, var.mode, tmp.mode) == (0o755, 0o755, 0o1777)
    assert tmp.size_mib == 320, "mkfs.xfs makes none smaller than 300 MiB"
    assert [one.mib for one in measure_tree("", [("/", "ext4")], 99)] == [99]


def test_a_record_of_volumes_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Written(4096, "00", ((0, 4096),))
    volume = BuiltDisk("disk", Path("/dev/VG0/web1-disk"), written, "u", "web1-disk.new-1")
    built = (volume, BuiltDisk("swap", Path("/dev/sdb2"), written))
    write_record(tmp_path, built)
    assert read_record(tmp_path) == built
    assert read_record(tmp_path / "absent") == ()
    told = {"size": 4096, "sha256": "00", "extents": [[0, 4096]]}
    names = {"group": "VG0", "uuid": "u", "staged": "web1-disk.new-1", "final": "web1-disk"}
    assert json.loads((tmp_path / "volumes.json").read_bytes()) == {
        "volumes": [{"part": "disk", **names, "written": told}],
        "devices": [{"part": "swap", "path": "/dev/sdb2", "written": told}],
    }
