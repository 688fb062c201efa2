"""A whole disk: which parts lie where on it, its table, what is refused."""

import io
import zlib

import pytest

from pipeline.errors import PipelineError
from pipeline.guest.identity import render_fstab
from pipeline.spec import Spec
from pipeline.spec.domain import command_line
from pipeline.spec.rules import find_clashes
from pipeline.storage import gpt
from pipeline.storage.boot_code import GOLDEN_ROOT, BootCode, name_root, read_boot_code
from pipeline.storage.partition_table import read_partitions
from pipeline.storage.whole_disk import lay_out
from tests.specs import make_spec

WHOLE = {"disk": "whole", "boot": "grub"}
PARTS = [
    {"name": "root", "mountpoint": "/", "size": "2G"},
    {"name": "swap", "fs": "swap", "size": "1G"},
    {"name": "var", "mountpoint": "/var", "size": "1G"},
]
BOOT_SECTOR = bytes(510) + b"\x55\xaa"


def clash(**keys: object) -> str:
    (found,) = find_clashes(make_spec(**keys))
    return f"{found.subject}: {found.message}; {found.hint}"


def test_it_is_one_disk_whose_root_lies_last() -> None:
    spec = make_spec(**WHOLE, partitions=PARTS)
    (disk,) = spec.disks
    assert [part.name for part in disk.inside] == ["swap", "var", "root"]
    assert [(part.name, part.vdev) for part in spec.parts] == [
        ("root", "xvda5"),
        ("swap", "xvda3"),
        ("var", "xvda4"),
    ]
    assert (disk.name, disk.vdev, disk.size_mib) == ("disk", "xvda", 4096 + 1 + 64 + 2)
    assert spec.layout == "/:ext4 /var:ext4"


def test_what_is_on_it_does_not_depend_on_how_it_starts() -> None:
    spec, pc = make_spec(**WHOLE), make_spec(type="hvm", boot="firmware")
    assert pc.disk == "whole"
    assert spec.nodes == pc.nodes == "disk:/dev/xvda4 swap:/dev/xvda3"
    assert command_line(spec) == command_line(pc)
    assert render_fstab(spec) == render_fstab(pc)


def test_its_fstab_names_no_device() -> None:
    lines = render_fstab(make_spec(**WHOLE)).splitlines()
    assert [line.partition("=")[0] for line in lines[:2]] == ["UUID", "UUID"]
    assert not any("/dev/" in line for line in lines)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"disk": "whole"}, "disk: a whole disk starts by its own boot loader, not as pvh by dir"),
        ({**WHOLE, "type": "pv", "kernel": "linux-image-amd64"}, "disk: a whole disk starts by it"),
        ({"disk": "whole", "type": "pv", "boot": "pygrub"}, "disk: a whole disk starts by its own"),
        ({"disk": "filesystem", "type": "hvm", "boot": "firmware"}, "disk: a PC's firmware starts"),
        ({**WHOLE, "clone": "cow"}, "clone: golden images are file systems, and a whole disk"),
        ({**WHOLE, "swap_dev": "/dev/sdb2"}, "swap_dev: swap is a partition of the whole disk"),
        (
            {**WHOLE, "partitions": [*PARTS[:2], {**PARTS[2], "device": "/dev/sdb3"}]},
            "partitions: var: device = '/dev/sdb3' although it lies on the whole disk",
        ),
    ],
)
def test_what_no_whole_disk_can_be_is_refused(keys: dict[str, object], said: str) -> None:
    assert clash(**keys).startswith(said)


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_there_is_a_loader_for_uefi_where_the_suite_has_one(arch: str) -> None:
    spec = make_spec(type="hvm", boot="firmware", arch=arch)
    assert spec.has_efi_loader is (arch == "amd64")


def table_of(spec: Spec) -> tuple[bytes, bytes, int]:
    (disk,) = spec.disks
    size = disk.size_mib << 20
    own = "11111111-2222-3333-4444-555555555555"
    entries = lay_out(spec, disk)
    return *gpt.render_table(entries, disk_uuid=own, size=size, boot=b"code"), size


def test_both_copies_of_the_table_say_the_same_and_their_checksums_hold() -> None:
    head, tail, size = table_of(make_spec(**WHOLE, size="300M", swap="1M"))
    assert (len(head), len(tail)) == (34 * 512, 33 * 512)
    assert head[:4] == b"code" and head[510:512] == b"\x55\xaa" and head[450] == 0xEE
    first, second = head[512:604], tail[-512:][:92]
    for header in (first, second):
        assert header[:8] == b"EFI PART"
        told = int.from_bytes(header[16:20], "little")
        assert zlib.crc32(header[:16] + bytes(4) + header[20:]) == told
    assert first[24:40] == second[32:40] + second[24:32], "each names the other"
    assert head[1024:] == tail[:-512]
    disk = io.BytesIO(head.ljust(size - len(tail), b"\0") + tail)
    names = [(one.label, one.start >> 20, one.size >> 20) for one in read_partitions(disk)]
    assert names == [("bios", 1, 1), ("esp", 2, 64), ("swap", 66, 1), ("root", 67, 300)]


def test_the_table_is_the_guests_own_and_always_the_same() -> None:
    one, two = table_of(make_spec(**WHOLE)), table_of(make_spec(**WHOLE))
    other = table_of(make_spec(**WHOLE, name="web2"))
    assert one == two and one[0] != other[0]


def test_grub_is_told_where_it_lies() -> None:
    code = BootCode(BOOT_SECTOR + b"G" * 1024, b"")
    boot, core = code.at(2048)
    assert boot[0x5C:0x64] == (2048).to_bytes(8, "little")
    assert core[500:508] == (2049).to_bytes(8, "little")
    assert (core[:500], core[508:]) == (b"G" * 500, b"G" * 516)


def test_what_is_no_loader_is_not_written_to_a_disk() -> None:
    def read(path: str) -> bytes:
        return b"MZ" if path.endswith(".efi") else BOOT_SECTOR + bytes(512)

    with pytest.raises(PipelineError, match=r"whole-disk\.img of the guest is no boot loader"):
        read_boot_code(read, has_efi=True)
    with pytest.raises(PipelineError, match=r"whole-disk\.efi of the guest is no boot loader"):
        read_boot_code(lambda path: BOOT_SECTOR + b"G" * 512, has_efi=True)


def test_the_menus_get_the_roots_uuid_with_the_identity() -> None:
    spec = make_spec(**WHOLE)
    files = name_root(lambda path: f"linux /vmlinuz root={GOLDEN_ROOT} ro".encode(), spec)
    uuid = render_fstab(spec).split()[0]
    assert [file.content for file in files] == [f"linux /vmlinuz root={uuid} ro".encode()] * 3
    with pytest.raises(PipelineError, match="does not name its root"):
        name_root(lambda path: b"linux /vmlinuz root=/dev/xvda1", spec)
