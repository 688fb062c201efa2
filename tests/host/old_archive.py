"""An archive as etch and lenny had it, signed by a key that has expired, with packages that work.

The packages are named as the old ones, and have maintainer scripts that run; inside are today's
dpkg and libc from the build host and busybox, because the true archive is out of reach of the
tests. debootstrap's own etch and lenny scripts do the rest.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.host.archives import ARCH, Keys, ReleaseForm, SmallArchive

_DPKG = ("dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "dpkg-trigger", "dpkg-divert")
_APPLETS = ("sh", "true", "rm", "ls", "cat", "chmod", "chown", "cp", "mkdir", "mv", "ln", "touch")
_MORE = (
    "diff",
    "echo",
    "grep",
    "sed",
    "mount",
    "umount",
    "sleep",
    "test",
    "uname",
    "mknod",
    "install",
)
# what debootstrap's scripts install one by one, and what the table of suites wants in a DomU
_REQUIRED = ("bash", "coreutils", "debianutils", "diff", "findutils", "grep", "gzip", "login")
_PLAIN = ("sysvinit-utils", "initscripts", "udev", "ifupdown", "openssh-server", "iproute")
_DAILY = ("netbase", "tzdata", "e2fsprogs", "module-init-tools", "dhcp3-client", "debconf")
_INITTAB = (
    b"id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n1:2345:respawn:/sbin/getty 38400 tty1\n"
)
_FOLDERS = ("bin", "boot", "dev", "etc", "home", "lib", "mnt", "proc", "root", "sbin", "sys", "tmp")
_FOLDERS += ("usr/bin", "usr/sbin", "usr/lib", "var/log", "var/run", "var/tmp", "var/cache/apt")
_PASSWD = """#!/bin/sh
set -e
if [ "$1" = configure ] && [ ! -e /etc/passwd ]; then
    echo 'root::0:0:root:/root:/bin/sh' > /etc/passwd
    echo 'root::0:' > /etc/group
fi
"""


@dataclass(frozen=True)
class OldPackage:
    """A package: its priority, its files, links (path -> target), postinst."""

    name: str
    priority: str = "optional"
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    postinst: str = ""


def packages() -> Iterator[OldPackage]:
    """Everything that a minimal etch or lenny needs."""
    box = Path("/bin/busybox").read_bytes()
    applets = {f"bin/{name}": "busybox" for name in (*_APPLETS, *_MORE)}
    yield OldPackage("base-passwd", "required", postinst=_PASSWD)
    yield OldPackage("base-files", "required", {"etc/debian_version": b"5.0\n", "etc/motd": b""})
    yield OldPackage("libc6", "required", _libraries())
    yield OldPackage("dpkg", "required", _programs())
    yield OldPackage("busybox-tools", "required", {"bin/busybox": box}, applets)
    yield OldPackage("perl-base", "required", {"usr/share/doc/perl-base/readme": b"\n"})
    yield OldPackage("mawk", "required", links={"usr/bin/mawk": "/bin/busybox"})
    yield OldPackage("apt", "important", {"usr/share/doc/apt/readme": b"\n"})
    for name in _REQUIRED:
        yield OldPackage(name, "required", {f"usr/share/doc/{name}/readme": b"\n"})
    for name in (*_PLAIN, *_DAILY):
        yield OldPackage(name, files={f"usr/share/doc/{name}/readme": b"\n"})
    yield OldPackage(
        "sysvinit",
        files={"etc/inittab": _INITTAB},
        links={"sbin/init": "/bin/busybox"},
        postinst="#!/bin/sh\nset -e\ntouch /var/lib/sysvinit-configured\n",
    )
    yield OldPackage(
        "linux-modules-2.6.26-2-xen-686",
        files={"lib/modules/2.6.26-2-xen-686/modules.dep": b""},
    )


def _libraries() -> dict[str, bytes]:
    """The libraries that dpkg and tar need, where they look for them."""
    programs = [shutil.which(name) or "" for name in (*_DPKG, "tar")]
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    found = {word for word in said.split() if word.startswith("/lib") and not word.endswith(":")}
    files = {path.lstrip("/"): Path(path).read_bytes() for path in found}
    return files | {"sbin/ldconfig": Path("/sbin/ldconfig").read_bytes()}


def _programs() -> dict[str, bytes]:
    own = {f"usr/bin/{name}": _read(name) for name in _DPKG}
    own["bin/tar"] = _read("tar")
    own["sbin/start-stop-daemon"] = b"#!/bin/sh\nexit 0\n"
    own["etc/dpkg/dpkg.cfg"] = b"no-debsig\n"
    return own


def _read(name: str) -> bytes:
    path = shutil.which(name)
    assert path, name
    return Path(path).read_bytes()


def publish_old(root: Path, keys: Keys, signer: str, suite: str) -> SmallArchive:
    """A whole archive of one old suite, Release and Release.gpg apart, signed years ago."""
    archive = SmallArchive(root, keys)
    for package in packages():
        _build(root, package)
    form = ReleaseForm(
        codename=suite,
        suite="oldstable",
        dated_days_ago=1000,
        valid_days=0,
        has_by_hash=False,
        has_inrelease=False,
        signers=(signer,),
        signed_days_ago=1000,
    )
    archive.publish(suite, form)
    return archive


def _build(root: Path, package: OldPackage) -> None:
    tree = root / "build" / package.name
    for folder in _FOLDERS if package.name == "base-files" else ():
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for path, content in package.files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
        if "bin/" in path or path.startswith("lib"):
            (tree / path).chmod(0o755)
    for path, target in package.links.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {package.name}\nVersion: 1.0\nArchitecture: {ARCH}\n"
        f"Priority: {package.priority}\nSection: base\n"
        "Maintainer: Tests <tests@example.org>\nDescription: an old package for tests\n"
    )
    if package.postinst:
        (tree / "DEBIAN/postinst").write_text(package.postinst)
        (tree / "DEBIAN/postinst").chmod(0o755)
    pool = root / "debian/pool/main"
    pool.mkdir(parents=True, exist_ok=True)
    deb = pool / f"{package.name}_1.0_{ARCH}.deb"
    argv = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", str(tree), str(deb)]
    subprocess.run(argv, check=True, capture_output=True)
    shutil.rmtree(tree)
