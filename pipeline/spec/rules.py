"""Keys that do not go together: each check looks at one subject of a spec whose values are good."""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from pipeline.errors import Finding, WrongValueError
from pipeline.spec.adopted_rules import check_adopted
from pipeline.spec.cloud_init_rules import check_cloud_init
from pipeline.spec.devices import MOST_PARTS, AnyInterface, Part, derive_mac, read_addresses
from pipeline.spec.domain import find_unrenderable, is_restricted
from pipeline.spec.keys import CardKeys
from pipeline.spec.model import Spec
from pipeline.spec.pc_rules import check_pc
from pipeline.spec.replication_rules import check_host_resources, check_replicated
from pipeline.spec.values import show_size
from pipeline.spec.whole_rules import check_whole
from pipeline.xen.boot import grub_domain_type
from pipeline.xen.compatibility import Case, find_broken
from pipeline.xen.values import check_most, parse_version

_SHIPPED = {"etch": 18, "lenny": 26, "squeeze": 32}  # Linux 2.6.N
_BOOTS = {
    "pv": ("direct", "pygrub", "grub"),
    "pvh": ("direct", "pygrub", "grub"),
    "hvm": ("direct", "firmware"),
}


def find_clashes(spec: Spec) -> Iterator[Finding]:
    """All clashes of a spec; where there is none, what its toolstack would refuse."""
    clashes = [clash for check in CHECKS for clash in check(spec)]
    yield from clashes or check_toolstack(spec)


def check_toolstack(spec: Spec) -> Iterator[Finding]:
    """The rules of xl, and of xm where the spec's Xen has no xl, before anything is fetched."""
    mistake = find_unrenderable(spec)
    if mistake is None:
        return
    key = mistake.key
    if key.startswith("disk"):
        given = [name for name in ("partitions", "image_dev", "swap_dev") if getattr(spec, name)]
        key = "format" if key == "disk format" else (*given, "lvm")[0]
    message = mistake.message.removeprefix(f"{mistake.key}: ")
    yield _clash(key if key in Spec.model_fields else "type", message, mistake.hint, "xen")


def check_host(spec: Spec) -> Iterator[Finding]:
    """The host name against the domain."""
    _, _, rest = spec.hostname.partition(".")
    if rest and spec.domain and rest != spec.domain:
        yield _clash(
            "domain",
            f"'{spec.domain}' is not the domain of hostname '{spec.hostname}'",
            f"leave domain out, or write hostname = '{spec.short_hostname}'",
            "hostname",
        )


def check_release(spec: Spec) -> Iterator[Finding]:
    """Init, architecture and file system against what the suite has."""
    suite = spec.suite_facts
    if spec.init not in suite.inits:
        inits = " or ".join(suite.inits)
        yield _clash("init", f"{spec.suite} has no {spec.init}", f"write {inits}", "suite")
    if not spec.kernel:
        yield _clash(
            "arch",
            f"{spec.suite} has no kernel for {spec.arch}",
            f"write {', '.join(suite.kernels)}",
            "suite",
        )
    if spec.fs not in suite.filesystems:
        known = ", ".join(suite.filesystems)
        yield _clash("fs", f"{spec.suite} cannot mount {spec.fs}", f"write {known}", "suite")


def check_kernel_files(spec: Spec) -> Iterator[Finding]:
    """initrd and modules belong to a kernel given as a path."""
    for key in ("initrd", "modules"):
        if getattr(spec, key) and spec.kernel_source != "files":
            yield _clash(
                key,
                f"a path of its own needs a kernel that is a path, not '{spec.kernel}'",
                f"write kernel = the path of its vmlinuz, or leave {key} out",
                "kernel",
            )


def check_boot(spec: Spec) -> Iterator[Finding]:
    """The way to boot against the kind of guest and where the kernel is."""
    if spec.boot not in _BOOTS[spec.type] and not (spec.is_uefi and spec.type == "pvh"):
        known = ", ".join(_BOOTS[spec.type])
        yield _clash(
            "boot", f"a {spec.type} guest cannot boot by {spec.boot}", f"write {known}", "type"
        )
    if spec.boot == "firmware" and spec.suite_facts.has_old_tools:
        yield _clash(
            "boot",
            f"{spec.suite} has no GRUB 2 that a PC's firmware could start",
            "write boot = 'direct', or a suite from squeeze on",
            "suite",
        )
    if spec.boot != "direct" and spec.kernel_source != "package":
        yield _clash(
            "kernel",
            f"boot = '{spec.boot}' takes the kernel inside the guest, not '{spec.kernel}'",
            "name a kernel package, or write boot = 'direct'",
            "boot",
        )
    if spec.bootloader and spec.boot == "grub" and grub_domain_type(spec.bootloader) != spec.type:
        yield _clash(
            "bootloader",
            f"{spec.bootloader} is not the name of a GRUB for {spec.type} guests",
            "write it as /usr/lib/grub-xen/grub-x86_64-xen.bin, or leave it out",
            "boot",
            "type",
        )
    if spec.bootloader and is_restricted(spec):
        yield _clash(
            "bootloader",
            "pygrub runs as the guest's own user, by a program that finds the Xen's own",
            *("leave it out", "boot", "xen"),
        )
    if spec.bootloader and spec.boot not in ("pygrub", "grub"):
        yield _clash(
            "bootloader", f"unused with boot = '{spec.boot}'", "write boot = 'pygrub'", "boot"
        )


def check_versions(spec: Spec) -> Iterator[Finding]:
    """Guest, kernel and loader against one another and the Xen: the table of all versions."""
    for finding in find_broken(case_of(spec), "refused"):
        key, taking_part = finding.subject, ("xen", "type", "boot", "kernel")
        if key == "mtu":
            first = next(card.index for card in spec.cards if card.device.mtu)
            key = f"interfaces[{first - 1}].mtu" if first else key
        yield _clash(key, finding.message, finding.hint, *taking_part)


def case_of(spec: Spec, host_linux: tuple[int, ...] = ()) -> Case:
    """A spec as the table of versions wants it; `host_linux` is the version behind kernel=host."""
    linux = host_linux if spec.kernel_source == "host" and host_linux else spec.linux
    if linux == (2, 6):  # the package's name does not say more
        linux = (2, 6, _SHIPPED.get(spec.suite, 32))
    return Case(
        type=spec.type,
        boot=spec.boot,
        xen=parse_version(spec.xen),
        loader=spec.bootloader,
        arch=spec.arch,
        suite=spec.suite_facts,
        init=spec.init,
        fs=spec.fs,
        kernel=spec.kernel,
        linux=linux,
        compression=spec.suite_facts.compression_of(spec.kernel, spec.arch),
        cmdline=spec.cmdline,
        on_crash=spec.on_crash,
        xl_keys=frozenset({"mtu"} if any(card.device.mtu for card in spec.cards) else ()),
        has_our_initrd=not (spec.is_kernel_inside or spec.initrd),
    )


def check_resources(spec: Spec) -> Iterator[Finding]:
    """Memory and processors."""
    try:
        check_most("maxmem", spec.maxmem_mib, "memory", spec.memory_mib, show_size)
    except WrongValueError as mistake:
        yield _clash("maxmem", mistake.message, "", "memory")
    try:
        check_most("maxvcpus", spec.maxvcpus or spec.vcpus, "vcpus", spec.vcpus)
    except WrongValueError as mistake:
        yield _clash("maxvcpus", mistake.message, "", "vcpus")


def check_screen(spec: Spec) -> Iterator[Finding]:
    """VNC's keys among themselves."""
    if not spec.vnc:
        for key in ("vncdisplay", "vncunused", "vnclisten", "keymap"):
            if getattr(spec, key) not in (None, ""):
                yield _clash(key, "unused without vnc", "write vnc = true too", "vnc")
    elif spec.vncdisplay is not None and spec.vncunused:
        yield _clash(
            "vncunused",
            f"asks for any free display although vncdisplay = {spec.vncdisplay}",
            "keep one of the two",
            "vncdisplay",
        )


def check_password(spec: Spec) -> Iterator[Finding]:
    """The root password's two forms, and what the suite's crypt() understands."""
    if not spec.root_password_hash:
        return
    if spec.root_password_file:
        yield _clash(
            "root_password_hash",
            "the password is given as a file too",
            "keep one of root_password_file and root_password_hash",
            "root_password_file",
        )
    suite = spec.suite_facts
    if not spec.root_password_hash.startswith(suite.hash_prefixes):
        prefix = "$" + spec.root_password_hash.split("$")[1] + "$"
        yield _clash(
            "root_password_hash",
            f"{spec.suite} does not understand a hash that begins with {prefix}",
            f"make it with one of {' '.join(suite.hash_prefixes)}: mkpasswd -m METHOD",
            "suite",
        )


# mkfs.xfs(8) of 5.19 and later; mkfs.btrfs(8); a journal of its own in mke2fs(8)
LEAST_MIB = {"xfs": 300, "btrfs": 128, "ext4": 16, "ext3": 16, "ext2": 1, "swap": 1}
VHD_MOST_MIB = 2040 << 10  # the format's block table ends there
_DM_NAME_MOST = 127
_LONGEST_SUFFIX = ".new-12345678"


def find_disk_clashes(spec: Spec) -> Iterator[Finding]:
    """What is wrong with the disks, one by one and together."""
    for check in (check_volumes, check_clone, check_names, check_partitions, check_sizes):
        yield from check(spec)


def check_volumes(spec: Spec) -> Iterator[Finding]:
    """Logical volumes and given devices against the format of image files."""
    if spec.lvm_thin and not spec.lvm:
        yield _clash("lvm_thin", "a thin pool needs its volume group", "write lvm = 'VG0' too")
    if spec.format != "raw":
        for key, what in (("lvm", "a logical volume"), ("image_dev", "a device")):
            if getattr(spec, key):
                yield _clash("format", f"{what} holds no {spec.format}", "leave format out", key)
    if spec.image == "full":
        if spec.format == "qcow2" or spec.clone == "cow":
            yield _clash(
                "image",
                "a qcow2 or copy-on-write image grows by what is written",
                "leave image out",
                "format",
                "clone",
            )
        if spec.lvm:
            yield _clash("image", "a logical volume is no image file", "leave image out", "lvm")
    if spec.swap_dev and spec.swap == "0":
        yield _clash("swap_dev", "there is no swap", "leave it out, or give swap a size", "swap")


def check_clone(spec: Spec) -> Iterator[Finding]:
    """What a copy-on-write guest needs."""
    if spec.clone != "cow":
        return
    if spec.lvm and not spec.lvm_thin:
        yield _clash(
            "clone",
            "a copy-on-write volume is a thin snapshot",
            "write lvm_thin = the name of a thin pool, or clone = 'full'",
            "lvm",
        )
    if spec.format == "vhd":
        yield _clash("format", "a copy-on-write disk is qcow2 or raw", "leave format out", "clone")
    if spec.image_dev or any(part.device and part.has_files for part in spec.parts):
        yield _clash("clone", "a given device is written whole", "leave clone out", "image_dev")
    if spec.format == "qcow2" and any(part.fs in ("xfs", "btrfs") for part in spec.parts):
        yield _clash(
            "clone",
            f"a qcow2 overlay of {spec.fs} cannot be given its identity",
            "use ext4, format = 'raw' (reflink), lvm_thin, or clone = 'full'",
            "fs",
        )


def check_names(spec: Spec) -> Iterator[Finding]:
    """device-mapper's names are short, and a '-' counts twice in them."""
    if not spec.lvm:
        return
    group = len(spec.lvm) + spec.lvm.count("-")
    for part in spec.disks:
        name = f"{spec.name}-{part.name}{_LONGEST_SUFFIX}"
        if group + 1 + len(name) + name.count("-") > _DM_NAME_MOST:
            yield _clash(
                "lvm",
                f"{spec.lvm}/{spec.name}-{part.name} is too long a name for device-mapper",
                f"at most {_DM_NAME_MOST} letters together, a '-' counts twice",
                "name",
            )


def check_partitions(spec: Spec) -> Iterator[Finding]:
    """One root, one swap, every name and mount point once."""
    if not spec.partitions:
        return
    roots = [part for part in spec.partitions if part.mountpoint == "/"]
    swaps = [part for part in spec.partitions if part.fs == "swap"]
    if len(roots) != 1:
        yield _clash(
            "partitions", f"{len(roots)} of them have mountpoint = '/'", "there must be one"
        )
    if len(swaps) > 1:
        yield _clash("partitions", f"{len(swaps)} of them are swap", "keep one")
    if len(spec.partitions) > MOST_PARTS:
        yield _clash("partitions", f"more than {MOST_PARTS}", "Xen's disks have no more")
    for key in ("name", "mountpoint", "device"):
        counts = Counter(getattr(part, key) for part in spec.partitions)
        for value, count in counts.items():
            if count > 1 and value:
                yield _clash("partitions", f"{count} of them have {key} = '{value}'")
    for part in spec.partitions:
        if bool(part.mountpoint) == (part.fs == "swap"):
            hint = "swap has no mountpoint, everything else has one"
            yield _clash("partitions", f"{part.name}: mountpoint = '{part.mountpoint}'", hint)
        if (
            part.name in ("disk", "swap")
            and {"disk": "/", "swap": ""}[part.name] != part.mountpoint
        ):
            yield _clash(
                "partitions", f"'{part.name}' is the root's or swap's name", "name it else"
            )
        if part.mountpoint == "/usr" and (part.fs or spec.fs) != spec.fs:
            hint = f"write {spec.fs}: the initial ramdisk mounts it with the root's module"
            yield _clash("partitions", f"{part.name}: /usr cannot be {part.fs}", hint)
    yield from _check_agreement(
        spec, roots[0].size if roots else "", swaps[0].size if swaps else "0"
    )


def _check_agreement(spec: Spec, root_size: str, swap_size: str) -> Iterator[Finding]:
    for key, size in (("size", root_size), ("swap", swap_size)):
        if size and getattr(spec, key) != size:
            message = f"'{getattr(spec, key)}' although the partitions say {size}"
            yield _clash(key, message, f"leave {key} out", "partitions")
    root = next((part for part in spec.partitions if part.mountpoint == "/"), None)
    if root is not None and root.fs not in ("", spec.fs):
        yield _clash(
            "fs", f"{spec.fs} although the partitions say {root.fs}", "leave it out", "partitions"
        )
    for key in ("image_dev", "swap_dev"):
        if getattr(spec, key):
            hint = "write device = into the partition"
            yield _clash(key, "the disks are partitions", hint, "partitions")


def check_sizes(spec: Spec) -> Iterator[Finding]:
    """What a file system needs at least, what an image format holds at most."""
    for disk in spec.disks:
        if spec.format == "vhd" and disk.has_files and disk.size_mib > VHD_MOST_MIB:
            yield _clash(
                "partitions" if spec.partitions else "size",
                f"{show_size(disk.size_mib)}: a VHD holds 2040 GiB at most",
                "write size = '2040G' or less, or format = 'raw'",
                "format",
            )
    for part in spec.parts:
        yield from _check_size(spec, part)
        known = (*spec.suite_facts.filesystems, "swap")
        if part.fs not in known and part.has_files and not part.is_root:
            yield _clash(
                "partitions",
                f"{part.name}: {spec.suite} cannot mount {part.fs}",
                f"write {', '.join(known)}",
                "suite",
            )


def _check_size(spec: Spec, part: Part) -> Iterator[Finding]:
    key = "partitions" if spec.partitions else "swap" if part.is_swap else "size"
    key = part.table or key
    least = LEAST_MIB.get(part.fs, 1)
    if part.size_mib < least:
        yield _clash(
            key,
            f"{show_size(part.size_mib)} is too small for {part.fs}",
            f"at least {least}M",
            "fs",
        )


def find_card_clashes(spec: Spec) -> Iterator[Finding]:
    """Every clash in every card, then what two cards may not share."""
    cards: list[tuple[str, CardKeys]] = [("", spec)]
    cards += [(f"interfaces[{index}].", card) for index, card in enumerate(spec.interfaces)]
    for prefix, card in cards:
        for clash in _check_card(card, is_hvm=spec.type == "hvm"):
            yield replace(clash, subject=prefix + clash.subject)
    yield from _find_repeated(spec, cards)


def _check_card(card: CardKeys, *, is_hvm: bool) -> Iterator[Finding]:
    yield from _check_dhcp(card)
    if card.model and not is_hvm:
        yield _clash("model", "only an HVM guest has an emulated card", "leave it out", "type")
    if bare := _without_prefix(card):
        yield bare
        return
    if _needs_no_netmask(card):
        yield _clash(
            "netmask", "no IPv4 address without a prefix length", "leave it out", "address"
        )
    addresses = read_addresses(card)
    yield from _check_gateway("gateway", card.gateway, addresses)
    yield from _check_gateway("gateway6", card.gateway6, addresses)
    for address in addresses:
        if _is_unusable(address):
            yield _clash("address", f"{address} is not an address that a host can have")
    if card.mtu is not None and card.mtu < 1280 and any(each.version == 6 for each in addresses):
        yield _clash("mtu", f"IPv6 needs at least 1280, not {card.mtu}", "", "address")


def _check_dhcp(card: CardKeys) -> Iterator[Finding]:
    if card.dhcp:
        for key in ("address", "netmask", "gateway", "gateway6"):
            if getattr(card, key):
                yield _clash(
                    key, "given although dhcp is on", "leave it out, or write dhcp = false", "dhcp"
                )


def _without_prefix(card: CardKeys) -> Finding | None:
    for text in card.address:
        if "/" not in text and (":" in text or not card.netmask):
            right = f"{text}/64" if ":" in text else f"{text}/24"
            return _clash("address", f"'{text}' has no prefix length", f"write it as {right}")
    return None


def _needs_no_netmask(card: CardKeys) -> bool:
    bare = [text for text in card.address if "/" not in text and ":" not in text]
    return bool(card.netmask and card.address and not bare)


def _is_unusable(address: AnyInterface) -> bool:
    ip, network = address.ip, address.network
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback:
        return True
    edges = (network.network_address, network.broadcast_address)
    return address.version == 4 and network.prefixlen < 31 and ip in edges


def _check_gateway(key: str, text: str, addresses: tuple[AnyInterface, ...]) -> Iterator[Finding]:
    if not text:
        return
    gateway = ipaddress.ip_address(text)
    own = [address for address in addresses if address.version == gateway.version]
    if any(address.ip == gateway for address in own):
        yield _clash(key, f"{text} is the guest's own address", "", "address")
    # a /32 or /128 has its gateway on the link: the usual thing at hosting companies
    reached = [
        own_ip for own_ip in own if gateway in own_ip.network or own_ip.network.num_addresses == 1
    ]
    if not reached and not gateway.is_link_local:
        networks = ", ".join(str(address.network) for address in own) or "no address of its kind"
        yield _clash(
            key,
            f"{text} cannot be reached from {networks}",
            "write a gateway in the network of address",
            "address",
            "netmask",
            "dhcp",
        )


def _find_repeated(spec: Spec, cards: list[tuple[str, CardKeys]]) -> Iterator[Finding]:
    seen: dict[tuple[str, str], str] = {}
    for index, (prefix, card) in enumerate(cards):
        shared = {"mac": card.mac or derive_mac(spec.name, index), "vifname": card.vifname}
        for key, value in shared.items():
            if value and (key, value) in seen:
                yield _clash(
                    prefix + key, f"{value} is already that of {seen[key, value]}", "", key
                )
            seen.setdefault((key, value), f"card {index}")
        for text in card.address:
            ip = text.partition("/")[0]
            if ("address", ip) in seen:
                yield _clash(prefix + "address", f"{ip} is already that of {seen['address', ip]}")
            seen.setdefault(("address", ip), f"card {index}")


def _clash(key: str, message: str, hint: str = "", *others: str) -> Finding:
    """The key to change, what is wrong, what is right, and the other keys that take part."""
    return Finding("error", key, message, hint, others=others)


CHECKS: tuple[Callable[[Spec], Iterator[Finding]], ...] = (
    *(check_host, check_release, check_adopted, check_kernel_files, check_boot, check_pc),
    *(check_whole, check_versions),
    *(check_resources, find_disk_clashes, find_card_clashes, check_screen, check_password),
    *(check_replicated, check_host_resources, check_cloud_init),
)
