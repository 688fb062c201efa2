"""Surveys of small trees made by hand, and the changes that mend them."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from pipeline.foreign.card_names import find_lost_card
from pipeline.foreign.changes import from_order
from pipeline.foreign.mend import Change, Wanted, apply_changes, find_trouble, plan_changes
from pipeline.foreign.root_tree import RootTree, from_json, survey
from pipeline.kernel.cpio import Archive, compress
from pipeline.walls.beneath import Beneath
from tests.elements.small_tree import take_picture
from tests.unit.test_kernel_image import make_bzimage, make_elf, xz

PVH_NOTE, INFO = 18, 0
ELF = b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00" + bytes(40)
KVM = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
    "etc/hostname": "# a name\nweb\n",
    "sbin/init": "-> /lib/systemd/systemd",
    "lib": "-> usr/lib",
    "usr/lib/systemd/systemd": ELF.decode("latin-1"),
    "etc/fstab": (
        "# made by an installer\n/dev/vda1 / ext4 errors=remount-ro 0 1\n"
        "UUID=aaaa-bbbb /home ext4 defaults 0 2\n/dev/vda5\tnone\tswap\tsw 0 0\n"
        "/dev/sdc1 /backup xfs defaults 0 0\n/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n"
    ),
    "etc/network/interfaces": (
        "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n"
        "allow-hotplug ens3\niface ens3 inet static\n    address 192.0.2.5/24\n"
        "    gateway 192.0.2.1\n"
    ),
    "etc/udev/rules.d/70-persistent-net.rules": 'SUBSYSTEM=="net", NAME="eth0"\n',
    "etc/initramfs-tools/modules": "# none\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n',
    "boot/grub/grub.cfg": (
        "menuentry 'Debian' --class debian {\n\tinsmod gzio\n"
        "\tlinux\t/boot/vmlinuz-6.1.0-56-amd64 root=/dev/vda1 ro  quiet\n"
        "\tinitrd\t/boot/initrd.img-6.1.0-56-amd64\n}\n"
    ),
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/shadow": "root:$6$salt$hash:19000:0:99999:7:::\ndaemon:*:19000::::::\nme::19000::::::\n",
    "etc/ssh/ssh_host_rsa_key": "a key\n",
    "root/.bash_history": "passwd\n",
    "root/.ssh/id_rsa": "a key\n",
    "home/me/.ssh/authorized_keys": "a key\n",
    "usr/lib/modules/6.1.0-56-amd64/modules.dep": (
        "kernel/xen-blkfront.ko:\nkernel/ext4.ko: kernel/crc16.ko\nkernel/crc16.ko:\n"
    ),
    "usr/lib/modules/6.1.0-56-amd64/modules.builtin": "kernel/fs/proc.ko\n",
    "usr/lib/modules/6.1.0-56-amd64/kernel/xen-blkfront.ko": "driver",
    "usr/lib/modules/6.1.0-56-amd64/kernel/ext4.ko": "files",
    "usr/lib/modules/6.1.0-56-amd64/kernel/crc16.ko": "sums",
}


def lay_out(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            place.symlink_to(content.removeprefix("-> "))
        else:
            place.write_bytes(content if isinstance(content, bytes) else content.encode("latin-1"))
    return folder


def make_initrd(*modules: str) -> bytes:
    archive = Archive()
    for name in modules:
        archive.add_file(f"lib/modules/1/{name}.ko", b"driver")
    return compress(archive.pack())


def make_kernel(*, pvh: bool = True) -> bytes:
    return make_bzimage(xz(make_elf([(PVH_NOTE if pvh else INFO, b"\1\0\0\0")])) + b"size")


def make_kvm(folder: Path, *, pvh: bool = True, drivers: tuple[str, ...] = ("virtio_blk",)) -> Path:
    boot = {
        "boot/vmlinuz-6.1.0-56-amd64": make_kernel(pvh=pvh),
        "boot/initrd.img-6.1.0-56-amd64": make_initrd(*drivers),
        "boot/vmlinuz-6.1.0-56-amd64.dpkg-new": b"left",
    }
    return lay_out(folder, {**KVM, **boot})


def look(folder: Path) -> RootTree:
    with Beneath(folder, mounts=True) as tree:
        found = survey(tree)
    assert from_json(json.dumps(asdict(found))) == found
    return found


def becomes(changes: list[Change], path: str) -> str:
    return next(change.becomes or "" for change in changes if change.path == path)


WANTED = Wanted(nodes={"/": "/dev/xvda1", "swap": "/dev/xvda2"})


def test_a_debian_of_a_kvm_host_is_surveyed(tmp_path: Path) -> None:
    tree = look(make_kvm(tmp_path))
    assert (tree.os_id, tree.os_version, tree.init, tree.arch) == (
        "debian",
        "12",
        "systemd",
        "amd64",
    )
    assert (tree.hostname, tree.network, tree.interfaces) == ("web", "ifupdown", ("ens3",))
    assert [(kernel.has_pvh_note, kernel.blkfront) for kernel in tree.kernels] == [
        (True, "modules")
    ]
    assert [line.mountpoint for line in tree.fstab] == [
        *("/", "/home", "none", "/backup", "/media/cdrom0")
    ]
    assert tree.passwords == ("root", "me")
    assert "/root/.bash_history" in tree.secrets and "/etc/shadow" not in tree.texts
    assert "/boot/grub/grub.cfg" in tree.menus


def test_what_a_kvm_guest_lacks_is_found_and_planned(tmp_path: Path) -> None:
    tree = look(make_kvm(tmp_path))
    found = {finding.subject: finding.level for finding in find_trouble(tree, WANTED)}
    assert found == dict.fromkeys(["fstab", "initrd", "menu", "card-name"], "warning")
    changes = plan_changes(tree, WANTED)
    assert becomes(changes, "/etc/fstab").splitlines() == [
        *("# made by an installer", "/dev/xvda1 / ext4 errors=remount-ro 0 1"),
        *("UUID=aaaa-bbbb /home ext4 defaults 0 2", "/dev/xvda2\tnone\tswap\tsw 0 0"),
        "# not there under Xen: /dev/sdc1 /backup xfs defaults 0 0",
        "/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0",
    ]
    menu = becomes(changes, "/boot/grub/grub.cfg")
    assert "vmlinuz-6.1.0-56-amd64 root=/dev/xvda1 ro quiet console=hvc0\n" in menu
    assert "initrd\t/boot/initrd.img-6.1.0-56-amd64.xen\n" in menu
    cards = becomes(changes, "/etc/network/interfaces")
    assert "allow-hotplug eth0 enX0\n" in cards and "ens3" not in cards
    assert "iface eth0 inet static\n    address 192.0.2.5/24\n    gateway 192.0.2.1\n" in cards
    assert "iface enX0 inet static\n    address 192.0.2.5/24\n    gateway 192.0.2.1\n" in cards
    assert "console=hvc0" in becomes(changes, "/etc/default/grub")
    assert [change.how for change in changes if "persistent" in change.path] == ["remove"]


def test_changes_are_made_and_nothing_else(tmp_path: Path) -> None:
    folder = make_kvm(tmp_path / "tree")
    changes = plan_changes(look(folder), WANTED)
    before = take_picture(folder)
    room = tmp_path / "room"
    room.mkdir()
    with Beneath(folder) as tree:
        again = [from_order(json.loads(json.dumps(asdict(change)))) for change in changes]
        apply_changes(tree, again, time_s=1, busybox=b"\x7fELF", room=room)
    after = take_picture(folder)
    touched = {f"/{path}" for path in before.keys() | after if before.get(path) != after.get(path)}
    assert touched == {change.path for change in changes}
    mended = look(folder)
    assert not [change for change in plan_changes(mended, WANTED) if change.how == "text"]
    assert mended.kernels[0].initrd.endswith("amd64")


def test_a_file_that_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    folder = make_kvm(tmp_path)
    changes = plan_changes(look(folder), WANTED)
    (folder / "etc/fstab").write_text("/dev/vda9 / ext4 defaults 0 1\n")
    with Beneath(folder) as tree, pytest.raises(VerificationError, match="/etc/fstab is not what"):
        apply_changes(tree, changes)


def test_secrets_go_or_are_named_where_the_guest_is_another(tmp_path: Path) -> None:
    folder = make_kvm(tmp_path)
    wanted = Wanted(nodes={"/": "/dev/xvda1"}, secrets="replaced", network="replaced")
    tree = look(folder)
    changes = [change for change in plan_changes(tree, wanted) if change.how != "initrd"]
    named = [
        finding.message for finding in find_trouble(tree, wanted) if finding.subject == "secret"
    ]
    assert "/root/.ssh/id_rsa came along" in named
    with Beneath(folder) as beneath:
        apply_changes(beneath, changes, time_s=1)
    assert (folder / "etc/machine-id").read_text() == ""
    assert (folder / "root/.ssh/id_rsa").exists()
    for gone in ("root/.bash_history", "home/me/.ssh/authorized_keys", "etc/ssh/ssh_host_rsa_key"):
        assert not (folder / gone).exists()
    assert (folder / "etc/shadow").read_text().splitlines() == [
        *("root:!:19000:0:99999:7:::", "daemon:*:19000::::::", "me:!:19000::::::")
    ]
    assert "hash" not in json.dumps([change.as_json() for change in changes])
    assert (folder / "etc/network/interfaces").read_text() == "auto lo\niface lo inet loopback\n"


def test_what_cannot_be_mended_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    tree = look(make_kvm(tmp_path / "old", pvh=False))
    errors = [finding for finding in find_trouble(tree, WANTED) if finding.level == "error"]
    assert [finding.subject for finding in errors] == ["no-pvh-note"]
    assert "kernel=" in errors[0].hint
    empty = look(lay_out(tmp_path / "empty", {"etc/fstab": "\xff\n"}))
    errors = [finding for finding in find_trouble(empty, WANTED) if finding.level == "error"]
    assert [finding.subject for finding in errors] == ["no-init", "arch", "no-kernel"]
    ours = Wanted(kernel="ours", boot="direct")
    assert not [found for found in find_trouble(tree, ours) if found.level == "error"]


INITTAB = "id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 tty1\n"


@pytest.mark.parametrize(
    ("files", "init", "line"),
    [
        ({"etc/inittab": INITTAB}, "sysvinit", "h0:2345:respawn:/sbin/getty 38400 hvc0"),
        (
            {"etc/inittab": "tty1::respawn:/sbin/getty 38400 tty1\n", "sbin/openrc": "x"},
            "openrc",
            "hvc0::respawn:/sbin/getty -L 0 hvc0 vt100",
        ),
    ],
)
def test_the_console_gets_a_login(
    tmp_path: Path, files: dict[str, str], init: str, line: str
) -> None:
    tree = look(lay_out(tmp_path, {**files, "sbin/init": "ELF", "etc/securetty": "tty1\n"}))
    assert tree.init == init
    changes = plan_changes(tree, Wanted())
    assert becomes(changes, "/etc/inittab").splitlines()[-1] == line
    assert becomes(changes, "/etc/securetty") == "tty1\nhvc0\n"


NETPLAN = """network:
  version: 2
  ethernets:
    ens3:
      dhcp4: true
    ens4:
      addresses: [192.0.2.9/24]
"""


def test_netplan_networkd_and_network_manager_cover_both_names(tmp_path: Path) -> None:
    base = {"sbin/init": "-> ../lib/systemd/systemd", "lib/systemd/systemd": "ELF"}
    tree = look(lay_out(tmp_path / "a", {**base, "etc/netplan/50-cloud-init.yaml": NETPLAN}))
    assert (tree.network, tree.interfaces) == ("netplan", ("ens3", "ens4"))
    text = becomes(plan_changes(tree, Wanted(cards=2)), "/etc/netplan/50-cloud-init.yaml")
    assert '    ens3:\n      match:\n        name: "e[tn][hX]0"\n      dhcp4: true\n' in text
    assert 'name: "e[tn][hX]1"\n      addresses' in text
    unit = "[Match]\nName=ens3\n[Network]\nDHCP=yes\n"
    tree = look(lay_out(tmp_path / "b", {**base, "etc/systemd/network/lan.network": unit}))
    text = becomes(plan_changes(tree, Wanted()), "/etc/systemd/network/lan.network")
    assert "Name=eth0 enX0 ens3\n" in text
    keyfile = "[connection]\nid=lan\ninterface-name=ens3\n\n[ipv4]\nmethod=auto\n"
    path = "etc/NetworkManager/system-connections/lan.nmconnection"
    tree = look(lay_out(tmp_path / "c", {**base, path: keyfile}))
    text = becomes(plan_changes(tree, Wanted()), f"/{path}")
    assert text.endswith("method=auto\n\n[match]\ninterface-name=eth0;enX0;\n")
    assert "interface-name=ens3" not in text


def test_entries_of_the_boot_loader_specification_are_mended_and_rendered(tmp_path: Path) -> None:
    entry = "title X\nlinux /vmlinuz-6.9\ninitrd /initramfs-6.9.img\noptions root=/dev/vda2 ro\n"
    files: dict[str, str | bytes] = {
        "sbin/init": "-> ../lib/systemd/systemd",
        "lib/systemd/systemd": "ELF",
        "etc/os-release": "ID=other\nPRETTY_NAME='Other $(reboot) 1'\n",
        "boot/loader/entries/a.conf": entry,
        "boot/grub2/grub.cfg": "insmod blscfg\nblscfg\n",
        "boot/vmlinuz-6.9": make_kernel(),
        "boot/initramfs-6.9.img": make_initrd("xen-blkfront"),
        "boot/vmlinuz-6.10": make_kernel(pvh=False),
    }
    tree = look(lay_out(tmp_path, files))
    changes = plan_changes(tree, WANTED)
    assert "options root=/dev/xvda1 ro console=hvc0" in becomes(
        changes, "/boot/loader/entries/a.conf"
    )
    menu = becomes(changes, "/boot/grub/grub.cfg")
    assert menu.count("menuentry ") == 1
    assert "linux /boot/vmlinuz-6.9 root=/dev/xvda1 ro console=hvc0" in menu
    assert "initrd /boot/initramfs-6.9.img\n" in menu
    assert 'menuentry "Other (reboot) 1, ' in menu


MKCONFIG = """if [ -s $prefix/grubenv ]; then
  load_env
fi
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
\tload_video
\tset root='hd0,msdos1'
\tsearch --no-floppy --fs-uuid --set=root 1-2
\tlinux\t/vmlinuz-6.1.0-56-amd64 root=UUID=1-2 ro quiet
\tinitrd\t/initrd.img-6.1.0-56-amd64
}
"""


def test_a_menu_that_searches_for_lost_disks_is_written_anew(tmp_path: Path) -> None:
    make_kvm(tmp_path)
    (tmp_path / "boot/grub/grub.cfg").write_text(MKCONFIG)
    tree = look(tmp_path)
    anew = Wanted(nodes=WANTED.nodes, keeps_uuids=False)
    text = becomes(plan_changes(tree, anew), "/boot/grub/grub.cfg")
    assert "search" not in text and "linux /boot/vmlinuz-6.1.0-56-amd64 root=/dev/xvda1" in text
    assert "initrd /boot/initrd.img-6.1.0-56-amd64.xen\n" in text
    kept = becomes(plan_changes(tree, WANTED), "/boot/grub/grub.cfg")
    assert "search" in kept and "root=UUID=1-2 ro quiet console=hvc0" in kept


def test_a_guest_that_is_another_is_entered_with_keys_alone(tmp_path: Path) -> None:
    (make_kvm(tmp_path) / "etc/ssh/sshd_config.d").mkdir()
    path, tree = "/etc/ssh/sshd_config.d/00-domu.conf", look(tmp_path)
    assert "PasswordAuthentication no" in becomes(
        plan_changes(tree, Wanted(secrets="replaced")), path
    )
    assert not [change for change in plan_changes(tree, WANTED) if change.path == path]


def test_hostile_trees_are_read_with_bounds(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "sbin/init": "-> ../../../../../../../etc/passwd",
        "etc/fstab": "-> fstab",
        "etc/inittab": b"getty" * (1 << 19),
        "etc/network/interfaces": "-> /dev/zero",
        "boot/vmlinuz-1": b"no kernel",
        "boot/vmlinuz-2": "-> /proc/self/mem",
        "etc/netplan/a.yaml": "ethernets: {a: &a [*a]}\n",
    }
    tree = look(lay_out(tmp_path, files))
    assert (tree.init, tree.fstab, tree.network) == ("other", (), "netplan")
    assert any("longer than" in fault for fault in tree.unread)
    assert [kernel.compression for kernel in tree.kernels] == ["unknown"]
    plan_changes(tree, WANTED)


def test_a_boot_that_was_a_disk_of_its_own_gets_a_menu_with_its_new_paths(tmp_path: Path) -> None:
    folder = make_kvm(tmp_path)
    (folder / "boot/grub/grub.cfg").write_text(
        "menuentry 'x' {\n linux /vmlinuz-6.1.0-56-amd64 root=/dev/vda2\n}\n"
    )

    changes = plan_changes(look(folder), Wanted(keeps_uuids=False, merged=("/boot",)))

    menu = becomes(changes, "/boot/grub/grub.cfg")
    assert "linux /boot/vmlinuz-6.1.0-56-amd64 root=/dev/xvda1" in menu
    assert "initrd /boot/initrd.img-6.1.0-56-amd64.xen" in menu


UDEV = "usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-{}.so"
BOTH = "allow-hotplug eth0 enX0\niface eth0 inet dhcp\niface enX0 inet dhcp\n"
ETH, ENX = (f"auto {name}\niface {name} inet dhcp\n" for name in ("eth0", "enX0"))
NAMELESS = "kernel /boot/vmlinuz root=/dev/xvda2 ro net.ifnames=0\n"


@pytest.mark.parametrize(
    ("udev", "interfaces", "more", "name"),
    [
        (252, ETH, {}, "enX0"),
        (249, ETH, {}, ""),
        (247, ENX, {}, "eth0"),
        (252, ENX, {}, ""),
        (252, BOTH, {}, ""),
        (252, "auto lo\niface lo inet loopback\n", {}, ""),
        (252, ETH, {"boot/grub/menu.lst": NAMELESS}, ""),
        (257, ETH, {"etc/systemd/network/99-default.link": "-> /dev/null"}, ""),
        (257, ENX, {"etc/systemd/network/99-default.link": "-> /dev/null"}, "eth0"),
        (257, ETH, {"etc/udev/rules.d/80-net-setup-link.rules": ""}, ""),
        (257, ETH, {"etc/systemd/network/10-card.link": "[Link]\nName=lan\n"}, ""),
        (257, ETH, {"etc/udev/rules.d/70-persistent-net.rules": "# of squeeze\n"}, ""),
    ],
)
def test_a_card_that_will_be_called_otherwise(
    tmp_path: Path, udev: int, interfaces: str, more: Mapping[str, str], name: str
) -> None:
    files = {UDEV.format(udev): "", "etc/network/interfaces": interfaces, **more}
    tree = look(lay_out(tmp_path, {"etc/udev/udev.conf": "", **files}))
    assert find_lost_card(tree, "") == name
    assert find_lost_card(tree, "net.ifnames=0") == ("eth0" if interfaces == ENX else "")


def test_the_folder_of_a_new_folder_keeps_its_time(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    os.utime(tmp_path / "boot", (1_600_000_000, 1_600_000_000))
    change = Change(code="menu", path="/boot/grub/x/grub.cfg", becomes="a\n", why="it is new")

    with Beneath(tmp_path) as tree:
        apply_changes(tree, [change], time_s=1_700_000_000)

    times = [(tmp_path / name).stat().st_mtime for name in ("boot", "boot/grub", "boot/grub/x")]
    assert times == [1_600_000_000, 1_700_000_000, 1_700_000_000]
