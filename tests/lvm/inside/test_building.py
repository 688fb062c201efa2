"""A guest onto logical volumes: thick, thin, copy-on-write, given devices."""

import os
from pathlib import Path

import pytest

from pipeline.commands.delete import delete
from pipeline.commands.options import Delete
from pipeline.errors import EnvironmentFault, InUseError, PipelineError
from pipeline.process import run
from pipeline.spec import load_all
from pipeline.storage import lvm
from pipeline.storage.golden import list_golden, remove_golden
from pipeline.storage.root_place import find_root
from tests import small, whole_disk
from tests.lvm.inside.conftest import make_project, remove_guests

MIB = 1 << 20
WHOLE = 'disk = "whole"\nboot = "grub"\n'
WHOLE_MIB = 256 + 2 + 1 + 64 + 2  # root, swap, GRUB for BIOS, the ESP, the table


def test_a_guest_gets_its_volumes_and_its_configuration_names_them(
    group: str, tmp_path: Path
) -> None:
    project = make_project(tmp_path, "web1", text='type = "pv"\nlvm = "VG0"\n')
    folder = small.build(project, "web1")
    disk = Path("/dev/VG0/web1-disk")
    assert small.version_of(disk) == "1"
    assert "/dev/xvda1 / ext4" in run(["debugfs", "-R", "cat /etc/fstab", disk])
    assert run(["blkid", "-o", "value", "-s", "TYPE", "/dev/VG0/web1-swap"]).strip() == "swap"
    text = (folder / "web1.cfg").read_text()
    assert "target=/dev/VG0/web1-disk" in text and "target=/dev/VG0/web1-swap" in text
    assert "phy:/dev/VG0/web1-disk,xvda1,w" in (folder / "web1.xm").read_text()
    assert not list(folder.glob("disk*"))
    assert {found.name for found in lvm.list_volumes(run)} == {"web1-disk", "web1-swap"}
    remove_guests(project)


def asked(name: str, *yes: str) -> Delete:
    return Delete.model_validate({"name": name, **dict.fromkeys(yes, True)})


def test_a_deleted_guest_takes_its_volumes_along_and_no_others(group: str, tmp_path: Path) -> None:
    project = make_project(tmp_path, "web1", "web2", text='lvm = "VG0"\n')
    for name in ("web1", "web2"):
        small.build(project, name)
    recipe, specs = small.make_recipe(project), load_all(project.guests)
    disk, point = Path("/dev/VG0/web1-disk"), tmp_path / "mnt"
    point.mkdir()
    run(["mount", disk, point])
    with pytest.raises(InUseError, match="file system mounted on"):
        delete(recipe, specs, asked("web1", "yes"))
    run(["umount", point])
    with pytest.raises(InUseError, match="lose what cannot be made again") as caught:
        delete(recipe, specs, asked("web1"))
    assert f"{disk}: its guest has written to it" in caught.value.details
    assert small.version_of(disk) == "1"
    delete(recipe, specs, asked("web1", "yes"))
    assert {found.name for found in lvm.list_volumes(run)} == {"web2-disk", "web2-swap"}
    assert not project.artifact("web1").exists()
    delete(recipe, specs, asked("web2"))
    assert not lvm.list_volumes(run)


def test_a_rebuilt_guest_takes_the_place_of_the_old_one_if_nobody_minds(
    group: str, tmp_path: Path
) -> None:
    project = make_project(tmp_path, "web1", text='lvm = "VG0"\n')
    small.build(project, "web1", "1")
    disk, point = Path("/dev/VG0/web1-disk"), tmp_path / "mnt"
    before = lvm.find_volume(run, group, "web1-disk")
    small.build(project, "web1", "2")
    after = lvm.find_volume(run, group, "web1-disk")
    assert before and after and before.uuid != after.uuid
    assert small.version_of(disk) == "2"

    with open(disk, "rb"), pytest.raises(InUseError, match="openers in device-mapper's count"):
        # the opener is this process itself, which only device-mapper counts
        small.build(project, "web1", "3", replace=True)

    point.mkdir()
    run(["mount", disk, point])
    run(["umount", point])
    with pytest.raises(InUseError, match="has written to it"):
        small.build(project, "web1", "3")
    assert small.version_of(disk) == "2"
    small.build(project, "web1", "3", replace=True)
    assert small.version_of(disk) == "3"
    assert {found.name for found in lvm.list_volumes(run)} == {"web1-disk", "web1-swap"}
    remove_guests(project)


def test_a_volume_that_is_not_ours_is_never_overwritten(group: str, tmp_path: Path) -> None:
    foreign = lvm.create_volume(run, group, "web1-disk", size_bytes=MIB)
    project = make_project(tmp_path, "web1", text='lvm = "VG0"\n')
    for replace in (False, True):
        with pytest.raises(InUseError, match="exists and was not made for web1"):
            small.build(project, "web1", replace=replace)
    assert [found.uuid for found in lvm.list_volumes(run)] == [foreign.uuid]
    lvm.remove_volume(run, foreign)


def test_what_cannot_fit_is_refused_before_anything_is_made(group: str, tmp_path: Path) -> None:
    project = make_project(tmp_path, "web1", text='lvm = "VG0"\n', size="2G")
    with pytest.raises(EnvironmentFault, match="VG0 has .* MiB free, the guest's new volumes need"):
        small.build(project, "web1")
    make_project(tmp_path, "web1", text='lvm = "VG9"\n')
    with pytest.raises(EnvironmentFault, match="no volume group 'VG9'"):
        small.build(project, "web1")
    assert lvm.list_volumes(run) == []


def test_thin_volumes_take_what_is_written(group: str, pool: str, tmp_path: Path) -> None:
    text = 'lvm = "VG0"\nlvm_thin = "pool"\n'
    project = make_project(tmp_path, "web1", text=text, size="256M")
    small.build(project, "web1")
    found = lvm.find_volume(run, group, "web1-disk")
    assert found is not None and found.is_thin and found.size == 256 * MIB and found.filled < 10
    assert small.version_of(found.path) == "1"
    remove_guests(project)


def mount_root(disk: Path, point: Path) -> None:
    """The last partition, as its guest would."""
    root = find_root(disk, is_whole=True)
    run(["mount", "-o", ",".join(root.mount_options), disk, point])


def test_a_whole_disk_is_one_volume_that_is_built_again_and_removed(
    group: str, tmp_path: Path
) -> None:
    project = make_project(tmp_path, "web1", text=f'lvm = "VG0"\n{WHOLE}')
    folder = small.build(project, "web1", "1")
    disk, point = Path("/dev/VG0/web1-disk"), tmp_path / "mnt"
    assert "target=/dev/VG0/web1-disk" in (folder / "web1.cfg").read_text()
    assert [found.name for found in lvm.list_volumes(run)] == ["web1-disk"]
    assert lvm.list_volumes(run)[0].size == WHOLE_MIB * MIB
    assert (small.version_of(disk), whole_disk.is_sound(disk)) == ("1", True)
    small.build(project, "web1", "2")
    assert small.version_of(disk) == "2"
    point.mkdir()
    mount_root(disk, point)
    recipe, specs = small.make_recipe(project), load_all(project.guests)
    with pytest.raises(InUseError, match="web1-disk"):
        small.build(project, "web1", "3", replace=True)
    with pytest.raises(InUseError, match="web1-disk"):
        delete(recipe, specs, asked("web1", "yes"))
    run(["umount", point])
    with pytest.raises(InUseError, match="has written to it"):
        small.build(project, "web1", "3")
    small.build(project, "web1", "3", replace=True)
    assert (small.version_of(disk), whole_disk.is_sound(disk)) == ("3", True)
    delete(recipe, specs, asked("web1"))
    assert lvm.list_volumes(run) == []


def test_a_whole_disk_in_a_pool_takes_what_is_written(
    group: str, pool: str, tmp_path: Path
) -> None:
    text = f'lvm = "VG0"\nlvm_thin = "pool"\n{WHOLE}'
    project = make_project(tmp_path, "web1", text=text)
    for version in ("1", "2"):
        small.build(project, "web1", version)
        found = lvm.find_volume(run, group, "web1-disk")
        assert found is not None and found.is_thin and found.size == WHOLE_MIB * MIB
        assert found.filled < 10
        assert (small.version_of(found.path), whole_disk.is_sound(found.path)) == (version, True)
    remove_guests(project)


def test_the_table_of_a_whole_disk_ends_where_its_volume_does(tmp_path: Path) -> None:
    """A volume has whole extents: the second copy belongs at the end of the last one."""
    run(["pvcreate", "-q", "-f", "-y", "/dev/ubdc"])
    run(["vgcreate", "-s", "16M", "VG1", "/dev/ubdc"])
    try:
        project = make_project(tmp_path, "web1", text=f'lvm = "VG1"\n{WHOLE}')
        small.build(project, "web1")
        (found,) = lvm.list_volumes(run, "VG1")
        assert found.size == 336 * MIB > WHOLE_MIB * MIB
        assert (small.version_of(found.path), whole_disk.is_sound(found.path)) == ("1", True)
        small.build(project, "web1", "2")
        (found,) = lvm.list_volumes(run, "VG1")
        assert (small.version_of(found.path), whole_disk.is_sound(found.path)) == ("2", True)
        remove_guests(project)
    finally:
        run(["vgremove", "-f", "VG1"])
        run(["pvremove", "/dev/ubdc"])


def test_a_given_device_is_a_whole_disk(tmp_path: Path) -> None:
    device, point = Path("/dev/ubdc"), tmp_path / "mnt"
    project = make_project(tmp_path, "web1", text=f'image_dev = "{device}"\n{WHOLE}')
    folder = small.build(project, "web1", replace=True)
    assert f"target={device}" in (folder / "web1.cfg").read_text()
    for version in ("1", "2"):
        small.build(project, "web1", version)
        assert (small.version_of(device), whole_disk.is_sound(device)) == (version, True)
    point.mkdir()
    mount_root(device, point)
    with pytest.raises(InUseError, match="ubdc"):
        small.build(project, "web1", "3", replace=True)
    run(["umount", point])
    with pytest.raises(InUseError, match="holds"):
        small.build(project, "web1", "3")
    small.build(project, "web1", "3", replace=True)
    assert small.version_of(device) == "3"
    large = make_project(tmp_path, "web1", text=f'image_dev = "{device}"\n{WHOLE}', size="700M")
    with pytest.raises(EnvironmentFault, match="has 768 MiB, the guest asks for 769") as caught:
        small.build(large, "web1")
    assert "size=699M" in caught.value.hint
    assert small.version_of(device) == "3"


def test_a_disk_of_large_sectors_is_no_whole_disk(tmp_path: Path) -> None:
    """The table would name other sectors than those that its readers count."""
    file = tmp_path / "disk"
    file.write_bytes(b"")
    os.truncate(file, 400 * MIB)
    loop = run(["losetup", "--find", "--show", "--sector-size", "4096", file]).strip()
    try:
        project = make_project(tmp_path, "web1", text=f'image_dev = "{loop}"\n{WHOLE}')
        with pytest.raises(EnvironmentFault, match="sectors of 4096 bytes"):
            small.build(project, "web1")
        assert Path(loop).read_bytes()[: 1 * MIB].strip(b"\0") == b""
    finally:
        run(["losetup", "--detach", loop])


def test_copy_on_write_guests_are_snapshots_with_an_identity_of_their_own(
    group: str, pool: str, tmp_path: Path
) -> None:
    text = 'lvm = "VG0"\nlvm_thin = "pool"\nclone = "cow"\n'
    project = make_project(tmp_path, "web1", "web2", text=text)
    seen = []
    for name in ("web1", "web2"):
        small.build(project, name)
        disk = Path(f"/dev/VG0/{name}-disk")
        assert small.version_of(disk) == "1"
        facts = run(["debugfs", "-R", "cat /etc/machine-id", disk]).splitlines()[-1]
        seen.append((facts, run(["blkid", "-o", "value", "-s", "UUID", disk]).strip()))
        volume = lvm.find_volume(run, group, f"{name}-disk")
        assert volume is not None and volume.size == 256 * MIB
        assert volume.origin.startswith("domu-golden-")
    assert len({fact for pair in seen for fact in pair}) == 4
    ((golden, clones),) = list_golden(run).items()
    assert clones == ("web1-disk", "web2-disk")
    with pytest.raises(InUseError, match="golden image of web1-disk, web2-disk"):
        remove_golden(run, golden)
    remove_guests(project)
    (golden,) = list_golden(run)
    remove_golden(run, golden)


def test_a_pool_that_does_not_zero_its_blocks_is_refused(
    group: str, pool: str, tmp_path: Path
) -> None:
    run(["lvchange", "--zero", "n", f"{group}/{pool}"])
    text = 'lvm = "VG0"\nlvm_thin = "pool"\n'
    project = make_project(tmp_path, "web1", text=text)
    with pytest.raises(EnvironmentFault, match="hands out blocks that still hold"):
        small.build(project, "web1")
    run(["lvchange", "--zero", "y", f"{group}/{pool}"])


def test_a_given_device_is_written_whole_and_kept_from_others(tmp_path: Path) -> None:
    device = Path("/dev/ubdc")
    run(["mke2fs", "-q", "-F", device])
    project = make_project(tmp_path, "web1", text=f'image_dev = "{device}"\n')
    with pytest.raises(InUseError, match="holds a ext2 file system"):
        small.build(project, "web1")
    folder = small.build(project, "web1", replace=True)
    assert small.version_of(device) == "1"
    assert f"target={device}" in (folder / "web1.cfg").read_text()
    small.build(project, "web1", "2")
    assert small.version_of(device) == "2"


@pytest.mark.parametrize(
    ("device", "message"), [("/dev/absent", "No such file"), ("/dev/null", "no block device")]
)
def test_what_is_no_device_is_told(tmp_path: Path, device: str, message: str) -> None:
    project = make_project(tmp_path, "web1", text=f'image_dev = "{device}"\n')
    with pytest.raises(PipelineError, match=message):
        small.build(project, "web1")


def test_a_read_only_or_small_device_is_told(group: str, tmp_path: Path) -> None:
    volume = lvm.create_volume(run, group, "given", size_bytes=300 * MIB)
    project = make_project(tmp_path, "web1", text=f'image_dev = "{volume.path}"\n')
    run(["blkdiscard", "-z", volume.path])
    run(["blockdev", "--setro", volume.path])
    with pytest.raises(EnvironmentFault, match="read only"):
        small.build(project, "web1")
    run(["blockdev", "--setrw", volume.path])
    make_project(tmp_path, "web1", text=f'image_dev = "{volume.path}"\n', size="301M")
    with pytest.raises(EnvironmentFault, match="has 300 MiB, the guest asks for 301 MiB"):
        small.build(project, "web1")
    lvm.remove_volume(run, volume)
