"""Kernels and their modules, and whether the guest would boot (A10, A21, C2)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from pipeline.check.configuration import expected_domain, read_domains
from pipeline.check.contents import STATUS
from pipeline.check.facts import Facts, compare, judge
from pipeline.check.image import MOST_FILE
from pipeline.check.network import network_names
from pipeline.check.system import find_gettys
from pipeline.check.tree import Tree
from pipeline.errors import Finding
from pipeline.guest.identity import name_device
from pipeline.mirror.stanzas import find_stanzas
from pipeline.spec.domain import command_line
from pipeline.storage.filesystems import MOUNTED
from pipeline.xen.bootability import BootFacts, lint
from pipeline.xen.grub_menu import parse_grub_cfg, parse_menu_lst
from pipeline.xen.values import SyntaxFault

MODULES = "/lib/modules"
_MOST_KERNELS = 50
NETFILTER = ("nf_tables", "ip_tables", "nf_conntrack")
MENUS = {"/boot/grub/grub.cfg": parse_grub_cfg, "/boot/grub/menu.lst": parse_menu_lst}
_OPTIONS = {  # what modules.builtin calls a driver, to the kernel options that the lint asks for
    "xen_blkfront": ("XEN_BLKDEV_FRONTEND",),
    "ext4": ("EXT4_FS", "EXT3_FS", "EXT2_FS"),
    "ext3": ("EXT3_FS",),
    "ext2": ("EXT2_FS",),
    "xfs": ("XFS_FS",),
    "btrfs": ("BTRFS_FS",),
}


def kernels_of(tree: Tree) -> list[str]:
    """The ABIs that have a folder of modules."""
    names = tree.names(MODULES)
    return [name for name in names if tree.nodes[f"{MODULES}/{name}"].kind == "folder"]


def check_modules(facts: Facts) -> Iterator[Finding]:
    """A10: modules of the very kernel that boots, indexed, whole, with what guests need."""
    tree, abis = facts.tree, kernels_of(facts.tree)
    if facts.spec.is_kernel_inside:
        kernels = [path.removeprefix("/boot/vmlinuz-") for path in tree.glob("/boot/vmlinuz-*")]
        initrds = [
            path.removeprefix("/boot/initrd.img-") for path in tree.glob("/boot/initrd.img-*")
        ]
        expected = " ".join(sorted(kernels)) or "at least one kernel in /boot"
        yield compare("A21", "initrds", expected=expected, seen=" ".join(sorted(initrds)))
        yield from _check_menus(facts, kernels)
    else:
        expected = str(facts.record("kernel.json").get("abi", ""))
        booting = facts.boot.kernel.release if facts.boot.kernel else "unread"
        yield compare("A10", "kernel", expected=expected, seen=booting)
    yield compare("A10", "modules", expected=expected, seen=" ".join(sorted(abis)))
    if len(abis) > _MOST_KERNELS:
        tree.oversized.add(f"{MODULES} with {len(abis)} kernels")
    missing = [path for abi in abis for path in _missing_modules(tree, abi)]
    missing += [f"{abi} has no modules.dep" for abi in abis if not _index(tree, abi, "modules.dep")]
    yield judge(
        "A10",
        "modules.dep",
        [*missing[:3], *([f"and {len(missing) - 3} more"] if len(missing) > 3 else [])],
        ok=f"{sum(len(_index(tree, abi, 'modules.dep')) for abi in abis)} modules, all there",
        hint="the element kernel-modules brings them in, after depmod",
    )
    for abi in abis[:_MOST_KERNELS]:
        yield from _check_needed(facts, abi)


def _check_menus(facts: Facts, kernels: list[str]) -> Iterator[Finding]:
    """Both menus boot every kernel that is installed, and tell it what the spec says."""
    root = next(part for part in facts.spec.parts if part.is_root)
    args = f"root={name_device(facts.spec, root)} {command_line(facts.spec)}"
    for path, parse in MENUS.items():
        try:
            entries = parse(facts.tree.text(path)).entries
        except SyntaxFault as fault:
            faults = [str(fault)]
        else:
            booted = dict.fromkeys(entry.kernel.rpartition("/vmlinuz-")[2] for entry in entries)
            faults = [f"no entry for {abi}" for abi in kernels if abi not in booted]
            there = set(kernels)
            faults += [f"an entry for {abi}, which is gone" for abi in booted if abi not in there]
            faults += [f"arguments: {entry.args}" for entry in entries if entry.args != args]
        yield judge("A21", path, faults, ok=args, hint="xen-grub-menus in the guest writes it")


def _check_needed(facts: Facts, abi: str) -> Iterator[Finding]:
    names = module_names(facts.tree, abi)
    wanted = [("xen-netfront", ("xen_netfront", "xennet")), ("netfilter", NETFILTER)]
    status = facts.tree.text(STATUS, limit=MOST_FILE).encode()
    if any(find_stanzas(status, "drbd-utils")):
        wanted.append(("drbd", ("drbd",)))
    for name, alternatives in wanted:
        found = next((item for item in alternatives if item in names), "")
        faults = [] if found else [f"{abi} has no {' or '.join(alternatives)}"]
        hint = f"take another kernel, e.g. {facts.spec.suite_facts.generic_kernel('amd64')}"
        yield judge("A10", f"module {name}", faults, ok=names.get(found, found), hint=hint)


def module_names(tree: Tree, abi: str) -> dict[str, str]:
    """Module to its path, or to `built in`, of one kernel; names with underscores."""
    indexed = _index(tree, abi, "modules.dep")
    found = {_module(path): path for path in indexed if f"{MODULES}/{abi}/{path}" in tree}
    return found | {_module(path): "built in" for path in _index(tree, abi, "modules.builtin")}


def built_in_config(tree: Tree, abi: str) -> str | None:
    """/boot/config-* of a kernel, or as much of it as modules.builtin tells; None without both."""
    config = tree.text(f"/boot/config-{abi}")
    if config:
        return config
    built_in = _index(tree, abi, "modules.builtin")
    if not built_in:
        return None
    options = {option for path in built_in for option in _OPTIONS.get(_module(path), ())}
    return "".join(f"CONFIG_{option}=y\n" for option in sorted(options))


def _index(tree: Tree, abi: str, name: str) -> list[str]:
    """The paths in an index of modules; old ones name them from / on."""
    lines = tree.text(f"{MODULES}/{abi}/{name}", limit=MOST_FILE).splitlines()
    home = f"{MODULES}/{abi}/"
    return [line.partition(":")[0].removeprefix(home) for line in lines if line]


def _missing_modules(tree: Tree, abi: str) -> list[str]:
    paths = (f"{MODULES}/{abi}/{path}" for path in _index(tree, abi, "modules.dep"))
    return [path for path in paths if path not in tree]


def _module(path: str) -> str:
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def read_boot_facts(facts: Facts) -> BootFacts:
    """What the bootability lint judges: the configuration as it stands, the files as they are."""
    tree, spec = facts.tree, facts.spec
    domain = read_domains(facts).get(f"{spec.name}.cfg") or expected_domain(facts)
    kernel = facts.boot.kernel
    tool = spec.suite_facts.network_tool(spec.init)
    naming = spec.suite_facts.nic_naming if tool == "networkd" else "eth"
    features = facts.file_system.features
    journalled = "ext4" if "extent" in features else "ext3"
    extended = journalled if "has_journal" in features else "ext2"
    no_files = bool(spec.adopted) or spec.cloud_init
    return BootFacts(
        domain=domain,
        xen=spec.xen,
        kernel=kernel,
        initrd_modules=facts.boot.initrd_modules,
        initrd_size=facts.boot.initrd_size,
        kernel_config=built_in_config(tree, kernel.release) if kernel else None,
        fstab=tree.text("/etc/fstab"),
        # systemd makes the getty of an adopted tree, and a whole disk's, where console= says so
        gettys=None if spec.adopted or spec.is_whole else find_gettys(tree, spec.init),
        menus={path: tree.text(path) for path in tree.glob("/boot/grub/*") if tree.text(path)},
        files=frozenset(tree.glob("/boot/*")),
        root_fs=spec.fs if spec.fs in MOUNTED else extended,
        network_names=None if no_files else network_names(tree, spec),
        card_names=frozenset(f"{naming}{card.index}" for card in spec.cards),
    )


def check_bootability(facts: Facts) -> Iterator[Finding]:
    """C2: would it boot; every finding of the lint."""
    for fault in facts.boot.faults:
        wanted = "a kernel and an initrd that can be read"
        yield compare("C2", "boot files", expected=wanted, seen=fault)
    findings = lint(read_boot_facts(facts))
    yield from (replace(finding, code="C2") for finding in findings)
    yield from _compare_compression(facts)
    if not findings and not facts.boot.faults:
        kernel = facts.boot.kernel
        shown = f"{kernel.release}, {kernel.compression}" if kernel else "firmware"
        yield judge("C2", "bootability", [], ok=shown)


def _compare_compression(facts: Facts) -> Iterator[Finding]:
    """Whether it is compressed as the suite's facts say, by which boot loaders are judged."""
    said = facts.spec.suite_facts.compression_of(facts.spec.kernel, facts.spec.arch)
    seen = facts.boot.kernel.compression if facts.boot.kernel else ""
    if said and seen and said != seen:
        hint = "correct `compressions` of the suite in pipeline/suites/"
        yield Finding("warning", "kernel's compression", "", hint, said, seen, "C2")


CHECKS = (check_modules, check_bootability)
