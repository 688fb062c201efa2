"""xen-tools.conf as defaults: the shipped file's options, and what an administrator writes."""

import platform
import tomllib
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.spec import load_all
from pipeline.spec.xen_create_image.conf_file import (
    Taken,
    read_conf,
    render_defaults,
    translate_conf,
)

# what is not a comment in the file of Debian's xen-tools 4.9.2-1
SHIPPED = """\
install-method = debootstrap
size   = 4G       # Root disk, suffix (G, M, k) required
memory = 256M     # Suffix (G, M, k) required
#maxmem = 2G      # Suffix (G, M, k) optional
swap   = 512M     # Suffix (G, M, k) required
fs     = ext4     # Default file system for any disk
dist   = `xt-guess-suite-and-mirror --suite`
                  # Default distribution is determined by Dom0's distribution
image  = sparse   # Specify sparse vs. full disk images (file based images only)
kernel = /boot/vmlinuz-`uname -r`
initrd = /boot/initrd.img-`uname -r`
ext4_options     = noatime,nodiratime,errors=remount-ro
xfs_options      = defaults
"""


@pytest.fixture(autouse=True)
def bookworm(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: said)


def take(tmp_path: Path, text: str, suite: str = "") -> Taken:
    path = tmp_path / "xen-tools.conf"
    path.write_text(text)
    return translate_conf(read_conf(path), release="6.1.0-9-amd64", suite=suite)


def test_the_shipped_file_is_what_it_means_here(tmp_path: Path) -> None:
    taken = take(tmp_path, SHIPPED)
    assert taken.values == {
        "size": "4G",
        "memory": "256M",
        "swap": "512M",
        "fs": "ext4",
        "suite": "bookworm",
        "image": "sparse",
    }
    assert {name for name, _ in taken.left} == {"install_method", "kernel", "initrd"}
    noted = {note.partition(":")[0] for note in taken.notes}
    assert {"ext4_options", "xfs_options"} <= noted


def test_what_the_suite_of_the_command_line_cannot_have_is_left(tmp_path: Path) -> None:
    taken = take(tmp_path, SHIPPED, suite="lenny")
    assert "fs" not in taken.values
    assert dict(taken.left)["fs"] == "lenny cannot mount ext4"
    assert take(tmp_path, SHIPPED, suite="lenni") == take(tmp_path, SHIPPED)


def test_what_is_written_is_a_defaults_file_that_loads(tmp_path: Path) -> None:
    taken = take(
        tmp_path,
        f"{SHIPPED}lvm = vg0\nbridge = xendmz\ngateway = 192.168.1.1\nnetmask = 255.255.255.0\n"
        "nameserver = 192.168.1.1\nmirror = http://m.example.org/debian\npygrub = 1\n",
    )
    guests = tmp_path / "guests"
    guests.mkdir()
    text = render_defaults(taken, tmp_path / "xen-tools.conf", guests)
    (guests / "defaults.toml").write_text(text)
    (guests / "web1.toml").write_text('address = "192.168.1.5/24"\n')
    specs = load_all(guests)
    assert specs.broken is None
    spec = specs["web1"]
    assert (spec.lvm, spec.bridge, spec.gateway) == ("vg0", "xendmz", "192.168.1.1")
    assert (spec.boot, spec.mirror) == ("pygrub", "http://m.example.org/debian")
    assert "# kernel: " in text
    assert set(tomllib.loads(text)) == set(taken.values)


@pytest.mark.parametrize(
    ("line", "name", "reason"),
    [
        ("size = 4X", "size", "'4X' is not a size"),
        ("hostname = web1", "hostname", "belongs to one guest alone"),
        ("ip = 10.0.0.1", "ip", "belongs to one guest alone"),
        ("mirror = `ls /`", "mirror", "the output of a command, which is not run"),
        ("zpool = p", "zpool", "ZFS volumes are not made"),
        ("colour = red", "colour", "no such option"),
        ("dist = woody7", "suite", "woody7"),
        ("gateway = nonsense", "gateway", "nonsense"),
    ],
)
def test_what_cannot_be_is_left_out_with_the_reason(
    tmp_path: Path, line: str, name: str, reason: str
) -> None:
    taken = take(tmp_path, f"memory = 1G\n{line}\n")
    assert taken.values == {"memory": "1G"}
    assert [left for left, _ in taken.left] == [name]
    assert reason in taken.left[0][1]


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 2: 'nonsense' is not"):
        take(tmp_path, "size = 4G\nnonsense\n")


def test_a_line_that_ends_in_a_backslash_goes_on(tmp_path: Path) -> None:
    conf = tmp_path / "xen-tools.conf"
    conf.write_text("role = web,\\\n  db # two\nsize = 4G\n")
    assert read_conf(conf) == {"role": "web,  db", "size": "4G"}
