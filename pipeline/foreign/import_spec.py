"""From a domain that somebody else wrote to the keys of a spec, with an answer for each aspect.

A spec says what is built. The disks of an imported guest hold a guest already: what is on them,
no configuration says, and no spec that is made here would have a build write over them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pipeline.foreign.import_keys import Answer
from pipeline.foreign.import_text import Configuration
from pipeline.spec.devices import derive_mac
from pipeline.spec.domain import GRUB_BINARIES
from pipeline.spec.guest_type import linux_of
from pipeline.spec.values import show_size
from pipeline.suites import SUITES
from pipeline.xen.boot import LAUNCHER, Boot, Direct, Firmware, Grub, Pygrub
from pipeline.xen.devices import Card, Disk, resource_of
from pipeline.xen.domain import Domain

BRING = "the old disk stays; doit modernize cfg=FILE or doit adopt from=DISK brings it along"
_PC_32_BIT = re.compile(r"[-_.](?:[3456]86|i386)")
_NO_GROUPS = frozenset("mapper disk loop md drbd zvol shm block cdrom nbd fd pts bus".split())
_MAPPED = re.compile(r"/dev/mapper/((?:[^-/]|--)+)-((?:[^-/]|--)+)")
_SHIPPED_26 = {18: "etch", 26: "lenny", 32: "squeeze"}
_WORDS_OF_OURS = frozenset({"ro", "rw"})


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the host says of the files that a configuration names: sizes in MiB, those there are."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    autostart: bool = False


@dataclass(kw_only=True)
class Draft:
    """Keys of a spec as they come together, and the answer for each aspect of the domain."""

    values: dict[str, object] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)  # key of the spec: its aspect

    def take(self, aspect: str, key: str, value: object, note: str = "") -> None:
        """The aspect becomes that key."""
        self.values[key] = value
        self.owners[key] = aspect
        self.answers[aspect] = Answer("taken", f"-> {key} = {show_value(value)}{note}")

    def leave(self, aspect: str, text: str, hint: str = "") -> None:
        """The aspect cannot be said."""
        self.answers[aspect] = Answer("cannot be said", text, hint)

    def skip(self, aspect: str, text: str) -> None:
        """The aspect need not be said."""
        self.answers[aspect] = Answer("not needed", text)

    def add(self, aspect: str, key: str, value: object, text: str, hint: str = "") -> None:
        """The configuration does not say it, a spec must."""
        self.values[key] = value
        self.owners[key] = aspect
        self.answers[aspect] = Answer("added", f"{key} = {show_value(value)}: {text}", hint)


def show_value(value: object) -> str:
    """A value as TOML has it, in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return f"[{', '.join(map(show_value, value))}]" if isinstance(value, list) else str(value)


def draft(read: Configuration, host: Host, *, suite: str = "") -> Draft:
    """The keys that say what the domain is, and what becomes of each of its aspects."""
    made = Draft()
    domain = read.domain
    _take_name(made, read)
    _take_suite(made, domain, suite)
    made.take("type", "type", domain.type)
    _take_amounts(made, domain)
    _take_boot(made, domain, host)
    _take_disks(made, domain, host)
    _take_cards(made, read)
    _take_screen(made, domain)
    for key in ("on_poweroff", "on_reboot", "on_crash"):
        made.take(key, key, getattr(domain, key))
    if host.autostart:
        made.add("autostart", "autostart", True, "a link in /etc/xen/auto starts it")
    return made


def _take_name(made: Draft, read: Configuration) -> None:
    name = read.domain.name
    lower = name.lower()
    note = "" if lower == name else ": names of guests are lower case"
    made.take("name", "name", lower, note)
    if read.description:
        made.take("description", "description", read.description)
    if hostname := read.network.get("hostname"):
        made.take("network hostname", "hostname", hostname)
    if read.domain.uuid:
        made.take("uuid", "uuid", read.domain.uuid)
    else:
        made.answers["uuid"] = Answer("added", "made of the name: the same at every start")


def _take_suite(made: Draft, domain: Domain, suite: str) -> None:
    kernel = domain.boot.kernel if isinstance(domain.boot, Direct) else ""
    if _PC_32_BIT.search(PurePosixPath(kernel).name):
        made.add("arch", "arch", "i386", f"by the name of {kernel}")
    if suite:
        made.add("suite", "suite", suite, "as you say")
        return
    guess = guess_suite(kernel)
    hint = "suite=... says which release it is"
    if guess:
        made.add("suite", "suite", guess, f"a guess by the name of {kernel}", hint)
    else:
        made.answers["suite"] = Answer("added", "no key says the release: the usual one", hint)


def guess_suite(kernel: str) -> str:
    """The release that shipped a kernel of this name, or nothing."""
    name = PurePosixPath(kernel).name
    version = linux_of(kernel)
    if version[:2] == (2, 6):
        return _SHIPPED_26.get(next(iter(version[2:]), 0), "")
    wanted = "ubuntu" if name.endswith(("-generic", "-virtual", "-kvm")) else "debian"
    named = (suite for suite in SUITES.values() if suite.distribution == wanted)
    suites = [suite.name for suite in named if suite.kernel_version == version[:2]]
    # those that are not released yet have the last release's in the table
    return suites[-1] if suites else ""


def _take_amounts(made: Draft, domain: Domain) -> None:
    made.take("memory", "memory", show_size(domain.memory_mib))
    if domain.maxmem_mib is not None:
        made.take("maxmem", "maxmem", show_size(domain.maxmem_mib))
    made.take("vcpus", "vcpus", domain.vcpus)
    if domain.maxvcpus is not None:
        made.take("maxvcpus", "maxvcpus", domain.maxvcpus)
    for key in ("cpus", "cpu_weight", "cap"):
        if getattr(domain, key) is not None:
            made.take(key, key, getattr(domain, key))


def _take_boot(made: Draft, domain: Domain, host: Host) -> None:
    boot = domain.boot
    if isinstance(boot, Direct):
        made.values["boot"] = "direct"
        made.owners["boot"] = "kernel"
        _take_kernel(made, boot, host)
        _take_command_line(made, boot)
    elif isinstance(boot, Pygrub):
        # which one is not asked: ours finds that of the Xen that runs
        if boot.path == LAUNCHER or PurePosixPath(boot.path).name.startswith("pygrub"):
            made.take("bootloader", "boot", "pygrub", ' (boot = "grub" and PVH are safer)')
        else:
            made.leave("bootloader", f"{boot.path} is no pygrub", 'boot = "grub" or "direct"')
        if boot.args or not boot.user:
            made.leave("bootloader_args", "pygrub is called without arguments", "")
        else:
            made.skip("bootloader_args", "pygrub gets a user of its own again")
        for aspect in ("root", "cmdline", "extra"):
            made.skip(aspect, "the menu inside the guest says it")
    elif isinstance(boot, Grub):
        made.take("kernel", "boot", "grub")
        for aspect in ("root", "cmdline", "extra", "ramdisk"):
            made.skip(aspect, "the menu inside the guest says it")
        if boot.kernel not in GRUB_BINARIES.values():
            made.values["bootloader"] = boot.kernel
            made.owners["bootloader"] = "kernel"
        elif "i386-xen.bin" in boot.kernel:
            made.values["arch"] = "i386"
            made.owners["arch"] = "kernel"
    else:
        _take_firmware(made, boot)
        _take_order(made, boot, has_cd=_find_cd(domain) is not None)


def _take_firmware(made: Draft, boot: Firmware) -> None:
    is_uefi = boot.kind == "uefi"
    made.take("firmware", "boot", "firmware", ' and firmware = "uefi"' if is_uefi else "")
    made.skip("kernel", "a build makes UEFI for Xen" if is_uefi else "it is the host's own")
    if is_uefi:
        made.values["firmware"] = "uefi"
        made.owners["firmware"] = "firmware"
    made.skip("bios_path_override", "a build makes UEFI for Xen, and names it")
    made.skip("hdtype", "AHCI disks where the host's Xen has them, IDE else")
    made.values["boot"] = "firmware"
    made.owners["boot"] = "firmware"


def _take_order(made: Draft, boot: Firmware, *, has_cd: bool) -> None:
    """Letters of drives that the guest will not have say nothing."""
    kept = "".join(letter for letter in boot.order if letter in ("cdn" if has_cd else "cn")) or "c"
    said = "" if kept == boot.order else f": of {boot.order}, there are no other drives"
    if kept == "c":
        made.skip("boot", f"the guest boots from its disk{said}")
    else:
        made.take("boot", "boot_order", kept, said)


def _take_kernel(made: Draft, boot: Direct, host: Host) -> None:
    """A kernel of the host is named; one that a build of ours has put beside its disks is not."""
    kernel = PurePosixPath(boot.kernel)
    if kernel.name == "vmlinuz" and str(kernel.parent) not in ("/", "/boot"):
        made.skip("kernel", "a build makes it anew: the suite's own")
        made.skip("ramdisk", "a build makes one for its kernel")
    elif boot.kernel in host.files and (not boot.ramdisk or boot.ramdisk in host.files):
        made.take("kernel", "kernel", boot.kernel)
        if boot.ramdisk:
            made.take("ramdisk", "initrd", boot.ramdisk)
    else:
        text = "no such file here: the suite's own kernel will boot it"
        made.leave("kernel", text, "kernel = PATH and initrd = PATH name one")
        made.skip("ramdisk", "a build makes one for its kernel")


def _take_command_line(made: Draft, boot: Direct) -> None:
    made.skip("root", "it is what a build calls the root disk")
    kept: list[str] = []
    dropped: list[str] = []
    for word in boot.cmdline.split():
        key = word.partition("=")[0]
        is_ours = word in _WORDS_OF_OURS or key in ("console", "rootfstype", "xencons")
        is_ours = is_ours or (key == "ip" and bool(_kernel_network(boot)))
        (dropped if is_ours else kept).append(word)
    kinds = [word.partition("=")[2] for word in dropped if word.startswith("rootfstype=")]
    if kinds and kinds[-1] in ("ext2", "ext3", "ext4", "xfs", "btrfs"):
        made.values["fs"] = kinds[-1]
        made.owners["fs"] = "cmdline"
    said = f"; {' '.join(dropped)}: a build says it itself" if dropped else ""
    if kept:
        made.take("cmdline", "cmdline", " ".join(kept), said)
    else:
        made.skip("cmdline", "a build says all of it itself")
    made.answers["extra"] = made.answers["cmdline"]


def _find_root(domain: Domain) -> int | None:
    """Which disk the guest boots from: what root= names, else the first that is no swap."""
    root = domain.boot.root if isinstance(domain.boot, Direct) else None
    named = (root or "").removeprefix("/dev/")
    for place, disk in enumerate(domain.disks):
        if disk.vdev == named:
            return place
    for place, disk in enumerate(domain.disks):
        is_whole = not disk.vdev[-1].isdigit()
        if is_whole and named.startswith(disk.vdev) and named[len(disk.vdev) :].isdigit():
            return place
    plain = [at for at, disk in enumerate(domain.disks) if not _is_swap(disk) and _is_disk(disk)]
    return next(iter(plain), None)


def _is_disk(disk: Disk) -> bool:
    return disk.devtype == "disk"


def _find_cd(domain: Domain) -> Disk | None:
    """The first image in a CD drive, where there can be one."""
    images = (disk for disk in domain.disks if not _is_disk(disk) and disk.target)
    return next(images, None) if domain.type == "hvm" else None


def _is_swap(disk: Disk) -> bool:
    return "swap" in PurePosixPath(resource_of(disk.target) or disk.target).name


def _group_of(target: str) -> str:
    """The volume group of /dev/GROUP/VOLUME or /dev/mapper/GROUP-VOLUME, or nothing."""
    parts = PurePosixPath(target).parts
    if len(parts) == 4 and parts[:2] == ("/", "dev") and parts[2] not in _NO_GROUPS:
        return parts[2]
    mapped = _MAPPED.fullmatch(target)
    return mapped[1].replace("--", "-") if mapped else ""


def _take_disks(made: Draft, domain: Domain, host: Host) -> None:
    root = _find_root(domain)
    swap = next((at for at, disk in enumerate(domain.disks) if _is_swap(disk) and at != root), None)
    if root is None:
        made.answers["disk"] = Answer("added", "no disk is named: a build makes one", "size =")
    for place, disk in enumerate(domain.disks):
        aspect = f"disk{place}"
        if place == root:
            _take_root(made, aspect, disk, host)
        elif place == swap:
            size = host.sizes.get(disk.target)
            note = "" if size else ": a guess, its size cannot be seen here"
            made.take(aspect, "swap", show_size(size) if size else "512M", note)
        elif disk == _find_cd(domain):
            made.take(aspect, "cdrom", disk.target)
        elif not _is_disk(disk):
            text = "one CD drive with an image in it, of an HVM guest, can be said"
            made.leave(aspect, text, "cdrom = PATH of an ISO image")
        else:
            text = (
                f"{disk.target or disk.vdev}: what is on it, and where it is mounted, is not said"
            )
            made.leave(aspect, text, f"[[partitions]] makes further disks; {BRING}")
    if swap is None:
        made.add("swap", "swap", "0", "no disk is called swap", "swap = gives it one")


def _take_root(made: Draft, aspect: str, disk: Disk, host: Host) -> None:
    size = host.sizes.get(disk.target)
    keys: dict[str, object] = {"size": show_size(size)} if size else {}
    group = _group_of(disk.target)
    if group:
        keys["lvm"] = group
    elif disk.kind == "file":
        keys["format"] = disk.format
    made.values |= keys
    made.owners |= dict.fromkeys(keys, aspect)
    shown = ", ".join(f"{key} = {show_value(value)}" for key, value in keys.items())
    if disk.kind == "block" and not group:
        text = f"a build would write over {disk.target}: the new guest gets an image file"
        made.leave(aspect, text, f"image_dev = names a device to write on; {BRING}")
    elif disk.access == "ro":
        made.leave(aspect, f"-> {shown}, but a root disk is written to", "")
    else:
        made.answers[aspect] = Answer("taken", f"-> {shown}; {BRING}")
    if not size:
        made.answers["size"] = Answer(
            "added", f"how large {disk.target} is cannot be seen here", "size = says it"
        )


def _take_cards(made: Draft, read: Configuration) -> None:
    cards = read.domain.cards
    tables = [_take_card(made, number, card) for number, card in enumerate(cards)]
    if not cards:
        made.answers["vif"] = Answer("added", "a guest has one card at least: on the usual bridge")
    for key, value in tables[0].items() if tables else ():
        made.values[key] = value
        made.owners[key] = f"card0 {'rate' if key == 'rate' else key}"
    if tables[1:]:
        made.values["interfaces"] = tables[1:]
        made.owners["interfaces"] = "card1"
    _take_network(made, read)


def _take_card(made: Draft, number: int, card: Card) -> dict[str, object]:
    """A card's keys; its aspects are answered one by one."""
    table: dict[str, object] = {}
    said: dict[str, object] = {
        "mac": card.mac and card.mac.upper(),
        "bridge": card.bridge,
        "vifname": card.vifname,
        "mtu": card.mtu,
        "rate": card.rate_kbytes_s and f"{card.rate_kbytes_s}KB/s",
        "model": card.model,
    }
    where = "" if number == 0 else f" of interfaces[{number - 1}]"
    for key, value in said.items():
        if value is not None:
            table[key] = value
            text = f"-> {key} = {show_value(value)}{where}"
            made.answers[f"card{number} {key}"] = Answer("taken", text)
    models = ("e1000", "rtl8139", "virtio-net")
    if card.model is not None and card.model not in models:
        del table["model"]
        made.leave(f"card{number} model", f"no card {card.model}", f"model = {', '.join(models)}")
    if card.mac is None:
        text = f"mac = {derive_mac(read_name(made), number)}: the toolstack made up one a start"
        made.answers[f"card{number} mac"] = Answer("added", text)
    if card.bridge is None:
        text = "no bridge is named: the one of guests/defaults.toml, else br-xen"
        made.answers[f"card{number} bridge"] = Answer("added", text, "bridge = says which")
    if card.vlan is not None:
        hint = "a bridge for each of them does: bridge ="
        made.leave(f"card{number} vlan", "cards join a bridge, without a tag", hint)
    if card.ip is not None:
        hint = f'write address = "{card.ip}/24" with its own prefix, and gateway ='
        made.leave(f"card{number} ip", "the guest's own address, without its prefix", hint)
    return table


def read_name(made: Draft) -> str:
    """The name that the guest will have."""
    return str(made.values["name"])


def _take_network(made: Draft, read: Configuration) -> None:
    """ip=, netmask= and their kin of xend, or the kernel's ip=: what the guest's network is."""
    said = dict(read.network)
    said |= _kernel_network(read.domain.boot)
    card = read.domain.cards[0] if read.domain.cards else Card()
    address = said.get("ip") or card.ip or ""
    if address and said.get("netmask"):
        made.take("network ip", "address", [address])
        made.answers["card0 ip"] = made.answers["network ip"]
        made.take("network netmask", "netmask", said["netmask"])
        if said.get("gateway"):
            made.take("network gateway", "gateway", said["gateway"])
    else:
        for key in ("ip", "netmask", "gateway"):
            hint = 'address = "192.168.1.10/24", gateway = "192.168.1.1"'
            made.leave(f"network {key}", "an address needs its netmask to be one", hint)
    if said.get("dhcp", "off") not in ("off", "", "0") and "address" not in made.values:
        made.take("network dhcp", "dhcp", True)
    else:
        made.skip("network dhcp", "it is off")


def _kernel_network(boot: Boot) -> dict[str, str]:
    """What the kernel's ip=CLIENT:SERVER:GATEWAY:NETMASK:HOST:CARD:AUTO says (nfsroot.rst)."""
    words = boot.cmdline.split() if isinstance(boot, Direct) else []
    given = [word.removeprefix("ip=") for word in words if word.startswith("ip=")]
    if not given or given[-1].count(":") < 3:
        return {"dhcp": "dhcp"} if given and given[-1] in ("dhcp", "on", "any", "both") else {}
    parts = given[-1].split(":")
    said = {"ip": parts[0], "gateway": parts[2], "netmask": parts[3]}
    return {key: value for key, value in said.items() if value}


def _take_screen(made: Draft, domain: Domain) -> None:
    screen = domain.framebuffer
    if screen is None:
        for aspect in ("vnc", "vncunused", "vncdisplay", "vnclisten", "keymap"):
            made.skip(aspect, "there is no screen")
        return
    made.take("vnc", "vnc", True)
    made.skip("vncunused", "it follows from vncdisplay")
    for key in ("vncdisplay", "vnclisten", "keymap"):
        value = getattr(screen, key)
        if value is not None:
            made.take(key, key, value)
        else:
            made.skip(key, "it is what holds anyway")
