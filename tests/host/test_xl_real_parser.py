"""Xen's own programs judge our text: `xl -N create` (no hypervisor needed) and pygrub's parser.

The packages are downloaded and unpacked, not installed. xl refuses to start without a hypervisor,
so a few lines of C stand in for the calls that ask it for its version.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.xen import xl
from pipeline.xen.boot import LAUNCHER, Direct, Firmware, Grub, Pygrub
from pipeline.xen.cfg_syntax import read_assignments
from pipeline.xen.devices import Card, Disk, Framebuffer
from pipeline.xen.domain import Domain
from pipeline.xen.grub_menu import MenuEntry, parse_grub_cfg, parse_menu_lst
from pipeline.xen.render import render_xl
from pipeline.xen.values import SyntaxFault
from tests.grub_menus import render_menus

pytestmark = pytest.mark.integration

STAND_IN = """
#include <string.h>
static char room[4096];
static char *version[32];
void *xc_interface_open(void *a, void *b, unsigned c) { return room; }
int xc_interface_close(void *x) { return 0; }
void *xs_open(unsigned long flags) { return room; }
void xs_close(void *x) {}
int xc_version(void *x, int command, void *answer) { return 0; }
int xc_physinfo(void *x, void *answer) { return 0; }
int libxl_get_max_cpus(void *ctx) { return 4; }
void *libxl_get_version_info(void *ctx) {
    for (int i = 1; i < 32; i++) version[i] = "dom0_mem=1G";
    return version;
}
int libxl_get_physinfo(void *ctx, void *info) { memset(info, 0, 32); return 0; }
"""
UUID = "50fd08d4-94b0-4ae3-9d30-6eb638421c86"
ROOT = Disk(target="/srv/xen/test-drbd.img", vdev="xvda1")
CARD = Card(mac="00:16:3E:59:2A:ED", bridge="br-xen")


def run_tool(*argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
    )


@pytest.fixture(scope="module")
def xen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newest Xen tools that this machine's apt sources offer, unpacked."""
    place = tmp_path_factory.mktemp("xen")
    listed = run_tool("apt-cache", "pkgnames", "xen-utils-4").stdout.split()
    names = [name for name in listed if re.fullmatch(r"xen-utils-4\.\d+", name)]
    if not names or shutil.which("cc") is None:
        pytest.skip("needs a C compiler (gcc) and xen-utils-4.x in apt's lists (apt-get update)")
    utils = max(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    closure = run_tool(
        "apt-cache",
        "depends",
        "--recurse",
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
        "--no-replaces",
        "--no-enhances",
        utils,
    )
    libraries = set(re.findall(r"^((?:libxen|libyajl)[\w.-]+)$", closure.stdout, re.MULTILINE))
    download = subprocess.run(
        ["apt-get", "download", utils, *sorted(libraries)],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert download.returncode == 0, download.stderr
    for package in place.glob("*.deb"):
        assert run_tool("dpkg-deb", "-x", package, place / "root").returncode == 0
    (place / "stand-in.c").write_text(STAND_IN)
    built = run_tool(
        "cc", "-shared", "-fPIC", "-w", "-o", place / "stand-in.so", place / "stand-in.c"
    )
    assert built.returncode == 0, built.stderr
    return place


def dry_run(xen: Path, text: str) -> subprocess.CompletedProcess[str]:
    """What the real xl makes of a configuration: JSON on stdout, complaints on stderr."""
    file = xen / "guest.cfg"
    file.write_text(text)
    program = next((xen / "root/usr/lib").glob("xen-*/bin/xl"))
    libraries = next((xen / "root/usr/lib").glob("*/libxenlight.so.*")).parent
    return run_tool(
        program,
        "-N",
        "create",
        file,
        LD_PRELOAD=str(xen / "stand-in.so"),
        LD_LIBRARY_PATH=str(libraries),
    )


def read_config(xen: Path, domain: Domain) -> dict[str, Any]:
    done = dry_run(xen, render_xl(domain))
    complaints = [
        line
        for line in done.stderr.splitlines()
        if "xl.conf" not in line and not line.startswith("Parsing config")
    ]
    assert (done.returncode, complaints) == (0, []), done.stderr
    config: dict[str, Any] = json.loads(done.stdout)
    return config


def make_guest(**changes: Any) -> Domain:
    fields: dict[str, Any] = {
        "name": "test-drbd",
        "type": "pv",
        "uuid": UUID,
        "memory_mib": 256,
        "vcpus": 1,
        "boot": Direct("/boot/vmlinuz", "/boot/initrd.img", "/dev/xvda1", "ro console=hvc0"),
        "disks": (ROOT,),
        "cards": (CARD,),
        **changes,
    }
    return Domain(**fields)


def test_xl_reads_a_directly_booted_guest_as_we_mean_it(xen: Path) -> None:
    guest = make_guest(
        maxmem_mib=512,
        vcpus=2,
        maxvcpus=4,
        cpus="0-1,^1",
        cpu_weight=512,
        cap=150,
        on_crash="preserve",
    )
    config = read_config(xen, guest)
    assert config["c_info"]["name"] == "test-drbd"
    assert config["c_info"]["type"] == "pv"
    assert config["c_info"]["uuid"] == UUID
    build = config["b_info"]
    assert (build["target_memkb"], build["max_memkb"]) == (256 * 1024, 512 * 1024)
    assert (build["max_vcpus"], build["avail_vcpus"]) == (4, [0, 1])
    assert (build["sched_params"]["weight"], build["sched_params"]["cap"]) == (512, 150)
    assert build["vcpu_hard_affinity"] == [[0]] * 4  # the host of the test has processor 0 alone
    assert (build["kernel"], build["ramdisk"]) == ("/boot/vmlinuz", "/boot/initrd.img")
    assert build["cmdline"] == "root=/dev/xvda1 ro console=hvc0"
    assert config["nics"] == [{"devid": 0, "mac": "00:16:3e:59:2a:ed", "bridge": "br-xen"}]
    assert config["on_crash"] == "preserve"


def test_xl_reads_every_disk_with_its_exact_path(xen: Path) -> None:
    targets = ["/srv/a,b.img", "/srv/with space.img", "/srv/q\"uo'te\\.img", "/srv/é=1:x,"]
    disks = [
        Disk(target=path, vdev=f"xvd{name}") for path, name in zip(targets, "abcd", strict=True)
    ]
    disks += [
        Disk(target="/srv/d.qcow2", vdev="xvde", format="qcow2", access="ro"),
        Disk(target="/dev/VG0/x", vdev="xvdf1"),
        Disk(target="/srv/d.vhd", vdev="xvdg", format="vhd"),
        Disk(target="/srv/cd.iso", vdev="hdc", access="ro", devtype="cdrom"),
        Disk(target="", vdev="hdd", access="ro", devtype="cdrom"),
    ]
    seen = read_config(xen, make_guest(disks=tuple(disks)))["disks"]
    assert [disk["pdev_path"] for disk in seen] == [disk.target for disk in disks]
    assert [disk["vdev"] for disk in seen] == [disk.vdev for disk in disks]
    assert [disk.get("readwrite", 0) for disk in seen] == [disk.access == "rw" for disk in disks]
    assert [disk["format"] for disk in seen] == [
        *["raw"] * 4,
        "qcow2",
        "raw",
        "vhd",
        "raw",
        "empty",
    ]
    assert [disk.get("is_cdrom", 0) for disk in seen] == [*[0] * 7, 1, 1]


def test_xl_hands_a_drbd_resource_to_its_script(xen: Path) -> None:
    disk = Disk(target="/dev/drbd/by-res/r0/0", vdev="xvda1", script="block-drbd")
    (seen,) = read_config(xen, make_guest(disks=(disk,)))["disks"]
    assert (seen["pdev_path"], seen["script"], seen["format"]) == ("r0", "block-drbd", "raw")


def test_xl_gives_a_shared_disk_to_qemu_and_knows_no_other_word_for_it(xen: Path) -> None:
    disk = Disk(target="/srv/shop-a/disk-q.img", vdev="xvda3", access="shared")
    (seen,) = read_config(xen, make_guest(disks=(disk,)))["disks"]
    assert (seen["pdev_path"], seen["backend"], seen["readwrite"]) == (disk.target, "qdisk", 1)
    done = dry_run(xen, 'name = "x"\nkernel = "/k"\ndisk = ["/srv/q,raw,xvda3,w!"]\n')
    assert done.returncode and "unknown value for access" in done.stderr


@pytest.mark.parametrize(
    "line", ["drbd:r0,xvda1,w", "r0,raw,xvda1,rw,script=block-drbd", "script=block-drbd,r0,,xvda1"]
)
def test_xl_reads_a_drbd_resource_as_we_do(xen: Path, line: str) -> None:
    text = f'name = "x"\nkernel = "/k"\ndisk = ["{line}"]\n'
    done = dry_run(xen, text)
    assert done.returncode == 0, done.stderr
    (seen,) = json.loads(done.stdout)["disks"]
    ours = xl.parse(text).disks
    assert (seen["pdev_path"], seen["vdev"], seen["script"]) == ("r0", "xvda1", "block-drbd")
    assert ours == (Disk(target="/dev/drbd/by-res/r0/0", vdev="xvda1", script="block-drbd"),)


def test_xl_reads_the_keys_of_a_card(xen: Path) -> None:
    card = Card(
        mac="00:16:3e:00:00:01",
        bridge="br0",
        vifname="web1",
        mtu=9000,
        rate_kbytes_s=1000,
        ip="192.0.2.7",
    )
    seen = read_config(xen, make_guest(cards=(card, Card())))["nics"]
    assert seen[0] == {
        "devid": 0,
        "mtu": 9000,
        "mac": "00:16:3e:00:00:01",
        "ip": "192.0.2.7",
        "bridge": "br0",
        "ifname": "web1",
        "rate_bytes_per_interval": 50000,
        "rate_interval_usecs": 50000,
    }
    assert seen[1] == {"devid": 1}


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_xl_gives_paravirtual_guests_their_vnc_screen(xen: Path, kind: str) -> None:
    screen = Framebuffer(vncdisplay=2, vnclisten="0.0.0.0", keymap="fr")
    (seen,) = read_config(xen, make_guest(type=kind, framebuffer=screen))["vfbs"]
    assert seen["vnc"] == {
        "enable": "True",
        "listen": "0.0.0.0",
        "display": 2,
        "findunused": "False",
    }
    assert seen["keymap"] == "fr"


def test_xl_reads_an_hvm_guest_with_its_firmware_and_screen(xen: Path) -> None:
    guest = make_guest(type="hvm", boot=Firmware("uefi", "cd", "ahci"), framebuffer=Framebuffer())
    hvm = read_config(xen, guest)["b_info"]["type.hvm"]
    assert (hvm["bios"], hvm["boot"], hvm["serial"]) == ("ovmf", "cd", "pty")
    assert hvm["hdtype"] == "ahci"
    assert hvm["vnc"] == {"enable": "True", "findunused": "True"}


def test_xl_reads_an_hvm_guest_whose_kernel_is_given(xen: Path) -> None:
    boot = Direct("/srv/vmlinuz", "/srv/initrd.img", "/dev/xvda", "ro console=hvc0")
    build = read_config(xen, make_guest(type="hvm", boot=boot))["b_info"]
    assert (build["kernel"], build["ramdisk"]) == ("/srv/vmlinuz", "/srv/initrd.img")
    assert build["cmdline"] == "root=/dev/xvda ro console=hvc0"
    assert build["type.hvm"]["serial"] == "pty"


def test_xl_reads_pygrub_and_grub_guests(xen: Path) -> None:
    build = read_config(xen, make_guest(boot=Pygrub("pygrub", ("--entry=1", "-q"))))["b_info"]
    assert (build["bootloader"], build["bootloader_args"]) == ("pygrub", ["--entry=1", "-q"])
    own = read_config(xen, make_guest(boot=Pygrub(LAUNCHER, user="pygrub-web1")))["b_info"]
    assert (own["bootloader"], own["bootloader_args"]) == (LAUNCHER, ["--runas=pygrub-web1"])
    grub = "/usr/lib/grub-xen/grub-i386-xen_pvh.bin"
    config = read_config(xen, make_guest(type="pvh", boot=Grub(grub)))
    assert (config["c_info"]["type"], config["b_info"]["kernel"]) == ("pvh", grub)


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ('a = "x"; b = 2\n', True),
        ("a = [\n 'x', # one\n 'y',\n]\n", True),
        ('a = ["x"]\na += ["y"]\n', True),
        (r'a = "q\"u\\o\'te"' + "\n", True),
        ("a = 0x10\n", True),
        ('A = "x"\n', False),
        ('a = "x" b = "y"\n', False),
        ("a = foo\n", False),
        ('a = "x\ny"\n', False),
        ('a = "x"\r\n', False),
        (r'a = "\q"' + "\n", False),
        ('a = ["x" "y"]\n', False),
        ("a = -1\n", False),
        ('a = ("x",)\n', False),
        ('a =\n"x"\n', False),
    ],
)
def test_our_parser_and_xl_agree_on_what_can_be_read(xen: Path, text: str, readable: bool) -> None:
    guest = 'name = "x"\nkernel = "/k"\nmemory = 64\n' + text
    assert (dry_run(xen, guest).returncode == 0) is readable
    try:
        read_assignments(guest)
    except SyntaxFault:
        assert not readable
    else:
        assert readable


@pytest.mark.parametrize("modern", [True, False])
def test_pygrub_reads_the_menus_that_we_write(xen: Path, modern: bool) -> None:
    entries = [
        MenuEntry(
            "Debian, Linux 6.1",
            "/boot/vmlinuz",
            "/boot/initrd.img",
            "root=/dev/xvda1 ro console=hvc0",
        ),
        MenuEntry("Old one", "/boot/vmlinuz.old", None, "root=UUID=1234 ro"),
    ]
    text = render_menus(entries)[modern]
    package = next((xen / "root/usr/lib").glob("xen-*/lib/python"))
    menu = xen / "menu"
    menu.write_text(text)
    script = (
        "import json, sys\n"
        f"sys.path.insert(0, {str(package)!r})\n"
        "from grub import GrubConf\n"
        f"menu = GrubConf.{'Grub2ConfigFile' if modern else 'GrubConfigFile'}({str(menu)!r})\n"
        "print(json.dumps([menu.default] + [[i.title, i.kernel[1], i.initrd and i.initrd[1],"
        " i.args] for i in menu.images]))\n"
    )
    done = run_tool("/usr/bin/python3", "-c", script)
    assert (done.returncode, done.stderr.replace("WARNING:root:", "").strip()) == (0, ""), text
    wanted = [[e.title, e.kernel, e.initrd, e.args] for e in entries]
    assert json.loads(done.stdout) == [0, *wanted]
    ours = (parse_grub_cfg if modern else parse_menu_lst)(text)
    assert list(ours.entries) == entries
