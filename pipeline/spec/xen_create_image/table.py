"""The table of xen-create-image's options (4.9.2 and 4.10), in the order of its manual."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import WrongValueError
from pipeline.spec.xen_create_image.roles import describe_role, translate_role

YES = frozenset({"", "1", "yes", "true", "on", "y"})
NO = frozenset({"0", "no", "false", "off", "n"})

Status = Literal["same", "different", "refused"]
Translate = Callable[[str], dict[str, str]]


@dataclass(frozen=True)
class Option:
    """One option: its names (with `_`), whether it exists here, the answer, and what it becomes."""

    section: str
    names: tuple[str, ...]
    status: Status
    answer: str
    translate: Translate
    note: Callable[[str], str] | None = None

    def note_for(self, value: str) -> str:
        """What a user is told who gave this value."""
        return self.note(value) if self.note else self.answer


def _same(section: str, name: str, key: str = "", more: str = "") -> Option:
    own = key or name
    answer = f"`{own}`" + (f"; {more}" if more else "")
    return Option(section, (name,), "same", answer, lambda value: {own: value})


def _becomes(
    section: str,
    names: str,
    answer: str,
    translate: Translate,
    *,
    status: Status = "same",
    note: Callable[[str], str] | None = None,
) -> Option:
    return Option(section, tuple(names.split()), status, answer, translate, note)


def _noted(section: str, names: str, answer: str) -> Option:
    return Option(section, tuple(names.split()), "different", answer, lambda _value: {})


def _refused(section: str, names: str, why: str, instead: str) -> Option:
    def refuse(_value: str) -> dict[str, str]:
        raise WrongValueError(why, instead)

    return Option(section, tuple(names.split()), "refused", f"{why}; {instead}", refuse)


def _flag(section: str, name: str, on: dict[str, str], off: dict[str, str], more: str) -> Option:
    return _becomes(section, name, more, lambda value: on if is_on(value) else off)


def is_on(value: str) -> bool:
    """A flag's value: bare means on; raises WrongValueError."""
    if value.lower() not in YES | NO:
        raise WrongValueError(f"'{value}' is neither yes nor no", "write yes or no")
    return value.lower() in YES


def accept_only(words: str, instead: str, why: str = "") -> Callable[[str], dict[str, str]]:
    """A translator that takes these words as saying nothing and refuses every other."""

    def translate(value: str) -> dict[str, str]:
        if value not in words.split():
            raise WrongValueError(why or f"'{value}' is not done", instead)
        return {}

    return translate


def translate_bootstrap(value: str) -> dict[str, str]:
    """debootstrap or mmdebstrap, also as a path."""
    name = value.rpartition("/")[2]
    if name not in ("debootstrap", "mmdebstrap"):
        raise WrongValueError(f"'{value}' is not done", "use debootstrap or mmdebstrap")
    return {"bootstrap": name}


def translate_address(value: str) -> dict[str, str]:
    """Addresses, separated by commas; ips.txt is not read."""
    if value == "auto":
        raise WrongValueError("'auto' is not done: ips.txt is not read", "use dhcp, or an address")
    return {"address": value}


_TARGET, _SIZE, _INSTALL = "Name and target", "Size", "Installation"
_BOOT, _NETWORK, _FILES, _CONTROL = "Boot and Xen", "Network", "Accounts and files", "Control"
_USE_DD = "build an image file, then dd it onto the device by hand"
_USE_ELEMENT = "write a diskimage-builder element and name it in `elements`"
_FIXED_NAMES = "disks are xvda and xvdb, the console is hvc0, or what the suite calls them"

_TABLE = (
    _becomes(
        _TARGET,
        "hostname",
        "`name` and `hostname`: the guest's file, folder and domain have the name",
        lambda value: {"name": value, "hostname": value},
    ),
    _noted(
        _TARGET,
        "dir",
        "made in output/guests/NAME/; `install` puts them into /var/lib/xen/images/NAME/",
    ),
    _same(_TARGET, "lvm", more="volumes `NAME-disk` and `NAME-swap`, written whole"),
    _same(_TARGET, "lvm_thin"),
    _refused(_TARGET, "evms", "EVMS is no longer maintained", "use lvm"),
    _refused(_TARGET, "zpool", "ZFS volumes are not made", _USE_DD),
    _same(_TARGET, "image_dev", more="needs `replace=yes` where something is on it"),
    _same(_TARGET, "swap_dev", more="needs `replace=yes` where something is on it"),
    _refused(_TARGET, "dontformat", "a device is written whole", "leave it out"),
    _same(_SIZE, "size"),
    _same(_SIZE, "swap"),
    _becomes(
        *(_SIZE, "noswap no_swap", '`swap = "0"`'),
        lambda value: {"swap": "0"} if is_on(value) else {},
    ),
    _same(_SIZE, "memory"),
    _same(_SIZE, "maxmem"),
    _same(_SIZE, "vcpus"),
    _becomes(
        _SIZE,
        "image",
        "`image`: sparse or full; a fixed VHD where full",
        lambda value: {"image": value},
    ),
    _same(_SIZE, "fs", more="reiserfs has left Linux"),
    _noted(
        _SIZE,
        "ext2_options ext3_options ext4_options xfs_options btrfs_options reiserfs_options",
        "fstab has the suite's own; others, as noatime, are `options` of tables [[partitions]]",
    ),
    _same(_SIZE, "partitions", more="the name of a file, or tables in the spec"),
    _same(_INSTALL, "dist", "suite", more="default: bookworm, not the host's own release"),
    _same(_INSTALL, "arch"),
    _same(_INSTALL, "mirror", more="without a scheme too; default: the host's apt sources"),
    _same(_INSTALL, "keyring"),
    _refused(
        _INSTALL,
        "apt_proxy",
        "a proxy for the build must not stay in the guest",
        "give a caching mirror: mirror=http://HOST:9999/debian/",
    ),
    _becomes(
        _INSTALL,
        "install_method",
        "`bootstrap`; debootstrap is accepted, the other methods are not done",
        translate_bootstrap,
    ),
    _becomes(
        _INSTALL,
        "debootstrap",
        '`bootstrap = "debootstrap"` (xen-tools before 4)',
        lambda _value: {"bootstrap": "debootstrap"},
    ),
    _becomes(
        _INSTALL,
        "debootstrap_cmd",
        "`bootstrap`: debootstrap or mmdebstrap, with or without a folder",
        translate_bootstrap,
    ),
    _refused(
        _INSTALL,
        "install_source copy tar",
        "a tree from elsewhere is adopted, which looks at it and mends it",
        "doit adopt name=NAME from=TAR or FOLDER",
    ),
    _refused(_INSTALL, "rpmstrap", "only Debian and Ubuntu are built", "leave it out"),
    _becomes(
        _INSTALL,
        "install",
        "always installed; 1 is accepted",
        accept_only("1 yes", "an empty volume is made by truncate or lvcreate"),
        status="different",
    ),
    _refused(_INSTALL, "no_install", "always installed", "make a volume by truncate or lvcreate"),
    _becomes(
        _INSTALL,
        "hooks",
        "what the hooks did is built in; 1 is accepted",
        accept_only("1 yes", "name elements to change what is in the guest"),
        status="different",
    ),
    _refused(_INSTALL, "no_hooks", "what the hooks did is built in", _USE_ELEMENT),
    _noted(_INSTALL, "cache", "always: packages and finished stages are kept in output/store"),
    _noted(_INSTALL, "cachedir", "output/store; DOMU_OUTPUT in the environment moves it"),
    _noted(_INSTALL, "copy_cmd tar_cmd", "xen-create-image ignores them too"),
    _same(_BOOT, "kernel", more="a package or `host` too"),
    _same(_BOOT, "initrd", more="only with a kernel path; otherwise one is made"),
    _same(_BOOT, "modules", more="only with a kernel path; otherwise the kernel brings its own"),
    _flag(
        *(_BOOT, "pygrub", {"boot": "pygrub"}, {"boot": "direct"}),
        '`boot = "pygrub"`; never forced by the suite',
    ),
    _flag(_BOOT, "nopygrub", {"boot": "direct"}, {"boot": "pygrub"}, '`boot = "direct"`'),
    _same(_BOOT, "type"),
    _noted(
        _BOOT,
        "boot",
        "the build ends with the `xl create` line; bin/xen-create-image starts it on a Xen host; "
        "`autostart = true` links it",
    ),
    _noted(_BOOT, "noboot", "nothing is started by a build"),
    _noted(_BOOT, "output", "output/guests/NAME/NAME.cfg; `install` puts it in /etc/xen"),
    _noted(_BOOT, "extension", "always .cfg"),
    _refused(_BOOT, "template", "templates of xen-tools are not run", "see pipeline/xen/templates"),
    _refused(_BOOT, "ide scsi", _FIXED_NAMES, "leave it out"),
    _becomes(
        _BOOT,
        "disk_device",
        "by suite (sda for etch, else xvda); xvda is accepted",
        accept_only("xvda", _FIXED_NAMES),
        status="different",
    ),
    _becomes(
        _BOOT,
        "serial_device",
        "by kernel (tty1 for 2.6.18, else hvc0); hvc0 is accepted",
        accept_only("hvc0", _FIXED_NAMES),
        status="different",
    ),
    _refused(_BOOT, "admins", "xen-shell's users are not set up", "use sudo rules for xl"),
    _flag(_NETWORK, "dhcp", {"dhcp": "yes"}, {"dhcp": "no"}, "`dhcp`"),
    _flag(_NETWORK, "nodhcp", {"dhcp": "no"}, {"dhcp": "yes"}, "`dhcp = false`"),
    _becomes(_NETWORK, "ip", "`address`, a list; `auto` is not done", translate_address),
    _same(_NETWORK, "netmask", more="or a prefix length in `address`"),
    _same(_NETWORK, "gateway", more="`gateway6` for IPv6"),
    _noted(_NETWORK, "broadcast", "follows from the address and its prefix length"),
    _becomes(
        *(_NETWORK, "nameserver", "`nameservers`, a list"),
        lambda value: {"nameservers": ",".join(value.replace(",", " ").split())},
    ),
    _refused(*(_NETWORK, "p2p", "written as an address of its own", "address=A/32 gateway=PEER")),
    _same(_NETWORK, "mac"),
    _noted(_NETWORK, "randommac", "the MAC follows from the name, the same at every build"),
    _same(_NETWORK, "bridge"),
    _same(_NETWORK, "vifname"),
    _refused(_NETWORK, "vlan", "xl knows it only from 4.19 on", "name the VLAN's own bridge"),
    _becomes(
        _FILES,
        "passwd",
        '`root_password_file = "-"`: asked for twice on a terminal, else a line of standard input',
        lambda value: {"root_password_file": "-"} if is_on(value) else {},
    ),
    _refused(
        _FILES,
        "password",
        "a password on the command line is seen by every user",
        "write it into a file: root_password_file=FILE, or - for standard input",
    ),
    _becomes(
        _FILES,
        "genpass",
        "root is locked unless a password is given; 0 is accepted. bin/xen-create-image makes one "
        "up, in a file that it names",
        accept_only("0 no", "give root_password_file=FILE, or authorized_keys"),
        status="different",
    ),
    _noted(_FILES, "nopasswd no_passwd", "root is locked unless a password is given"),
    _noted(_FILES, "genpass_len genpass_length", "for bin/xen-create-image: 23 letters and digits"),
    _noted(_FILES, "hash_method", "by suite: yescrypt, sha512 or md5"),
    _becomes(
        *(_FILES, "accounts", "the host's accounts are not copied; 0 is accepted"),
        accept_only(" ".join(NO), _USE_ELEMENT, "the host's accounts are not copied"),
        status="different",
    ),
    _noted(_FILES, "noaccounts no_accounts", "the host's accounts are never copied"),
    _becomes(
        *(_FILES, "copyhosts copy_hosts", "the host's /etc/hosts is not copied; 0 is accepted"),
        accept_only(" ".join(NO), "write `hosts`", "the host's /etc/hosts is not copied"),
        status="different",
    ),
    _noted(_FILES, "nohosts no_hosts", "the host's /etc/hosts is never touched"),
    _becomes(
        *(_FILES, "role", "`role`: its script runs in a cage; or packages, see Roles below"),
        translate_role,
        status="different",
        note=describe_role,
    ),
    _same(_FILES, "role_args"),
    _same(_FILES, "roledir", "roles_path", more="a role of xen-tools' own in it is run as it is"),
    _noted(_FILES, "finalrole", "runs behind the other roles, before the configuration is written"),
    _refused(_FILES, "copyconf", "xen-create-image has no such option", "--copyhosts is nearest"),
    _noted(
        _CONTROL,
        "force",
        "a build replaces its own artifact, never what is in use; bin/xen-create-image the spec "
        "and the installed guest too",
    ),
    _noted(_CONTROL, "noforce", "a build never overwrites what is in use"),
    _noted(_CONTROL, "keep", "a failed stage keeps its log, not what it had half made"),
    _refused(
        _CONTROL,
        "config dumpconfig",
        "doit import-xen-tools reads it once, bin/xen-create-image each time",
        "common values belong into guests/defaults.toml",
    ),
    _noted(_CONTROL, "verbose debug", "each stage writes output/logs/NAME/STAGE.log"),
    _refused(_CONTROL, "help manual version", "not a word of a build", "see doit help, README.md"),
    _noted(_CONTROL, "no_xen_ok", "a build needs no Xen on the machine"),
    _refused(_CONTROL, "volume", "an option of xen-tools 1 and 2", "use lvm"),
)

OPTIONS: dict[str, Option] = {name: option for option in _TABLE for name in option.names}
