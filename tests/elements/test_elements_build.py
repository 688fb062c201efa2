"""Real builds: base trees, disk-image-create, and a look at the tree that comes out."""

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.elements.rootfs_build import EPOCH, Build, Host, build_rootfs

pytestmark = pytest.mark.integration

ABI = "9.9.9-9-test"
GUEST = (
    "kernel-modules xen-udev xen-console ssh-server debconf-priority timezone-locale "
    "guest-sources domu-network lean-boot"
).split()


def guest_settings(host: Host, folder: Path) -> dict[str, str]:
    modules = folder / "modules" / ABI
    (modules / "kernel").mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/a.ko:\n")
    (modules / "kernel/a.ko").write_text("a module")
    sources = folder / "guest.sources"
    sources.write_text(f"Types: deb\nURIs: http://mirror.test/debian\nSuites: {host.suite}\n")
    return {
        "DIB_KERNEL_MODULES_DIR": str(modules.parent),
        "DIB_GUEST_SOURCES_FILE": str(sources),
        "DIB_TIMEZONE_LOCALE_ZONE": "Europe/Paris",
        "DIB_DOMU_BUILD_SOURCES": str(host.sources),
        "DIB_DOMU_APT_LISTS": str(host.lists),
    }


def succeeded(build: Build) -> Build:
    assert build.returncode == 0, "\n".join(build.log.splitlines()[-40:])
    return build


def digest(build: Build) -> str:
    return hashlib.sha256(build.tar.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def systemd(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A systemd guest with our elements, two that diskimage-builder ships, and no packages."""
    folder = tmp_path_factory.mktemp("systemd")
    settings = guest_settings(host, folder) | {"DIB_MODPROBE_BLACKLIST": "floppy"}
    elements = [*GUEST, "modprobe", "sysprep"]
    return succeeded(build_rootfs(host, folder / "work", elements, settings=settings))


@pytest.fixture(scope="module")
def sysvinit(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("sysvinit")
    settings = guest_settings(host, folder) | {"DIB_XEN_CONSOLE_TTYS": "tty1"}
    elements = [*GUEST, "drbd-service"]
    return succeeded(
        build_rootfs(host, folder / "work", elements, init="sysvinit", settings=settings)
    )


@pytest.fixture(scope="module")
def packages(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """DRBD, an own kernel, and a user's element that leans on what diskimage-builder offers."""
    folder = tmp_path_factory.mktemp("packages")
    element = folder / "elements" / "site-words"
    (element / "static/etc").mkdir(parents=True)
    (element / "install.d").mkdir()
    (element / "static/etc/site-words").write_text("from static\n")
    (element / "element-deps").write_text("install-static\npackage-installs\n")
    (element / "package-installs.yaml").write_text("tree:\n")
    (element / "README.rst").write_text("site-words\n==========\n")
    hook = element / "install.d/60-site-words"
    hook.write_text("#!/bin/bash\nset -eu\ninstall-packages less\npython3 -c 'import json'\n")
    hook.chmod(0o755)
    settings = guest_settings(host, folder) | {
        "DIB_DOMU_PACKAGES": "bc file",
        "DIB_GRUB_MENUS_KERNEL": "linux-image-cloud-amd64",
        "DIB_GRUB_MENUS_ROOT": "/dev/xvda2",
    }
    return succeeded(
        build_rootfs(
            host,
            folder / "work",
            ["drbd", "grub-menus", "guest-sources", "site-words"],
            settings=settings,
            elements_path=[element.parent],
        )
    )


@pytest.fixture
def systemd_tree(systemd: Build, tmp_path: Path) -> Path:
    return unpack(systemd, tmp_path)


def unpack(build: Build, folder: Path) -> Path:
    subprocess.run(["tar", "-xf", build.tar, "-C", folder, "--numeric-owner"], check=True)
    return folder


def run_in(tree: Path, script: str) -> str:
    done = subprocess.run(
        ["chroot", tree, "sh", "-euc", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["systemd", "sysvinit", "packages"])
def test_the_tree_holds_no_identity_and_no_trace_of_the_build(
    kind: str, request: pytest.FixtureRequest
) -> None:
    build: Build = request.getfixturevalue(kind)
    members = build.members()
    for mount_point in ("proc", "sys", "dev", "run", "tmp"):
        assert members[mount_point].isdir()
        assert not [name for name in members if name.startswith(f"{mount_point}/")]
    unwanted = re.compile(
        r"etc/ssh/ssh_host_|etc/hostname$|etc/\.resolv|etc/(passwd|group|shadow|gshadow)-$|.*\.pyc$"
        r"|var/lib/(systemd/random-seed|dbus/machine-id)|var/cache/ldconfig/aux|.*/\.ssh/."
        r"|usr/sbin/policy-rc|etc/(apt|dpkg)/.*domu-build|usr/local/bin/.*install-packages"
        r"|var/lib/apt/lists/(?!partial$)|var/cache/apt/.*(bin|deb|lock)$|var/cache/debconf/.*-old"
    )
    assert [name for name in members if unwanted.match(name)] == []
    logs = [member for name, member in members.items() if name.startswith("var/log/")]
    assert sum(member.size for member in logs if member.isfile()) == 0
    if "etc/machine-id" in members:
        assert build.text("etc/machine-id") == ""
    days = {line.split(":")[2] for line in build.text("etc/shadow").splitlines()}
    assert days == {str(EPOCH // 86400)}
    assert build.text("etc/shadow").startswith("root:*:") or "\nroot:*:" in build.text("etc/shadow")
    assert max(member.mtime for member in members.values()) <= EPOCH
    assert not any(member.isdev() for member in members.values())
    assert not any(path.name.startswith("dib_") for path in build.work.iterdir())
    assert "still mounted" not in build.log


@pytest.mark.parametrize("kind", ["systemd", "sysvinit"])
def test_what_every_guest_has(kind: str, request: pytest.FixtureRequest, host: Host) -> None:
    build: Build = request.getfixturevalue(kind)
    members = build.members()
    assert f"usr/lib/modules/{ABI}/kernel/a.ko" in members
    assert members["etc/localtime"].linkname == "/usr/share/zoneinfo/Europe/Paris"
    assert build.text("etc/timezone") == "Europe/Paris\n"
    assert build.text("etc/default/locale") == "LANG=C.UTF-8\n"
    sources = [name for name in members if re.fullmatch(r"etc/apt/sources.list(\.d/.+)?", name)]
    assert [name for name in sources if members[name].isfile()] == [
        f"etc/apt/sources.list.d/{host.distro}.sources"
    ]
    assert f"Suites: {host.suite}\n" in build.text(sources[-1])
    assert "Value: medium" in build.text("var/cache/debconf/config.dat")


def test_systemd_guest_has_console_network_and_ssh_from_the_first_boot(systemd: Build) -> None:
    links = {name: member.linkname for name, member in systemd.members().items() if member.issym()}
    units = "etc/systemd/system"
    getty = links[f"{units}/getty.target.wants/serial-getty@hvc0.service"]
    assert getty == "/lib/systemd/system/serial-getty@.service"
    assert f"{units}/getty.target.wants/getty@tty1.service" not in links
    for masked in ("getty-static.service", "e2scrub_reap.service", "fstrim.timer"):
        assert links[f"{units}/{masked}"] == "/dev/null"
    for wanted in ("multi-user.target.wants/ssh", "multi-user.target.wants/systemd-networkd"):
        assert f"{units}/{wanted}.service" in links
    assert links["etc/resolv.conf"] == "../run/systemd/resolve/resolv.conf"
    assert "--timeout=30" in systemd.text(
        f"{units}/systemd-networkd-wait-online.service.d/domu-network.conf"
    )


def test_elements_that_dib_ships_work(systemd: Build) -> None:
    assert systemd.text("etc/modprobe.d/blacklist.conf") == "blacklist floppy\n"


def test_sshd_lets_in_keys_and_nothing_else(systemd_tree: Path) -> None:
    (systemd_tree / "dev/null").touch()
    says = run_in(
        systemd_tree,
        "mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f /tmp/key; sshd -T -h /tmp/key",
    )
    for line in (
        *("permitrootlogin without-password", "passwordauthentication no"),
        *("kbdinteractiveauthentication no", "pubkeyauthentication yes", "usepam yes"),
    ):
        assert f"{line}\n" in says
    assert "debconf/priority: medium" in run_in(systemd_tree, "debconf-show debconf")


def test_sysvinit_guest_has_its_getty_line_and_mounts(sysvinit: Build) -> None:
    lines = sysvinit.text("etc/inittab").splitlines()
    gettys = [line for line in lines if "getty" in line and not line.startswith("#")]
    assert gettys == [
        "1:2345:respawn:/sbin/getty 38400 hvc0",
        "v1:2345:respawn:/sbin/getty 38400 tty1",
    ]
    assert " /dev/pts devpts " in sysvinit.text("etc/fstab")
    assert " /dev/shm tmpfs " in sysvinit.text("etc/fstab")
    assert "Driver=vif" in sysvinit.text("etc/systemd/network/10-domu-network.link")
    assert "iface lo inet loopback" in sysvinit.text("etc/network/interfaces")
    assert sysvinit.text("etc/resolv.conf") == ""
    names = sysvinit.members()
    started = ("rc2\\.d/S\\d\\dssh", "rc2\\.d/S\\d\\ddrbd", "rcS\\.d/S\\d\\de?udev")
    for start in (*started, "rcS\\.d/S\\d\\dnetworking"):
        assert [name for name in names if re.fullmatch(f"etc/{start}", name)], start


def test_packages_come_from_the_callers_lists_and_leave_nothing(packages: Build) -> None:
    members = packages.members()
    for program in ("usr/bin/bc", "usr/bin/file", "usr/sbin/drbdadm"):
        assert program in members
    assert packages.text("etc/modules-load.d/drbd.conf") == "drbd\n"
    assert "etc/systemd/system/multi-user.target.wants/drbd.service" not in members
    assert not re.search(r"^\S+ \S+ \| Get:\d+ .* (InRelease|Packages)", packages.log, re.M)
    assert not [name for name in members if name.startswith("var/cache/apt/") and ".deb" in name]


def test_an_element_of_ones_own_works(packages: Build) -> None:
    members = packages.members()
    assert packages.text("etc/site-words") == "from static\n"
    assert "usr/bin/tree" in members, "package-installs"
    assert "usr/bin/less" in members, "install-packages"


def test_menus_follow_the_kernels_newest_first(packages: Build, tmp_path: Path) -> None:
    kernel = re.escape(next(n for n in packages.members() if n.startswith("boot/vmlinuz-"))[13:])
    cfg = packages.text("boot/grub/grub.cfg")
    assert re.search(
        rf'^menuentry "Linux {kernel}" {{\n'
        rf"    linux /boot/vmlinuz-{kernel} root=/dev/xvda2 ro console=hvc0\n"
        rf"    initrd /boot/initrd.img-{kernel}\n}}$",
        cfg,
        re.M,
    )
    tree = unpack(packages, tmp_path)
    for version in ("6.1.0-9-amd64", "99.1.0-10-amd64", "99.1.0-9-amd64", "5.0.dpkg-new"):
        (tree / f"boot/vmlinuz-{version}").touch()
        (tree / f"boot/initrd.img-{version}").touch()
    run_in(tree, "/etc/kernel/postinst.d/zz-xen-grub-menus 99.1.0-10-amd64")
    titles = re.findall(r"^title Linux (\S+)", (tree / "boot/grub/menu.lst").read_text(), re.M)
    assert titles[:2] == ["99.1.0-10-amd64", "99.1.0-9-amd64"]
    assert titles[-1] == "6.1.0-9-amd64"
    assert len(titles) == 4
    entries = re.findall(
        r'^menuentry "Linux (\S+)"', (tree / "boot/grub/grub.cfg").read_text(), re.M
    )
    assert entries == titles


def test_the_initrd_holds_the_disk_driver_and_little_else(packages: Build, tmp_path: Path) -> None:
    members = packages.members()
    initrd = next(member for name, member in members.items() if name.startswith("boot/initrd.img-"))
    assert initrd.size < 8_000_000


@pytest.fixture
def refused(host: Host, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Build]:
    elements, settings = request.param
    given = guest_settings(host, tmp_path)
    (tmp_path / "stable.list").write_text("deb http://mirror.test/debian stable main\n")
    given |= {key: value.format(folder=tmp_path) for key, value in settings.items()}
    yield build_rootfs(host, tmp_path / "work", elements, settings=given)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (
            (["guest-sources"], {"DIB_GUEST_SOURCES_FILE": "{folder}/stable.list"}),
            "guest-sources: name the release instead of: stable",
        ),
        (
            (["timezone-locale"], {"DIB_TIMEZONE_LOCALE_ZONE": "Europe/Lutetia"}),
            "timezone-locale: no such zone: Europe/Lutetia",
        ),
    ],
    indirect=["refused"],
    ids=["stable", "zone"],
)
def test_a_wrong_value_stops_the_build_and_says_so(refused: Build, message: str) -> None:
    assert refused.returncode != 0
    assert message in refused.log
    assert not refused.tar.exists()
