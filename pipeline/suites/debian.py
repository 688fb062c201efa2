"""Debian's releases, newest first; each says what was different in it from the one after.

Package names were checked against the indexes of bullseye to sid; facts about older releases come
from their release notes and are untried.
"""

from dataclasses import replace

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
_FORKY = replace(
    SID,
    name="forky",
    version="14",
    security_suite="forky-security",
    updates_suite="forky-updates",
)
_TRIXIE = replace(
    _FORKY,
    name="trixie",
    has_parallel_bootstrap=True,
    supported_until="2030-06-30",
    kernel_version=(6, 12),
    version="13",
    security_suite="trixie-security",
    updates_suite="trixie-updates",
)
_BOOKWORM = replace(
    _TRIXIE,
    name="bookworm",
    supported_until="2028-06-30",
    kernel_version=(6, 1),
    compressions=("lz4", "xz"),
    version="12",
    needs_merged_usr=True,
    security_suite="bookworm-security",
    updates_suite="bookworm-updates",
    kernels={"amd64": _CLOUD, "i386": _PAE},
    system_packages={"systemd": SYSTEMD_RESOLVED, "sysvinit": _SYSVINIT_DHCLIENT},
    sources_form="one-line",
    openssh=(9, 2),
)
_BULLSEYE = replace(
    _BOOKWORM,
    name="bullseye",
    supported_until="2026-08-31",
    kernel_version=(5, 10),
    version="11",
    needs_merged_usr=False,
    security_suite="bullseye-security",
    updates_suite="bullseye-updates",
    system_packages={"systemd": SYSTEMD, "sysvinit": _SYSVINIT_DHCLIENT},
    nic_naming="eth",
    openssh=(8, 4),
)
_BUSTER = replace(
    _BULLSEYE,
    name="buster",
    has_parallel_bootstrap=False,
    supported_until="2024-06-30",
    kernel_version=(4, 19),
    compressions=("", ""),
    version="10",
    keyring=_REMOVED_KEYS,
    is_archived=True,
    security_suite="buster/updates",
    updates_suite="",  # an archived suite has none: it went into the last point release
    kernels={"amd64": ("linux-image-amd64", "linux-image-amd64"), "i386": _PAE},
    system_packages={"systemd": _SYSTEMD_IFUPDOWN, "sysvinit": _SYSVINIT_DHCLIENT},
    has_networkd=False,
    password_hash="sha512",
    hash_prefixes=("$6$", "$5$", "$1$"),  # glibc's crypt, before libxcrypt
    openssh=(7, 9),
)
_STRETCH = replace(
    _BUSTER,
    name="stretch",
    supported_until="2022-06-30",
    kernel_version=(4, 9),
    version="9",
    security_suite="stretch/updates",
    openssh=(7, 4),
)
_JESSIE = replace(
    _STRETCH,
    name="jessie",
    supported_until="2020-06-30",
    kernel_version=(3, 16),
    version="8",
    security_suite="jessie/updates",
    ext4_features=EXT4_OLD,
    openssh=(6, 7),
)
_WHEEZY = replace(
    _JESSIE,
    name="wheezy",
    supported_until="2018-05-31",
    kernel_version=(3, 2),
    version="7",
    security_suite="wheezy/updates",
    init_default="sysvinit",
    inits=("sysvinit",),
    system_packages={"sysvinit": (*_OLD, "kmod", "isc-dhcp-client")},
    filesystems=("ext4", "ext3", "ext2"),  # today's mkfs.xfs makes nothing that 3.2 can mount
    openssh=(6, 0),
    needs_vsyscall=True,  # eglibc 2.13
    libc_xen_package="libc6-xen",
)
_SQUEEZE = replace(
    _WHEEZY,
    name="squeeze",
    supported_until="2016-02-29",
    kernel_version=(2, 6),
    version="6",
    security_suite="squeeze/updates",
    kernels={"amd64": ("linux-image-2.6-amd64",) * 2, "i386": ("linux-image-2.6-686-bigmem",) * 2},
    system_packages={"sysvinit": (*_OLD, "module-init-tools", "isc-dhcp-client")},
    has_inrelease=False,  # from wheezy on
    has_run=False,  # wheezy's release goal
    default_locale="C",  # C.UTF-8 came with wheezy's libc-bin
    openssh=(5, 5),
)
_LENNY = replace(
    _SQUEEZE,
    name="lenny",
    xen_modules={"amd64": "linux-modules-2.6-xen-amd64", "i386": "linux-modules-2.6-xen-686"},
    supported_until="2012-02-06",
    kernel_version=(2, 6),
    version="5.0",
    security_suite="lenny/updates",
    kernels={"amd64": ("linux-image-2.6-xen-amd64",) * 2, "i386": ("linux-image-2.6-xen-686",) * 2},
    system_packages={"sysvinit": (*_OLD, "module-init-tools", "dhcp3-client")},
    filesystems=("ext3", "ext2"),  # 2.6.26 has only ext4dev
    default_fs="ext3",
    inode_size=128,
    own_xen="3.2",
    has_old_tools=True,
    openssh=(5, 1),
)
_ETCH = replace(
    _LENNY,
    name="etch",
    supported_until="2010-02-15",
    kernel_version=(2, 6),
    version="4.0",
    security_suite="etch/updates",
    console="tty1",  # 2.6.18-xen: the console is tty1, hvc0 came with 2.6.26
    disk_device="sda",
    own_xen="3.0",
    log_package="sysklogd",
    password_hash="md5",  # glibc 2.3.6; SHA-crypt came with 2.7
    hash_prefixes=("$1$",),
    openssh=(4, 3),
)

DEBIAN = (
    *(SID, _FORKY, _TRIXIE, _BOOKWORM, _BULLSEYE, _BUSTER, _STRETCH, _JESSIE, _WHEEZY),
    *(_SQUEEZE, _LENNY, _ETCH),
)
