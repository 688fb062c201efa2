"""`doit doctor` on hosts with each pitfall seeded: found, told, mended where it can be, taken back.

tests/unit/test_dom0_doctor.py has the judgements one by one, tests/boot a real dom0.
"""

import ast
import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.dom0.inventory import Installed
from pipeline.dom0.layout import Layout
from pipeline.namespace import is_root
from tests.conftest import ROOT, require
from tests.host.old_guests import NAME, OldGuest
from tests.host.seeded_host import GRUB, OLD, STATUS, Files, SeededHost

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
WANTS = "etc/systemd/system/getty.target.wants"
UDEV = "usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-{}.so"


STARTED = 'name = "web1"\ntype = "pvh"\nmemory = 999999999\nkernel = "/boot/k"\n'
XEND = "(vif-script vif-bridge)\n(dom0-min-mem {})\n(dom0-cpus {})\n"
SERIAL = "com2=115200,8n1 console=com2,vga"
ELDER = (
    'name = "elder"\nvif = [ "" ]\nbootloader = "pygrub"\ndisk = [ "phy:/dev/VG0/elder,xvda1,w" ]\n'
)
UEFI = 'name = "uefi"\ntype = "hvm"\nbios = "ovmf"\n'
XEN = gzip.compress(b"\x7fELF\0Wed Nov  4 16:52:28 UTC 2026\0")
SPEC = 'suite = "lenny"\narch = "i386"\nkernel = "/boot/vmlinuz-6.1.0-9-amd64"\n'
WEB1 = """name = "web1"
type = "pvh"
kernel = "/boot/no-kernel"
memory = 256
disk = [ "script=block-drbd, vdev=xvda1, target=r0" ]
vif = [ "bridge=br-lan" ]
"""


@dataclass(frozen=True)
class Seeds:
    """A host with pitfalls: which are found, which of them are mended, and by which files."""

    files: Files
    mended: set[str]
    changed: set[str]
    left: set[str] = field(default_factory=set)
    info: Mapping[str, str] = field(default_factory=dict)


MENDED = {
    "grub 2": Seeds(
        {
            "etc/default/grub": GRUB.format("dom0_mem=1G console=com1,vga", "console=ttyS0,115200"),
            "etc/xen/xl.conf": '# of the seed\nautoballoon="on"\n',
            "etc/lvm/backup/VG0": "",
            "etc/default/xendomains": (
                "XENDOMAINS_AUTO=/srv/auto # odd\nXENDOMAINS_SAVE=/var/lib/xen/save\n"
            ),
            "etc/xen/web1.cfg": STARTED,
            "etc/xen/auto/web1.cfg": "-> ../web1.cfg",
        },
        {
            *("dom0-mem-max", "autoballoon", "dom0-vcpus", "serial-taken", "serial-speed"),
            *("lvm-filter", "xendomains-auto", "xendomains-save"),
        },
        {
            *("etc/default/grub.d/zz-domu-xen.cfg", "etc/xen/xl.conf", "etc/lvm/lvm.conf"),
            *("etc/default/xendomains", f"{WANTS}/serial-getty@hvc0.service"),
        },
        info={"nr_cpus": "32"},
    ),
    "nothing set": Seeds(
        {
            "etc/default/grub": GRUB.format(SERIAL, "quiet"),
            "etc/xen/odd.cfg": UEFI,
            "var/lib/dpkg/status": STATUS.format("ovmf", "2022.11-6+deb12u2"),
        },
        {"dom0-mem", "serial-login"},
        {
            *("etc/default/grub.d/zz-domu-xen.cfg", "etc/xen/xl.conf"),
            f"{WANTS}/serial-getty@hvc0.service",
        },
        left={"ovmf"},
    ),
    "lenny": Seeds(
        {**OLD, "etc/xen/xend-config.sxp": XEND.format(196, 0)},
        {"dom0-min-mem", "dom0-cpus"},
        {"etc/xen/xend-config.sxp"},
        info={"xen_version": "3.2.1"},
    ),
    "etch": Seeds(
        {
            **OLD,
            "etc/debian_version": "4.0\n",
            "etc/inittab": "id:2:initdefault:\nT1:23:respawn:/sbin/getty -L ttyS1 9600 vt100\n",
        },
        {"xencons"},
        {"boot/grub/menu.lst"},
        info={"xen_version": "3.0.3"},
    ),
}


def make_host(work: Path, files: Files, info: Mapping[str, str] | None = None) -> SeededHost:
    """With a folder of guests beside it; a CPU that has all, so that this machine's counts not."""
    require(is_root(), "mounts in a namespace of its own")
    (work / "guests").mkdir()
    (work / "guests/defaults.toml").write_text("")
    return SeededHost(work / "root", files, info or {})


@pytest.mark.parametrize("name", MENDED)
def test_what_can_be_mended_is_and_is_taken_back(tmp_path: Path, name: str) -> None:
    seeds = MENDED[name]
    host = make_host(tmp_path, seeds.files, seeds.info)
    before, found = host.stock(), host.find()
    assert set(found) == seeds.mended | seeds.left
    assert all(finding["hint"] for finding in found.values())
    _, said = host.doit("doctor", "fix=yes", "dry=yes")
    assert "nothing was changed: dry=yes" in said
    assert host.stock() == before
    code, said = host.doit("doctor", "fix=yes")
    assert code == (3 if seeds.left else 0), said
    after = host.stock()
    assert {path for path in {*before, *after} if before.get(path) != after.get(path)} == (
        seeds.changed
    )
    assert set(host.find()) == seeds.left
    assert "nothing here can be mended" in host.doit("doctor", "fix=yes")[1]
    code, said = host.doit("dom0", "undo=yes")
    assert code == 0, said
    assert host.stock() == before
    assert set(host.find()) == set(found)


UNMENDED = {
    "host": Seeds(
        {
            "usr/lib/xen-4.17/bin/pygrub": "no option of that name\n",
            "run/system-packages.txt": "no-such-program no-such-package build\n",
            "proc/cpuinfo": "flags : fpu\n",
            "proc/7/comm": None,
            "etc/xen/elder.cfg": ELDER,
            "etc/xen/uefi.cfg": UEFI,
            "etc/xen/auto/gone.cfg": "-> ../gone.cfg",
            "var/lib/domu/installed/bad.json": "{",
            "etc/xen/web1.cfg": WEB1,
            "boot/xen-4.17-amd64.gz": XEN,
            "var/lib/dpkg/status": "".join(
                STATUS.format(*line)
                for line in (
                    ("ovmf", "2022.11-6+deb12u2"),
                    ("xen-hypervisor-4.17-amd64", "4.17.7-0+deb12u1"),
                )
            ),
        },
        set(),
        set(),
        {
            *("no-pae", "services", "ovmf", "advisories", "reboot", "programs"),
            *("pygrub", "pygrub-old", "pv-guest", "unseen", "auto-link"),
            *("record", "config", "target", "script", "bridge", "kernel-waits"),
        },
        {"cc_compile_date": "Sat Aug  1 13:23:03 UTC 2026"},
    ),
    "old": Seeds(
        {
            "../guests/old.toml": SPEC,
            "var/lib/dpkg/status": STATUS.format("xen-hypervisor-4.14-amd64", "4.14.6-1"),
        },
        set(),
        set(),
        {"pae-mode", "guest-type", "support", "libc6-xen", "spec-libc", "spec-vsyscall"},
        {"xen_caps": "xen-3.0-x86_32"},
    ),
}


@pytest.mark.parametrize("name", UNMENDED)
def test_what_cannot_be_mended_is_told_and_not_touched(tmp_path: Path, name: str) -> None:
    seeds = UNMENDED[name]
    host = make_host(tmp_path, seeds.files, seeds.info)
    if name == "host":
        layout = Layout(host.root)
        for guest in ("web1", "gone"):
            layout.record(guest).write_bytes(make_record(guest, pending=layout.kernels / "6.1-x"))
    before, found = host.stock(), host.find()
    assert set(found) == seeds.left
    assert all(finding["hint"] or finding["level"] == "skipped" for finding in found.values())
    code, said = host.doit("doctor", "fix=yes")
    assert code == 3 and "nothing here can be mended by fix=yes" in said
    assert host.stock() == before
    assert set(host.find()) == seeds.left


def make_record(name: str, *, pending: Path) -> bytes:
    return Installed(
        name=name,
        word="install",
        generation=1,
        changed_at=0,
        config_text=WEB1,
        is_autostarted=False,
        disks=(),
        pending=str(pending) if name == "web1" else "",
    ).to_json()


def test_every_code_of_the_doctor_is_seeded_and_in_its_page() -> None:
    """A pitfall without a row in docs/reference/doctor.md, or without a test, is not done."""
    files = [*(ROOT / "pipeline/dom0/doctor").glob("*.py"), ROOT / "pipeline/commands/doctor.py"]
    codes = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            given = [word.value for word in node.keywords if word.arg == "code"]
            codes |= {word.value for word in given if isinstance(word, ast.Constant)}
            assert given or node.func.id not in ("Finding", "Pitfall"), ast.unparse(node)
    page = (ROOT / "docs/reference/doctor.md").read_text()
    rows = set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE))
    seeded = {
        code for seeds in {**MENDED, **UNMENDED}.values() for code in seeds.mended | seeds.left
    }
    assert codes == rows
    assert codes - seeded == {"card-name", "vsyscall"}, "the one above, the other in tests/unit"
    mendable = set(re.findall(r"^\| `([a-z0-9-]+)` \|.*\| yes \|$", page, re.MULTILINE))
    assert mendable == {code for seeds in MENDED.values() for code in seeds.mended}


@pytest.fixture
def host(tmp_path: Path) -> SeededHost:
    return make_host(tmp_path, {})


@pytest.fixture
def guest(host: SeededHost, tmp_path: Path) -> OldGuest:
    require(is_root(), "mounts a file system")
    return OldGuest(tmp_path / "domains", host.root)


@pytest.mark.parametrize(("udev", "name"), [(252, "enX0"), (247, "")])
def test_a_foreign_guest_whose_card_will_have_another_name(
    host: SeededHost, guest: OldGuest, udev: int, name: str
) -> None:
    guest.more = {UDEV.format(udev): ""}
    guest.make()
    before = guest.disk.read_bytes()
    found = host.find()
    assert ("card-name" in found) == bool(name)
    if name:
        assert found["card-name"]["subject"] == NAME
        assert str(found["card-name"]["message"]).endswith(f"will be called {name}")
    assert guest.disk.read_bytes() == before, "looking at a disk has written to it"


def test_a_disk_that_somebody_has_open_is_not_looked_into(
    host: SeededHost, guest: OldGuest
) -> None:
    guest.more = {UDEV.format(252): ""}
    guest.make()
    (host.root / "etc/xen/odd.cfg").write_text('name = "../odd"\ndisk = [ "phy:/x,xvda,w" ]\n')
    with guest.disk.open("rb+"):
        found = host.find()
    assert "card-name" not in found
    assert found["unseen"]["level"] == "skipped"
    message = str(found["unseen"]["message"])
    assert f"{NAME}: {guest.disk} is" in message
    assert "../odd" in message
    host.write("run/xen/list", f"Name ID Mem VCPUs State Time\n{NAME} 3 512 1 -b---- 1.0\n")
    found = host.find()
    assert "card-name" not in found
    assert f"{NAME}: it runs" in str(found["unseen"]["message"])


def test_a_host_without_a_boot_loader_is_left_alone(tmp_path: Path) -> None:
    host = make_host(tmp_path, {"boot/grub/grub.cfg": None, "etc/default/grub": "GRUB_TIMEOUT=1\n"})
    before = host.stock()
    code, said = host.doit("doctor", "fix=yes")
    assert code == 5
    assert "/boot/grub is not there: GRUB does not start this host" in said
    assert host.stock() == before
