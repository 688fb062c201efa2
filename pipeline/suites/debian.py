"""Debian's releases, newest first; each says what was different in it from the one after.

Package names were checked against the indexes of bullseye to sid; facts about older releases come
from their release notes and are untried.
"""

from dataclasses import replace
from typing import Any

from pipeline.suites.suite import EXT4_OLD, KEYRINGS, Suite

_SERVING = ("openssh-server", "iproute2", "netbase")
_DAILY = ("udev", "kmod", "tzdata", "e2fsprogs", *_SERVING)
SYSTEMD = ("systemd", "systemd-sysv", "dbus", *_DAILY)
# systemd-resolved is a package of its own from 251 on (bookworm, noble); before, part of systemd.
SYSTEMD_RESOLVED = (*SYSTEMD, "systemd-resolved")
_SYSTEMD_IFUPDOWN = (*SYSTEMD, "ifupdown", "isc-dhcp-client")
# initscripts is only recommended by sysv-rc; from trixie on it is what ships /etc/init.d/udev.
_SYSVINIT = ("sysvinit-core", "sysvinit-utils", "initscripts", *_DAILY, "ifupdown")
_SYSVINIT_DHCLIENT = (*_SYSVINIT, "isc-dhcp-client")
_SYSVINIT_DHCPCD = (*_SYSVINIT, "dhcpcd-base", "orphan-sysvinit-scripts")  # forky: no dhclient
_OLD_INIT = ("sysvinit", "sysvinit-utils", "initscripts", "udev", "ifupdown")
_OLD = (*_OLD_INIT, "openssh-server", "iproute", "netbase", "tzdata", "e2fsprogs")
_CLOUD = ("linux-image-cloud-amd64", "linux-image-amd64")
_PAE = ("linux-image-686-pae", "linux-image-686-pae")
_YESCRYPT = ("$y$", "$gy$", "$7$", "$2b$", "$2y$", "$6$", "$5$", "$1$")  # libxcrypt's, crypt(5)
_REMOVED_KEYS = f"{KEYRINGS}/debian-archive-removed-keys.gpg"
SID = Suite(
    name="sid",
    distribution="debian",
    version="unstable",
    init_default="systemd",
    inits=("systemd", "sysvinit"),
    kernels={"amd64": _CLOUD},  # i386 lost its kernels in trixie
    system_packages={"systemd": SYSTEMD_RESOLVED, "sysvinit": _SYSVINIT_DHCPCD},
    sources_form="deb822",
    nic_naming="enX",
    has_networkd=True,
    password_hash="yescrypt",
    hash_prefixes=_YESCRYPT,
    openssh=(10, 0),
    kernel_version=(6, 12),
    compressions=("zstd", "zstd"),
)


def older(
    newer: Suite,
    name: str,
    version: str,
    supported_until: str,
    kernel_version: tuple[int, int],
    openssh: tuple[int, int],
    **changes: Any,
) -> Suite:
    """The release before `newer`, of the same distribution unless `changes` say otherwise.

    An archived one has no updates: they went into its last point release.
    """
    own = {"name": name, "version": version, "supported_until": supported_until, **changes}
    made = replace(newer, kernel_version=kernel_version, openssh=openssh, **own)
    if made.is_archived:
        return replace(made, security_suite=f"{name}/updates", updates_suite="")
    return replace(made, security_suite=f"{name}-security", updates_suite=f"{name}-updates")


_FORKY = older(SID, "forky", "14", "", (6, 12), (10, 0))
_TRIXIE = older(
    *(_FORKY, "trixie", "13", "2030-06-30", (6, 12), (10, 0)), has_parallel_bootstrap=True
)
_BOOKWORM = older(
    *(_TRIXIE, "bookworm", "12", "2028-06-30", (6, 1), (9, 2)),
    compressions=("lz4", "xz"),
    needs_merged_usr=True,
    kernels={"amd64": _CLOUD, "i386": _PAE},
    system_packages={"systemd": SYSTEMD_RESOLVED, "sysvinit": _SYSVINIT_DHCLIENT},
    sources_form="one-line",
)
_BULLSEYE = older(
    *(_BOOKWORM, "bullseye", "11", "2026-08-31", (5, 10), (8, 4)),
    needs_merged_usr=False,
    system_packages={"systemd": SYSTEMD, "sysvinit": _SYSVINIT_DHCLIENT},
    nic_naming="eth",
)
_BUSTER = older(
    *(_BULLSEYE, "buster", "10", "2024-06-30", (4, 19), (7, 9)),
    has_parallel_bootstrap=False,
    compressions=("", ""),
    keyring=_REMOVED_KEYS,
    is_archived=True,
    kernels={"amd64": ("linux-image-amd64", "linux-image-amd64"), "i386": _PAE},
    system_packages={"systemd": _SYSTEMD_IFUPDOWN, "sysvinit": _SYSVINIT_DHCLIENT},
    has_networkd=False,
    password_hash="sha512",
    hash_prefixes=("$6$", "$5$", "$1$"),  # glibc's crypt, before libxcrypt
)
_STRETCH = older(_BUSTER, "stretch", "9", "2022-06-30", (4, 9), (7, 4))
_JESSIE = older(*(_STRETCH, "jessie", "8", "2020-06-30", (3, 16), (6, 7)), ext4_features=EXT4_OLD)
_WHEEZY = older(
    *(_JESSIE, "wheezy", "7", "2018-05-31", (3, 2), (6, 0)),
    init_default="sysvinit",
    inits=("sysvinit",),
    system_packages={"sysvinit": (*_OLD, "kmod", "isc-dhcp-client")},
    filesystems=("ext4", "ext3", "ext2"),  # today's mkfs.xfs makes nothing that 3.2 can mount
    needs_vsyscall=True,  # eglibc 2.13
    libc_xen_package="libc6-xen",
)
_SQUEEZE = older(
    *(_WHEEZY, "squeeze", "6", "2016-02-29", (2, 6), (5, 5)),
    kernels={"amd64": ("linux-image-2.6-amd64",) * 2, "i386": ("linux-image-2.6-686-bigmem",) * 2},
    system_packages={"sysvinit": (*_OLD, "module-init-tools", "isc-dhcp-client")},
    has_inrelease=False,  # from wheezy on
    has_run=False,  # wheezy's release goal
    default_locale="C",  # C.UTF-8 came with wheezy's libc-bin
)
_LENNY = older(
    *(_SQUEEZE, "lenny", "5.0", "2012-02-06", (2, 6), (5, 1)),
    xen_modules={"amd64": "linux-modules-2.6-xen-amd64", "i386": "linux-modules-2.6-xen-686"},
    kernels={"amd64": ("linux-image-2.6-xen-amd64",) * 2, "i386": ("linux-image-2.6-xen-686",) * 2},
    system_packages={"sysvinit": (*_OLD, "module-init-tools", "dhcp3-client")},
    filesystems=("ext3", "ext2"),  # 2.6.26 has only ext4dev
    default_fs="ext3",
    inode_size=128,
    own_xen="3.2",
    has_old_tools=True,
)
_ETCH = older(
    *(_LENNY, "etch", "4.0", "2010-02-15", (2, 6), (4, 3)),
    console="tty1",  # 2.6.18-xen: the console is tty1, hvc0 came with 2.6.26
    disk_device="sda",
    own_xen="3.0",
    log_package="sysklogd",
    password_hash="md5",  # glibc 2.3.6; SHA-crypt came with 2.7
    hash_prefixes=("$1$",),
)

DEBIAN = (
    *(SID, _FORKY, _TRIXIE, _BOOKWORM, _BULLSEYE, _BUSTER, _STRETCH, _JESSIE, _WHEEZY),
    *(_SQUEEZE, _LENNY, _ETCH),
)
