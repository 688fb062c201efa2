"""What is in the packages of the old archive: files of today's packages, and their own.

The programs are today's, for the architecture that they say; names, layout, scripts and what the
old ones could not do are of that time: update-rc.d makes the links itself, mktemp has no long
options, find no -executable, dpkg no dpkg.cfg.d, sshd one configuration file, init an inittab.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.host.old.kernel import make_vmlinuz, module_files

REQUIRED, IMPORTANT, OPTIONAL = "required", "important", "optional"


@dataclass(frozen=True)
class OldPackage:
    """A package: whose files it takes over, without which, its own files and links, its postinst.

    `files` with a shell's first line, or below a bin/ or sbin/, can be run.
    """

    name: str
    donors: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    postinst: str = ""
    depends: str = ""
    priority: str = OPTIONAL
    version: str = "1.0"


INITTAB = b"""\
id:2:initdefault:
si::sysinit:/etc/init.d/rcS
~~:S:wait:/sbin/sulogin
l2:2:wait:/etc/init.d/rc 2
ca:12345:ctrlaltdel:/sbin/shutdown -t1 -a -r now
1:2345:respawn:/sbin/getty 38400 tty1
2:23:respawn:/sbin/getty 38400 tty2
"""
SSHD_CONFIG = b"""\
Port 22
HostKey /etc/ssh/ssh_host_rsa_key
PermitRootLogin yes
PermitEmptyPasswords no
ChallengeResponseAuthentication no
#PasswordAuthentication yes
UsePAM yes
"""
UPDATE_RC_D = b"""#!/bin/sh
# The form of 2007: NAME defaults, NAME remove, or NAME start NN LEVELS . stop NN LEVELS .
set -e
while [ "${1#-}" != "$1" ]; do shift; done
name=$1
shift
case "$1" in
    remove) rm -f /etc/rc?.d/[SK][0-9][0-9]"$name"; exit ;;
    defaults) set -- start "${2:-20}" 2 3 4 5 . stop "${3:-20}" 0 1 6 . ;;
esac
while [ $# -gt 0 ]; do
    case "$1" in
        start) letter=S ;;
        stop) letter=K ;;
        *) echo "usage: update-rc.d NAME defaults|remove|start NN LEVELS ." >&2; exit 1 ;;
    esac
    number=$2
    shift 2
    while [ "$1" != . ]; do
        ln -sf "../init.d/$name" "/etc/rc$1.d/$letter$number$name"
        shift
    done
    shift
done
"""
MKTEMP = b"""#!/bin/sh
for word; do
    case "$word" in
        --*) echo "mktemp: unrecognized option '$word'" >&2; exit 1 ;;
    esac
done
exec /usr/lib/mktemp/mktemp "$@"
"""
FIND = b"""#!/bin/sh
for word; do
    case "$word" in
        -executable) echo "find: invalid predicate '$word'" >&2; exit 1 ;;
    esac
done
exec /usr/lib/findutils/find "$@"
"""
APT_CONF = b"""\
// apt before 0.9.7 warned of what it could not verify, and went on
Acquire::AllowInsecureRepositories "true";
APT::Sandbox::User "root";
"""
_ACCOUNTS = """
if [ ! -e /etc/passwd ]; then
    cp /usr/share/base-passwd/passwd.master /etc/passwd
    cp /usr/share/base-passwd/group.master /etc/group
    sed 's/^\\([^:]*\\):[^:]*:.*/\\1:*:14000:0:99999:7:::/' /etc/passwd > /etc/shadow
    sed -i 's/^\\([^:]*\\):[^:]*:/\\1:x:/' /etc/passwd
    chmod 640 /etc/shadow
    chown 0:42 /etc/shadow
fi
"""
_FOLDERS = (
    *"boot dev home mnt opt proc root srv sys usr/local/bin usr/local/sbin".split(),
    *("var/backups", "var/cache", "var/lib/misc", "var/lock", "var/log", "var/mail", "var/run"),
    *("var/spool", "etc/init.d", *(f"etc/rc{level}.d" for level in "0123456S")),
)


def packages(rest: Iterable[str], abis: Iterable[str]) -> Iterator[OldPackage]:
    """Every package of a minimal etch or lenny; `rest` are the donors that are libraries."""
    yield from _essential(tuple(rest))
    yield from _booting()
    yield from _serving()
    for abi in abis:
        yield from _kernels(abi)


def _plain(names: str, priority: str) -> Iterator[OldPackage]:
    for name in names.split():
        yield OldPackage(name, donors=(name,), priority=priority)


def _essential(rest: tuple[str, ...]) -> Iterator[OldPackage]:
    yield OldPackage(
        "base-files",
        files={"etc/debian_version": b"5.0\n", "etc/motd": b"", "etc/issue": b"Debian\n"},
        folders=(*_FOLDERS, "tmp", "var/tmp"),
        postinst="chmod 1777 /tmp /var/tmp\n",
        priority=REQUIRED,
    )
    yield OldPackage("base-passwd", ("base-passwd",), postinst=_ACCOUNTS, priority=REQUIRED)
    yield OldPackage("libc6", ("libc-bin", *rest), priority=REQUIRED)
    yield OldPackage("bash", ("bash",), links={"bin/sh": "bash"}, priority=REQUIRED)
    yield OldPackage("coreutils", ("coreutils",), ("bin/mktemp",), priority=REQUIRED)
    yield OldPackage("mktemp", files={"bin/mktemp": MKTEMP}, priority=REQUIRED)
    yield OldPackage("findutils", ("findutils",), files={"usr/bin/find": FIND}, priority=REQUIRED)
    yield OldPackage("dpkg", ("dpkg",), ("etc/dpkg/dpkg.cfg.d",), priority=REQUIRED)
    yield OldPackage(
        "mawk",
        ("mawk",),
        postinst="update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5\n",
        priority=REQUIRED,
    )
    yield OldPackage("diff", ("diffutils",), priority=REQUIRED)
    yield OldPackage("debconf", ("debconf",), folders=("var/cache/debconf",), priority=REQUIRED)
    yield OldPackage(
        "login", ("login",), files={"etc/securetty": b"console\ntty1\ntty2\n"}, priority=REQUIRED
    )
    yield from _plain(
        "bsdutils debianutils e2fsprogs grep gzip hostname mount passwd perl-base sed tar "
        "util-linux",
        REQUIRED,
    )
    yield OldPackage(
        "apt", ("apt",), files={"etc/apt/apt.conf.d/00old": APT_CONF}, priority=IMPORTANT
    )


def _booting() -> Iterator[OldPackage]:
    yield OldPackage(
        "sysv-rc",
        files={"usr/sbin/update-rc.d": UPDATE_RC_D, "etc/init.d/rc": b"#!/bin/sh\n"},
        priority=REQUIRED,
    )
    yield OldPackage(
        "sysvinit",
        ("sysvinit-core",),
        files={"etc/inittab": INITTAB},
        postinst="touch /var/lib/misc/sysvinit-configured\n",
        depends="sysvinit-utils, initscripts, sysv-rc",
        priority=REQUIRED,
    )
    yield from _plain("initscripts sysvinit-utils", REQUIRED)
    yield OldPackage(
        "udev", ("udev",), postinst="update-rc.d udev start 03 S .\n", depends="sysv-rc"
    )
    yield OldPackage("module-init-tools", ("kmod",))


def _serving() -> Iterator[OldPackage]:
    yield OldPackage(
        "openssh-server",
        ("openssh-server", "openssh-client", "openssh-sftp-server"),
        files={"etc/ssh/sshd_config": SSHD_CONFIG},
        postinst="[ -e /etc/ssh/ssh_host_rsa_key ] "
        "|| ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/ssh_host_rsa_key\n"
        "update-rc.d ssh defaults\n",
        depends="libc6, debconf, sysv-rc",
    )
    yield OldPackage("dhcp3-client", ("isc-dhcp-client",))
    yield OldPackage(
        "ifupdown",
        ("ifupdown",),
        postinst="update-rc.d networking start 40 S .\n",
        depends="sysv-rc",
    )
    yield OldPackage("iproute", ("iproute2",))
    yield OldPackage("libc6-xen", files={"etc/ld.so.conf.d/libc6-xen.conf": b"hwcap 1 nosegneg\n"})
    yield OldPackage("drbd8-utils", files={"sbin/drbdadm": b"#!/bin/sh\n"})
    yield from _plain("netbase procps tzdata", OPTIONAL)


def _kernels(abi: str) -> Iterator[OldPackage]:
    """The split packages of a Xen kernel, the modules in one of their own."""
    version = abi.partition("-")[0]
    config = b"CONFIG_XEN=y\nCONFIG_X86_PAE=y\n"
    modules = f"linux-modules-{abi}"
    yield OldPackage(modules, files=module_files(abi), version=version)
    yield OldPackage(
        f"linux-image-{abi}",
        files={f"boot/vmlinuz-{abi}": make_vmlinuz(abi), f"boot/config-{abi}": config},
        depends=f"{modules} (= {version})",
        version=version,
    )
