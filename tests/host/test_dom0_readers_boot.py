"""The host's own programs read what `boot`, `toolstack` and `lvm` render: bookworm's and trixie's.

Each release's tree is one that this pipeline builds, with Debian's GRUB, Xen, LVM and OpenSSH in
it; its kernel alone is an empty file with a configuration. GRUB legacy's update-grub is bookworm's
own package, run on a menu of lenny.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.dom0.doctor.facts import read_facts
from pipeline.dom0.doctor.pitfalls import find_pitfalls
from pipeline.dom0.layout import Layout
from pipeline.dom0.setup import grub
from pipeline.dom0.setup.boot_files import BOOT
from pipeline.dom0.setup.host_change import apply_change, changing_host, find_edited, undo_change
from pipeline.dom0.setup.host_file import Part
from pipeline.dom0.setup.host_plan import plan_change
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.lvm_files import LVM
from pipeline.dom0.setup.reader import read_by
from pipeline.dom0.setup.toolstack_files import TOOLSTACK
from pipeline.errors import Finding
from pipeline.namespace import is_root
from pipeline.store.store import Store
from tests.conftest import require
from tests.host.test_xl_real_parser import STAND_IN
from tests.turns import spread
from tests.unit.test_dom0_boot_files import INITTAB, MENU_LST, OURS, make_host, settings
from tests.workshop import Workshop

pytestmark = pytest.mark.integration
PARTS = (BOOT, TOOLSTACK, LVM)
XEN = {"bookworm": "4.17", "trixie": "4.20"}
ABI = "6.1.0-99-amd64"
WANTED = HostSettings.model_validate(
    {
        "boot": {"dom0_mem": "1G", "dom0_max_vcpus": 2, "serial": "com2"},
        "guests": {"migrate_to": "peer"},
        "lvm": {"groups": ["VG0", "my-vg.1"]},
        "migration": {"hosts": ["peer", "192.0.2.7"]},
    }
)
TOML = """suite = "{suite}"
size = "3G"
packages = [
    "grub-common", "grub2-common", "lvm2", "openssh-client", "xen-hypervisor-{xen}-amd64",
    "xen-hypervisor-common", "xen-utils-{xen}", "xen-utils-common",
]
"""


@pytest.fixture(scope="module", params=spread(XEN, 4))
def tree(
    request: pytest.FixtureRequest, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """That release with Xen's packages, as a folder; xl finds a hypervisor that is none."""
    require(is_root(), "changes the root of what it runs")
    suite, room = request.param, tmp_path_factory.mktemp("host")
    (room / "guests").mkdir()
    name = f"readers-{suite}"
    (room / "guests" / f"{name}.toml").write_text(TOML.format(suite=suite, xen=XEN[suite]))
    artifact = Workshop(workshop.output, room / "guests").built(name)
    record = json.loads((artifact / "stages.json").read_text())["rootfs"]
    store = Store(workshop.output / "store")
    archive = store.location("rootfs", record["fingerprint"]) / "rootfs.tar"
    root = room / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", root, "--numeric-owner"], check=True)
    (root / "boot/grub").mkdir()
    for path, text in {
        f"boot/vmlinuz-{ABI}": "",
        f"boot/config-{ABI}": "CONFIG_XEN_DOM0=y\n",
        "etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="console=ttyS1 quiet a=*"\n',
        "etc/default/grub.d/local.cfg": 'GRUB_CMDLINE_XEN_DEFAULT="dom0_mem=4G ucode=scan"\n',
        "stand-in.c": STAND_IN,
    }.items():
        (root / path).write_text(text)
    build = ["cc", "-shared", "-fPIC", "-w", "-o", root / "stand-in.so", root / "stand-in.c"]
    subprocess.run([str(word) for word in build], check=True)
    # a guest logs in on hvc0, too: not so here
    (root / "etc/systemd/system/getty.target.wants/serial-getty@hvc0.service").unlink()
    (root / "etc/ld.so.preload").write_text("/stand-in.so\n")
    return root


@pytest.fixture
def host(tree: Path, tmp_path: Path) -> Iterator[HostView]:
    """The tree as a host; its /etc is put back afterwards."""
    shutil.copytree(tree / "etc", tmp_path / "before", symlinks=True)
    yield HostView.of(tree)
    shutil.rmtree(tree / "etc")
    shutil.copytree(tmp_path / "before", tree / "etc", symlinks=True)


def stage(host: HostView, staged: Path, wanted: HostSettings = WANTED) -> Path:
    """What the checks look at: the host's /etc with the new files in it."""
    shutil.copytree(host.root / "etc", staged / "etc", symlinks=True)
    for part in PARTS:
        for file in part.render(wanted, host):
            path = staged / file.path[1:]
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.link:
                path.symlink_to(file.link)
            elif file.content is not None:
                path.write_bytes(file.content)
    return staged


def check(part: Part, host: HostView, staged: Path) -> list[Finding]:
    return [*part.check(WANTED, host, staged)]


def test_every_reader_takes_its_file(host: HostView, tmp_path: Path) -> None:
    assert (host.loader, host.toolstack, host.init) == ("grub2", "xl", "systemd")
    staged = stage(host, tmp_path / "staged")
    assert check(BOOT, host, staged) == []
    assert check(LVM, host, staged) == []
    # nobody has been to these hosts yet
    warned = {finding.subject for finding in check(TOOLSTACK, host, staged)}
    assert warned == {"migration"}
    (staged / "etc/ssh/ssh_known_hosts").write_text(f"peer,192.0.2.7 {KEY}\n")
    assert check(TOOLSTACK, host, staged) == []


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def test_the_menu_that_update_grub_makes_has_the_lines_and_the_doctor_agrees(
    host: HostView, tmp_path: Path
) -> None:
    staged = stage(host, tmp_path / "staged")
    read_by(("grub-mkconfig", "-o", "/etc/made.cfg"), host, staged)
    made = (staged / "etc/made.cfg").read_text()
    lines = grub.read_entries(made)
    assert lines is not None
    xen, linux = (line.split() for line in lines)
    assert (
        xen
        == (
            "dom0_mem=1024M,max:1024M dom0_max_vcpus=2 dom0_vcpus_pin com2=115200,8n1 "
            "console=com2,vga ucode=scan"
        ).split()
    )
    assert linux[-4:] == ["console=tty0", "console=hvc0", "quiet", "a=*"]
    # a start without Xen keeps its own, one for recovery gets Xen's
    entries = made.split("menuentry ")
    assert any(
        f"vmlinuz-{ABI} root" in entry and "console=ttyS1 quiet" in entry for entry in entries
    )
    recovery = [entry for entry in entries if "xen-gnulinux" in entry and "recovery" in entry]
    assert recovery
    assert all("com2=115200,8n1 console=com2,vga" in entry for entry in recovery)
    (staged / "boot/grub").mkdir(parents=True)
    (staged / "boot/grub/grub.cfg").write_text(made)
    (staged / "etc/lvm/backup").mkdir(exist_ok=True)
    (staged / "etc/lvm/backup/VG0").touch()
    facts = read_facts(staged, None, is_dom0=True, has_vsyscall=True)
    assert facts.xen_line == " ".join(xen)
    assert [found for found in find_pitfalls(facts) if found.subject != "services"] == []


def test_the_login_is_linked_as_systemctl_enable_does_it(host: HostView, tmp_path: Path) -> None:
    (link,) = [file for file in BOOT.render(WANTED, host) if file.link]
    subprocess.run(
        ["chroot", host.root, "systemctl", "enable", "serial-getty@hvc0.service"],
        check=True,
        capture_output=True,
    )
    assert os.readlink(host.root / link.path[1:]) == link.link


def test_a_host_that_grub_does_not_start_is_told_so(host: HostView, tmp_path: Path) -> None:
    staged = stage(host, tmp_path / "staged")
    (host.root / "boot/grub").rmdir()
    try:
        (said,) = [finding for finding in check(BOOT, host, staged) if finding.level == "error"]
    finally:
        (host.root / "boot/grub").mkdir()
    assert "/boot/grub is not there" in said.message


@pytest.mark.parametrize(
    ("part", "path", "text", "said"),
    [
        (
            BOOT,
            "etc/default/grub.d/zzz.cfg",
            'GRUB_CMDLINE_XEN="dom0_mem=2G"\n',
            "would not say dom0_mem",
        ),
        (BOOT, "etc/default/grub.d/zzz.cfg", "if then\n", "grub-mkconfig"),
        (TOOLSTACK, "etc/default/xendomains", "XENDOMAINS_AUTO='\n", "sh: "),
        (TOOLSTACK, "etc/xen/xl.conf", 'autoballoon="off"\nblkdev_start=[\n', "xl: "),
        (LVM, "etc/lvm/lvm.conf", "devices {\n", "lvm: "),
        (TOOLSTACK, "etc/ssh/ssh_config.d/domu-migration.conf", "Hots *\n", "ssh: "),
    ],
)
def test_a_reader_that_refuses_its_file_stops_the_change(
    host: HostView, tmp_path: Path, part: Part, path: str, text: str, said: str
) -> None:
    staged = stage(host, tmp_path / "staged")
    (staged / path).write_text(text)
    errors = [each for each in check(part, host, staged) if each.level == "error"]
    assert any(said in finding.message for finding in errors), errors


def test_a_filter_of_the_administrator_that_undoes_ours_is_refused(
    host: HostView, tmp_path: Path
) -> None:
    conf = host.root / "etc/lvm/lvm.conf"
    conf.write_text('devices {\n\tglobal_filter = [ "r|/dev/sr|", "a|.*|" ]\n}\n')
    staged = stage(host, tmp_path / "staged")
    (found,) = check(LVM, host, staged)
    assert (found.level, '"a|.*|" takes' in found.message) == ("error", True)


DISKS = """set -eu
export LVM_SYSTEM_DIR=$1 LVM_SUPPRESS_FD_WARNINGS=1
loop=$(losetup -f --show "$2")
numbers=$(stat -c '%t %T' "$loop")
device=$(printf "b %d %d" "0x${numbers% *}" "0x${numbers#* }")
mount -t tmpfs none /run
mknod /run/loop $device
trap 'losetup -d /run/loop' EXIT
mount -t tmpfs none /dev
mkdir -p /dev/VG0 /dev/mapper /dev/disk/by-id
mknod /dev/null c 1 3
mknod /dev/zero c 1 5
mknod /dev/urandom c 1 9
mknod /dev/dm-3 $device
ln -s ../dm-3 /dev/mapper/VG0-web1--disk
ln -s ../dm-3 /dev/VG0/web1-disk
ln -s ../../dm-3 /dev/disk/by-id/dm-uuid-LVM-abc
pvcreate -qq -y --config 'devices/global_filter="a|.*|"' /dev/dm-3 >&2
pvs --noheadings -o pv_name
"""


@pytest.mark.parametrize(
    ("patterns", "is_seen"),
    [
        (("a|.*|",), True),
        (OURS, False),
        ((OURS[0],), False),
        ((*OURS, "a|.*|"), True),
        ((*OURS, "a|^/dev/sda|", "r|.*|"), False),
        (OURS[2:], True),
    ],
)
def test_real_lvm_sees_a_volume_by_its_names_as_we_judge_it(
    tmp_path: Path, patterns: tuple[str, ...], is_seen: bool
) -> None:
    require(is_root() and Path("/dev/loop-control").exists(), "needs root and loop devices")
    quoted = ", ".join(f'"{pattern}"' for pattern in patterns)
    (tmp_path / "lvm.conf").write_text(
        "devices {\n obtain_device_list_from_udev = 0\n use_devicesfile = 0\n"
        f" global_filter = [ {quoted} ]\n}}\nactivation {{ udev_sync = 0 udev_rules = 0 }}\n"
        f'global {{ locking_dir = "{tmp_path}" }}\nbackup {{ backup = 0 archive = 0 }}\n'
    )
    image = tmp_path / "pv.img"
    with open(image, "wb") as stream:
        stream.truncate(40 << 20)
    script = ["sh", "-c", DISKS, "sh", tmp_path, image]
    words = ["unshare", "--mount", "--propagation", "private", *map(str, script)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert bool(done.stdout.strip()) is is_seen, done.stderr
    assert is_seen is (patterns[0] not in OURS[:2] or "a|.*|" in patterns)


def test_the_update_grub_of_grub_legacy_makes_its_entries_of_our_lines(tmp_path: Path) -> None:
    """Its real script on a menu of lenny, in a root of its own that has this machine's programs."""
    require(is_root(), "changes the root of what it runs")
    subprocess.run(
        ["apt-get", "download", "grub-legacy"], cwd=tmp_path, check=True, capture_output=True
    )
    (package,) = tmp_path.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path / "legacy"], check=True)
    boot = tmp_path / "boot"
    (boot / "grub").mkdir(parents=True)
    version = "2.6.26-2-xen-686"
    config = "CONFIG_XEN=y\nCONFIG_XEN_PRIVILEGED_GUEST=y\n"
    for name in (f"vmlinuz-{version}", f"initrd.img-{version}", "xen-3.2-1-i386.gz"):
        (boot / name).touch()
    (boot / f"config-{version}").write_text(config)
    (boot / "grub/default").write_text("0\n")
    (boot / "grub/device.map").write_text("(hd0) /dev/vda\n")
    (boot / "grub/menu.lst").write_text(MENU_LST.replace("# kopt=", "# groot=(hd0,0)\n# kopt="))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/inittab").write_text(INITTAB)
    old = HostView(tmp_path, "lenny", "sysvinit", "ifupdown", "grub-legacy", "xm")
    wanted = HostSettings.model_validate({"boot": {"dom0_mem": "256M", "serial": "com2"}})
    (menu,) = [file for file in BOOT.render(wanted, old) if file.path == grub.MENU_LST]
    assert menu.content is not None
    (boot / "grub/menu.lst").write_bytes(menu.content)
    script = f"mount --bind {boot} /boot && exec bash {tmp_path}/legacy/usr/sbin/update-grub"
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    text = (boot / "grub/menu.lst").read_text()
    assert grub.read_entries(text) == (
        "dom0_mem=256M com2=115200,8n1 console=com2,vga",
        "root=/dev/sda1 ro console=tty0 console=hvc0",
    ), done.stderr
    # rendered again, nothing changes
    assert BOOT.has_place(grub.MENU_LST)
    (again,) = [file for file in BOOT.render(wanted, replace(old)) if file.path == grub.MENU_LST]
    assert again.content == text.encode()


def test_a_menu_that_update_grub_wrote_anew_is_no_edit_of_somebody_else(tmp_path: Path) -> None:
    make_host(tmp_path, "lenny")
    layout, menu = Layout(tmp_path), tmp_path / "boot/grub/menu.lst"
    wanted = settings(boot={"dom0_mem": "256M", "serial": "com2"})
    with changing_host(layout):
        plan, _ = plan_change(layout, wanted)
        change = apply_change(layout, plan)
        menu.write_text(menu.read_text().replace("xen-3.2-1-i386.gz", "xen-3.2-1-i386.gz new"))
        assert find_edited(layout, change) == []
        undo_change(layout, change, replaces=False)
    assert menu.read_text() == MENU_LST
    assert (tmp_path / "etc/inittab").read_text() == INITTAB
