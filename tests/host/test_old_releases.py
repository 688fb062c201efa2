"""The administrator's two command lines of 2009, word by word, on an archive with that layout."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.storage.ext import read_text
from pipeline.xen import xm
from tests.conftest import ROOT, require
from tests.host.archives import Keys
from tests.host.old.archive import ABIS, fill_pool, publish
from tests.host.old.kernel import make_initrd, make_vmlinuz
from tests.host.old.lab import KEYRING, run_in_lab
from tests.uml import missing_uml, run_in_uml
from tests.unit.test_xen_tools_conf import SHIPPED

pytestmark = pytest.mark.integration

# the finished golden half is reused: only the guest half is made in there
IN_VG0 = """
mkdir -p /mnt/upper /mnt/work /mnt/output
mount -t overlay -o lowerdir={lab}/output,upperdir=/mnt/upper,workdir=/mnt/work none /mnt/output
rm -rf /mnt/output/volumes /mnt/output/guests
mkdir /mnt/guests
if [ -d /etc/xen-tools ]; then mount --bind {lab}/xen-tools /etc/xen-tools; fi
mount --bind {lab}/boot /boot
mount --bind {lab}/ring.gpg {keyring}
pvcreate -q /dev/ubdb
vgcreate -q VG0 /dev/ubdb
"$@"
lvs --noheadings -o lv_path,lv_size VG0
e2fsck -f -n /dev/VG0/{name}-disk
debugfs -R "cat /etc/inittab" /dev/VG0/{name}-disk
cat /mnt/output/guests/{name}/{name}.xm
"""
# as they were written down, but for the backslashes at the ends of lines
LINES = {
    "lenny": """\
xen-create-image --hostname test-drbd --kernel /boot/vmlinuz-2.6.26-2-xen-686
  --initrd /boot/initrd.img-2.6.26-2-xen-686
  --dist lenny --mirror http://monmiroir:9999/debian/
  --dhcp  --lvm VG0 --size 4G
  --role udev""",
    "etch": """\
xen-create-image --hostname montest --kernel /boot/vmlinuz-2.6.18-6-xen-686
  --initrd /boot/initrd.img-2.6.18-6-xen-686
  --debootstrap --dist etch --mirror monmiroir:9999
  --dhcp --lvm VG0 --size 4G""",
}


@dataclass(frozen=True)
class Lab:
    """A folder with the archive, dom0's /boot and the keyring; runs doit in it."""

    folder: Path

    def doit(self, *words: str) -> str:
        """What doit said; it must end well."""
        return self.run(sys.executable, "-m", "doit", *words)

    def run(self, *words: str) -> str:
        """What a command said; it must end well."""
        env = {**os.environ, "DOMU_OUTPUT": str(self.folder / "output")}
        env["DOMU_GUESTS"] = str(self.folder / "guests")
        env["PATH"] = f"{ROOT}/bin:{env['PATH']}"
        done = run_in_lab(self.folder, *words, env=env)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def requests(self) -> str:
        """Every request that the mirror answered."""
        return (self.folder / "requests").read_text()


@dataclass(frozen=True)
class OldGuest:
    """A finished guest; `read` gives the text of a file in its image."""

    suite: str
    name: str
    folder: Path
    lab: Lab

    def read(self, path: str) -> str:
        """A file of the image, read without mounting it."""
        return read_text(self.folder / "disk.img", path)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, keys: Keys, old_key: str) -> Iterator[Lab]:
    require(os.geteuid() == 0, "debootstrap needs root")
    for tool in ("debootstrap", "unshare", "ip"):
        require(shutil.which(tool) is not None, f"needs {tool}")
    require(Path(KEYRING).is_file(), f"needs {KEYRING}")
    folder = tmp_path_factory.mktemp("lab")
    fill_pool(folder / "srv", folder / "work")
    (folder / "boot").mkdir()
    (folder / "xen-tools").mkdir()
    (folder / "xen-tools/xen-tools.conf").write_text(SHIPPED)
    for suite, abi in ABIS.items():
        publish(folder / "srv", keys, old_key, suite)
        (folder / f"boot/vmlinuz-{abi}").write_bytes(make_vmlinuz(abi))
        (folder / f"boot/initrd.img-{abi}").write_bytes(make_initrd(abi))
    keys.export(folder / "ring.gpg", old_key)
    shutil.rmtree(folder / "work")
    yield Lab(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def build(lab: Lab) -> Callable[[str], OldGuest]:
    built: dict[str, OldGuest] = {}

    def once(suite: str) -> OldGuest:
        if suite not in built:
            words = LINES[suite].replace("--lvm VG0 ", "").split()  # that has its own test, below
            name = words[2]
            said = lab.run(*words)
            assert f"{name} is ready" in said
            built[suite] = OldGuest(suite, name, lab.folder / "output/guests" / name, lab)
        return built[suite]

    return once


@pytest.fixture(params=list(LINES))
def guest(request: pytest.FixtureRequest, build: Callable[[str], OldGuest]) -> OldGuest:
    return build(request.param)


def test_the_command_line_word_by_word_makes_a_guest_that_passes_every_check(
    guest: OldGuest,
) -> None:
    said = guest.lab.doit("check", f"name={guest.name}")
    summary = said.splitlines()[-1]
    assert " checks, " in summary
    assert "failed" not in summary
    assert "FAIL" not in said


def test_its_file_system_is_what_its_kernel_can_mount(guest: OldGuest) -> None:
    header = subprocess.run(
        ["dumpe2fs", "-h", guest.folder / "disk.img"], capture_output=True, text=True, check=True
    ).stdout
    facts = dict(line.split(":", 1) for line in header.splitlines() if ":" in line)
    features = set(facts["Filesystem features"].split())
    assert "has_journal" in features and facts["Inode size"].strip() == "128"
    assert not features & {"extent", "64bit", "metadata_csum", "flex_bg", "huge_file", "uninit_bg"}


def test_console_disks_and_sources_have_the_names_of_that_time(guest: OldGuest) -> None:
    console, disk = {"etch": ("tty1", "sda"), "lenny": ("hvc0", "xvda")}[guest.suite]
    inittab = guest.read("/etc/inittab").splitlines()
    gettys = [line for line in inittab if "getty" in line and not line.startswith("#")]
    assert gettys == [f"1:2345:respawn:/sbin/getty 38400 {console}"]
    assert console in guest.read("/etc/securetty").split()
    fstab = guest.read("/etc/fstab").splitlines()
    assert fstab[0] == f"/dev/{disk}1 / ext3 errors=remount-ro 0 1"
    assert fstab[1].startswith(f"/dev/{disk}2 none swap")
    assert guest.read("/etc/apt/sources.list").splitlines() == [
        f"deb http://monmiroir:9999/debian {guest.suite} main",
        f"deb http://monmiroir:9999/debian-security {guest.suite}/updates main",
    ]


def test_xend_gets_a_python_file_of_its_own_version(guest: OldGuest) -> None:
    version, disk = {"etch": ("3.0", "sda"), "lenny": ("3.2", "xvda")}[guest.suite]
    text = (guest.folder / f"{guest.name}.xm").read_text()
    assert f"Xen {version} " in text.splitlines()[0]
    values = xm.parse_assignments(text)
    assert values["root"] == f"/dev/{disk}1 ro"
    disks = values["disk"]
    assert isinstance(disks, list)
    assert [one.split(",")[1:] for one in disks] == [[f"{disk}1", "w"], [f"{disk}2", "w"]]
    for name in ("vmlinuz", "initrd.img"):
        kept = guest.lab.folder / f"boot/{name}-{ABIS[guest.suite]}"
        assert (guest.folder / name).read_bytes() == kept.read_bytes()


def test_modules_come_from_the_archives_own_package_and_its_modprobe_finds_them(
    guest: OldGuest,
) -> None:
    abi = ABIS[guest.suite]
    assert not Path(f"/lib/modules/{abi}").exists()
    home = f"/lib/modules/{abi}/kernel/fs"
    index = guest.read(f"/lib/modules/{abi}/modules.dep").splitlines()
    assert f"{home}/ext3/ext3.ko: {home}/jbd/jbd.ko" in index
    assert f"linux-modules-{abi}_" in guest.lab.requests()


def test_its_packages_are_32_bit_configured_and_upgraded_by_its_own_apt(guest: OldGuest) -> None:
    status = guest.read("/var/lib/dpkg/status")
    assert status.count("Status: install ok installed") == status.count("Package: ")
    assert "Architecture: amd64" not in status
    assert "Package: libc6-xen\n" in status
    assert "Version: 1.0+security1\n" in status


def test_what_helped_the_build_is_gone(guest: OldGuest) -> None:
    for path in ("/usr/local/bin/find", "/usr/local/bin/mktemp", "/usr/sbin/policy-rc.d"):
        said = subprocess.run(
            ["debugfs", "-R", f"stat {path}", guest.folder / "disk.img"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "File not found" in said.stderr, path


@pytest.mark.matrix
@pytest.mark.parametrize("suite", list(LINES))
def test_with_lvm_the_very_same_line_fills_a_volume_group(
    build: Callable[[str], OldGuest], tmp_path: Path, suite: str
) -> None:
    """Letter by letter, on real device-mapper."""
    require(not missing_uml(), missing_uml())
    guest = build(suite)
    disk = tmp_path / "pv.img"
    with open(disk, "wb") as stream:
        stream.truncate(6 << 30)
    words = [f"{ROOT}/bin/{LINES[suite].split()[0]}", *LINES[suite].split()[1:]]
    script = tmp_path / "script"
    script.write_text(IN_VG0.format(lab=guest.lab.folder, name=guest.name, keyring=KEYRING))
    ended = run_in_uml(
        tmp_path,
        ["sh", "-eux", script, *words],
        folder=ROOT,
        disks=[disk],
        variables=["DOMU_OUTPUT=/mnt/output", "DOMU_GUESTS=/mnt/guests"],
        memory="1G",
        timeout_s=900,
    )
    assert ended.status == 0, ended.output + ended.console
    assert f"/dev/VG0/{guest.name}-disk" in ended.output
    console, name = {"etch": ("tty1", "sda"), "lenny": ("hvc0", "xvda")}[suite]
    assert f"1:2345:respawn:/sbin/getty 38400 {console}" in ended.output
    assert f"phy:/dev/VG0/{guest.name}-disk,{name}1,w" in ended.output
