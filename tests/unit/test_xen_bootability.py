"""The lint names what would keep a guest from booting, and is silent about a good one."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.kernel.facts import KernelFacts
from pipeline.xen.boot import Boot, Direct, Grub, Pygrub
from pipeline.xen.bootability import BootFacts, lint
from pipeline.xen.devices import Card, Disk
from pipeline.xen.domain import Domain
from pipeline.xen.grub_menu import MenuEntry
from tests.grub_menus import render_menus

DIRECT = Direct("/boot/vmlinuz", "/boot/initrd.img", "/dev/xvda1", "ro console=hvc0")
GRUB = Grub("/usr/lib/grub-xen/grub-x86_64-xen.bin")
PYGRUB = Pygrub(user="pygrub-x")
PVH_GRUB = Grub("/usr/lib/grub-xen/grub-i386-xen_pvh.bin")
NOTES = {"ENTRY": "0x1", "LOADER": "generic", "PHYS32_ENTRY": "0x1000850"}
KERNEL = KernelFacts(
    is_bzimage=True, compression="xz", elf_notes=NOTES, size=8 << 20, unpacked_size=63 << 20
)
LEGACY, MODERN = render_menus(
    [MenuEntry("Debian", "/boot/vmlinuz", "/boot/initrd.img", "root=/dev/xvda1 ro console=hvc0")]
)


def make_facts(*, boot: Boot = DIRECT, kind: str = "pv", **changes: Any) -> BootFacts:
    domain = Domain(
        name="x",
        type=kind,
        memory_mib=256,
        vcpus=1,
        boot=boot,
        disks=(Disk(target="/srv/x", vdev="xvda1"), Disk(target="/srv/s", vdev="xvda2")),
        cards=(Card(mac="00:16:3e:00:00:01"),),
    )
    fields: dict[str, Any] = {
        "domain": domain,
        "kernel": KERNEL,
        "initrd_modules": frozenset({"xen_blkfront", "ext4"}),
        "initrd_size": 6 << 20,
        "kernel_config": "CONFIG_XEN_BLKDEV_FRONTEND=m\nCONFIG_EXT4_FS=m\n",
        "fstab": "# /dev/xvda9 / ext4\n/dev/xvda1 / ext4 defaults 0 1\n",
        "gettys": ("serial-getty@hvc0.service",),
        "menus": {"/boot/grub/menu.lst": LEGACY, "/boot/grub/grub.cfg": MODERN},
        "files": frozenset({"/boot/vmlinuz", "/boot/initrd.img"}),
        "root_fs": "ext4",
        "network_names": frozenset({"eth0", "enX0"}),
        "card_names": frozenset({"enX0"}),
    }
    return BootFacts(**{**fields, **changes})


def codes(facts: BootFacts) -> list[str]:
    return [finding.subject for finding in lint(facts)]


@pytest.mark.parametrize(
    ("boot", "kind"),
    [(DIRECT, "pv"), (DIRECT, "pvh"), (PYGRUB, "pv"), (GRUB, "pv"), (PVH_GRUB, "pvh")],
)
def test_a_good_guest_has_no_findings(boot: Boot, kind: str) -> None:
    assert lint(make_facts(boot=boot, kind=kind)) == []


def test_nothing_is_said_about_what_was_not_read() -> None:
    assert lint(BootFacts(domain=make_facts().domain)) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kind": "pvh", "kernel": replace(KERNEL, elf_notes={"ENTRY": "0x1"})}, "no-pvh-note"),
        ({"kernel": replace(KERNEL, elf_notes={"PHYS32_ENTRY": "0x1"})}, "no-pv-notes"),
        ({"kernel": replace(KERNEL, elf_notes=None)}, "notes-unread"),
        ({"boot": GRUB, "kernel": replace(KERNEL, compression="lz4")}, "compression-loader"),
        ({"kernel": replace(KERNEL, compression="zstd"), "xen": "4.14"}, "compression-loader"),
        ({"kernel": replace(KERNEL, compression="unknown")}, "compression-unknown"),
        ({"initrd_modules": frozenset({"ext4"})}, "no-blkfront"),
        ({"initrd_modules": frozenset({"xen_blkfront"})}, "no-root-fs-module"),
        ({"boot": replace(DIRECT, ramdisk=None)}, "no-initrd"),
        ({"initrd_size": 60 << 20}, "memory-too-small"),
        ({"boot": replace(DIRECT, root="/dev/sda1")}, "root-not-a-disk"),
        ({"boot": replace(DIRECT, root=None), "fstab": None}, "no-root"),
        ({"fstab": "/dev/xvda2 / ext4 defaults 0 1\n"}, "root-differs-from-fstab"),
        ({"gettys": ("1:2345:respawn:/sbin/getty 38400 tty1",)}, "no-hvc0-getty"),
        ({"boot": replace(DIRECT, cmdline="ro")}, "no-console-hvc0"),
        ({"boot": PYGRUB, "menus": {}}, "menu-missing"),
        ({"boot": PYGRUB, "menus": {"/boot/grub/grub.cfg": "}\n"}}, "menu-unparsable"),
        ({"boot": PYGRUB, "menus": {"/boot/grub/grub.cfg": MODERN}, "xen": "3.2",
          "kernel": None}, "menu-missing"),
        ({"boot": PYGRUB, "files": frozenset({"/boot/initrd.img"})}, "menu-kernel-missing"),
        ({"boot": PYGRUB, "root_fs": "btrfs",
          "initrd_modules": frozenset({"btrfs", "xen_blkfront"})}, "pygrub-file-system"),
        ({"network_names": frozenset({"eth0"})}, "card-name"),
        ({"boot": Pygrub()}, "pygrub-unrestricted"),
    ],
)  # fmt: skip
def test_what_keeps_a_guest_from_booting_is_named(changes: dict[str, Any], code: str) -> None:
    assert codes(make_facts(**changes)) == [code]


def test_pvh_grub_lets_the_kernel_unpack_itself() -> None:
    kernel = replace(KERNEL, compression="lz4")
    assert codes(make_facts(boot=PVH_GRUB, kind="pvh", kernel=kernel)) == []


def test_drivers_that_are_built_in_need_not_be_in_the_initrd() -> None:
    config = "CONFIG_XEN_BLKDEV_FRONTEND=y\nCONFIG_EXT4_FS=y\n"
    assert codes(make_facts(initrd_modules=frozenset(), kernel_config=config)) == []


def test_the_disk_with_the_kernel_has_to_come_first_for_pygrub() -> None:
    facts = make_facts(boot=PYGRUB)
    swapped = replace(facts.domain, disks=facts.domain.disks[::-1])
    assert codes(replace(facts, domain=swapped)) == ["kernel-disk-not-first"]


def test_a_root_on_a_partition_of_a_whole_disk_agrees_with_it() -> None:
    domain = replace(make_facts().domain, disks=(Disk(target="/srv/x", vdev="xvda"),))
    assert codes(make_facts(domain=domain)) == []


def test_errors_come_before_warnings_and_say_what_to_do() -> None:
    facts = make_facts(boot=replace(DIRECT, cmdline="ro"), gettys=())
    findings = lint(facts)
    assert [finding.level for finding in findings] == ["error", "warning"]
    assert "getty" in str(findings[0])
    assert findings[0].hint
