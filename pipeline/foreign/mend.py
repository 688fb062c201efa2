"""What a foreign root file system lacks to start under Xen, and the changes that mend it.

`find_trouble` and `plan_changes` are pure: they judge a survey. Each change is a file with its text
before and after, or a step of the few that have none; `apply_changes` (foreign/changes.py) makes
them and touches nothing else.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import Finding
from pipeline.foreign.boot_menus import Place, is_program, keep_menu, mend_menu, write_menu
from pipeline.foreign.card_names import cover_cards, remove_cards
from pipeline.foreign.changes import Change, apply_changes
from pipeline.foreign.root_tree import FstabLine, RootTree
from pipeline.foreign.secret_files import is_replaced
from pipeline.xen.grub_menu import parse_grub_cfg
from pipeline.xen.values import SyntaxFault

__all__ = ["Change", "Wanted", "apply_changes", "find_trouble", "plan_changes"]

GRUB_CFG = "/boot/grub/grub.cfg"
XEN_INITRD = ".xen"  # behind the name of the initrd that it stands in for
_TAGS = ("UUID=", "LABEL=", "/dev/disk/by-uuid/", "/dev/disk/by-label/")
_SEARCH = re.compile(r"^\s*(search\s|set root=)", re.MULTILINE)
_KEYS_ONLY = "/etc/ssh/sshd_config.d/00-domu.conf"
_DEVICE = re.compile(r"(/dev/|UUID=|LABEL=|PARTUUID=|PARTLABEL=)")
_KEPT_DEVICES = re.compile(r"/dev/(sr|cdrom|fd|dvd|scd)")
_LINE = "1:2345:respawn:/sbin/getty 38400 {}"
_BUSYBOX_LINE = "{0}::respawn:/sbin/getty -L 0 {0} vt100"
_OPENRC_LINE = "{0}:12345:respawn:/sbin/agetty -L 115200 {0} vt100"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How it is to start: `nodes` are mount point (or "swap") to what fstab is to name.

    `boot` says who loads the kernel: dom0 (direct, with `kernel="ours"` one of a kernel package
    here), or GRUB for Xen that reads the system's own menu. With `keeps_uuids` its file systems are
    the old ones, so that UUID= and LABEL= stay right: all, or those that are `tags`. `network` and
    `secrets` are replaced where the system gets another identity; what was mounted at `merged` is
    a folder of the root file system now.
    """

    type: Literal["pvh"] = "pvh"
    boot: Literal["direct", "grub"] = "grub"
    kernel: Literal["own", "ours"] = "own"
    root_node: str = "/dev/xvda1"
    root_fs: str = "ext4"
    nodes: Mapping[str, str] = field(default_factory=dict)
    keeps_uuids: bool = True
    tags: tuple[str, ...] = ()
    console: str = "hvc0"
    cards: int = 1
    network: Literal["kept", "replaced"] = "kept"
    secrets: Literal["kept", "replaced"] = "kept"
    merged: tuple[str, ...] = ()


def find_trouble(tree: RootTree, wanted: Wanted) -> list[Finding]:
    """What is wrong, errors first: an error is what no change here can mend."""
    errors = [*_find_unmendable(tree, wanted)]
    mended: dict[str, list[Change]] = {}
    for change in plan_changes(tree, wanted):
        mended.setdefault(change.code, []).append(change)
    warnings = [
        Finding("warning", code, changes[0].why, f"mended in {_shorten(changes)}", source="")
        for code, changes in mended.items()
    ]
    notes = [
        Finding(
            "warning", "secret", f"{path} came along", "remove it if the guest is not to have it"
        )
        for path in tree.secrets
        if wanted.secrets == "replaced" and not is_replaced(path)
    ]
    notes += [Finding("warning", "unread", fault) for fault in tree.unread]
    return [*errors, *warnings, *notes]


def _shorten(changes: list[Change]) -> str:
    paths = list(dict.fromkeys(change.path for change in changes))
    rest = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + rest


def _find_unmendable(tree: RootTree, wanted: Wanted) -> Iterator[Finding]:
    if tree.init == "other":
        hint = "give the whole root file system of one machine, not a container's or a part of one"
        yield Finding("error", "no-init", "there is no /sbin/init that is known here", hint)
    if tree.arch not in ("amd64", "i386"):
        text = f"its programs are for {tree.arch or 'an unknown machine'}"
        yield Finding("error", "arch", text, "take a system for amd64 or i386")
    if wanted.kernel == "ours":
        return
    ours = "take a kernel of the pipeline: kernel=linux-image-amd64"
    if not tree.kernels:
        yield Finding("error", "no-kernel", "there is no kernel in its /boot", ours)
        return
    kernel = tree.kernels[0]
    if not kernel.has_pvh_note:
        text = f"{kernel.kernel} has no PHYS32_ENTRY note: a PVH domain cannot enter it"
        yield Finding("error", "no-pvh-note", text, ours, code="A10")
    if not kernel.has_blkfront and kernel.blkfront != "modules":
        text = f"{kernel.abi} has no driver for Xen's disks, neither built in nor as a module"
        yield Finding("error", "no-blkfront", text, ours, code="A10")


def plan_changes(tree: RootTree, wanted: Wanted) -> list[Change]:
    """Every change, in the order in which they are made; the same for the same survey."""
    plan = _Plan(tree)
    _mend_fstab(plan, wanted)
    _mend_console(plan, wanted)
    if wanted.kernel == "own":
        _mend_initrds(plan, wanted)
    elif not tree.has_udev:
        _load_card(plan)
    _mend_menus(plan, wanted)
    cover = remove_cards if wanted.network == "replaced" else cover_cards
    for change in cover(tree, wanted.cards):
        plan.edit(change.path, change.becomes, change.code, change.why)
    if wanted.secrets == "replaced":
        _replace_secrets(plan)
    changes = plan.changes()
    if changes and tree.selinux in ("enforcing", "permissive"):
        why = "SELinux has to label anew what was changed here"
        changes.append(Change(code="selinux", path="/.autorelabel", becomes="", why=why))
    return changes


class _Plan:
    """The texts as they will be, and why each of them differs."""

    def __init__(self, tree: RootTree) -> None:
        self.tree = tree
        self.texts: dict[str, str | None] = dict(tree.texts)
        self._why: dict[str, list[tuple[str, str]]] = {}
        self._steps: list[Change] = []

    def text(self, path: str) -> str:
        return self.texts.get(path) or ""

    def edit(self, path: str, text: str | None, code: str, why: str) -> None:
        """Give a file another text, None removes it; nothing where it is the same."""
        if self.texts.get(path) != text:
            self.texts[path] = text
            self._why.setdefault(path, []).append((code, why))

    def forget(self, path: str) -> None:
        """Its text is of no interest any more: a step comes over it."""
        self._why.pop(path, None)

    def step(self, change: Change) -> None:
        self._steps.append(change)

    def changes(self) -> list[Change]:
        made = [
            Change(
                code=reasons[0][0],
                path=path,
                now=self.tree.texts.get(path),
                becomes=self.texts[path],
                mode=0o755 if is_program(path) else 0o644,
                how="remove" if self.texts[path] is None else "text",
                why="; ".join(dict.fromkeys(why for _, why in reasons)),
            )
            for path, reasons in self._why.items()
            if self.texts[path] != self.tree.texts.get(path)
        ]
        return [*made, *self._steps]


def _mend_fstab(plan: _Plan, wanted: Wanted) -> None:
    """Name what the guest will have; what it will not have is commented out, or it would wait."""
    lines = plan.text("/etc/fstab").split("\n")
    for entry in plan.tree.fstab:
        line = lines[entry.number]
        node = wanted.nodes.get("swap" if entry.fs == "swap" else entry.mountpoint)
        if _is_kept(entry, wanted, known=node is not None) or node == entry.node:
            continue
        if node is not None:
            lines[entry.number] = line.replace(entry.node, node, 1)
        else:
            lines[entry.number] = f"# not there under Xen: {line}"
        why = f"{entry.node} is no disk of the guest"
        plan.edit("/etc/fstab", "\n".join(lines), "fstab", why)
    if "/" in wanted.nodes and all(entry.mountpoint != "/" for entry in plan.tree.fstab):
        line = f"{wanted.nodes['/']} / {wanted.root_fs} defaults 0 1"
        text = "\n".join([line, *lines]) if any(lines) else f"{line}\n"
        plan.edit("/etc/fstab", text, "fstab", "fstab does not name the root file system")


def _is_kept(entry: FstabLine, wanted: Wanted, *, known: bool) -> bool:
    """Whether the line stays right: no disk, one of the guest's own file systems, or never waited
    for."""
    if not _DEVICE.match(entry.node) or _KEPT_DEVICES.match(entry.node):
        return True
    if wanted.keeps_uuids and entry.node.startswith(_TAGS):
        return known or not wanted.tags or entry.node in wanted.tags
    return not known and "noauto" in entry.options.split(",")


def _mend_console(plan: _Plan, wanted: Wanted) -> None:
    """A login on Xen's console: systemd makes one by itself where console= says so."""
    device, tree, inittab = wanted.console, plan.tree, "/etc/inittab"
    why = f"no getty on {device}: `xl console` shows no login prompt"
    unit = f"serial-getty@{device}.service"
    if tree.init == "systemd":
        if unit in tree.masked:
            path = f"/etc/systemd/system/{unit}"
            plan.step(Change(code="getty", path=path, how="remove", why=f"{unit} is masked"))
    elif tree.init == "runit":
        path = f"/etc/runit/runsvdir/default/agetty-{device}"
        if f"agetty-{device}" not in tree.gettys:
            target = f"/etc/sv/agetty-{device}"
            plan.step(Change(code="getty", path=path, how="link", becomes=target, why=why))
    elif inittab in tree.texts and not any(_names(line, device) for line in tree.gettys):
        form = _LINE
        if "::" in plan.text(inittab):
            form = _BUSYBOX_LINE
        elif tree.init == "openrc":
            form = _OPENRC_LINE
        text = plan.text(inittab).rstrip("\n")
        line = form.format(device)
        taken = {line.partition(":")[0] for line in text.splitlines()}
        if line.startswith("1:") and "1" in taken:
            line = f"h0{line[1:]}"
        plan.edit(inittab, f"{text}\n{line}\n", "getty", why)
    secure = "/etc/securetty"
    terminals = plan.text(secure).split()
    if terminals and device not in terminals:
        text = f"{plan.text(secure).rstrip()}\n{device}\n"
        plan.edit(secure, text, "securetty", f"root may not log in on {device}")


def _names(line: str, device: str) -> bool:
    return device in re.split(r"[\s@.:/]", line)


def _mend_initrds(plan: _Plan, wanted: Wanted) -> None:
    """An initrd of ours beside each that has no driver for Xen's disks."""
    tree, why = plan.tree, "the initrd has no driver for Xen's disks (xen-blkfront)"
    poor = [kernel for kernel in tree.kernels if kernel.blkfront == "modules"]
    for kernel in poor:
        path = f"{kernel.initrd or f'/boot/initrd.img-{kernel.abi}'}{XEN_INITRD}"
        words = (kernel.abi, wanted.root_fs)
        plan.step(
            Change(
                code="initrd",
                path=path,
                how="initrd",
                becomes=f"{kernel.abi} with xen-blkfront and {wanted.root_fs}",
                why=why,
                words=words,
            )
        )
    if not poor:
        return
    modules, dracut = "/etc/initramfs-tools/modules", "/etc/dracut.conf.d/xen.conf"
    if "/etc/initramfs-tools" in tree.folders:
        lines = plan.text(modules).rstrip().splitlines()
        missing = [name for name in ("xen-blkfront", "xen-netfront") if name not in lines]
        plan.edit(modules, "\n".join([*lines, *missing, ""]), "initrd", why)
    if "/etc/dracut.conf.d" in tree.folders:
        text = 'add_drivers+=" xen-blkfront xen-netfront "\n'
        plan.edit(dracut, text, "initrd", why)


def _load_card(plan: _Plan) -> None:
    """Without udev nobody may load the card's driver."""
    lines = plan.text("/etc/modules").rstrip().splitlines()
    if "xen-netfront" not in lines:
        text = "\n".join([*lines, "xen-netfront", ""])
        plan.edit("/etc/modules", text, "card-driver", "nothing in it loads the card's driver")


def _mend_menus(plan: _Plan, wanted: Wanted) -> None:
    """root= and console= of every entry; a grub.cfg where GRUB for Xen would find none."""
    own = [kernel for kernel in plan.tree.kernels if kernel.blkfront == "modules"]
    initrds = {kernel.initrd: f"{kernel.initrd}{XEN_INITRD}" for kernel in own if kernel.initrd}
    tags = _TAGS if wanted.keeps_uuids else ()
    for path in (*plan.tree.menus, "/etc/kernel/cmdline", "/etc/default/grub"):
        text = plan.text(path)
        if not text:
            continue
        changed = mend_menu(
            path, text, root=wanted.root_node, console=wanted.console, tags=tags, initrds=initrds
        )
        why = f"its entries boot another root or have no console={wanted.console}"
        plan.edit(path, changed, "menu", why)
    if wanted.boot == "grub" and plan.tree.kernels and not _is_understood(plan, wanted):
        prefix = "" if "/boot" in wanted.nodes else "/boot"
        place = Place(root=wanted.root_node, console=wanted.console, prefix=prefix)
        text = write_menu(plan.tree, place, initrds)
        plan.edit(GRUB_CFG, text, "menu", "GRUB for Xen reads no other menu of these")
        for path, text in keep_menu(plan.tree, place) if not initrds else ():
            plan.edit(path, text, "menu", "a kernel that comes or goes has to be in the menu")


def _is_understood(plan: _Plan, wanted: Wanted) -> bool:
    """Whether GRUB finds entries in it and the disk that they are on.

    blscfg is a command that Debian's has not; of grub-mkconfig's menu nothing is left to search by
    where the file systems are made anew.
    """
    grub_cfg = plan.text(GRUB_CFG)
    if "/boot" in wanted.merged or (not wanted.keeps_uuids and _SEARCH.search(grub_cfg)):
        return False
    try:
        return bool(parse_grub_cfg(grub_cfg).entries)
    except SyntaxFault:
        return "menuentry " in grub_cfg


def _replace_secrets(plan: _Plan) -> None:
    tree = plan.tree
    if "/etc/ssh/sshd_config.d" in tree.folders:
        text = "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        plan.edit(_KEYS_ONLY, text, "sshd", "a guest is entered with keys, not with passwords")
    for path in tree.secrets:
        if is_replaced(path):
            how: Literal["empty", "remove"] = "empty" if path == "/etc/machine-id" else "remove"
            why = "it makes the system this very machine, or lets somebody in"
            plan.forget(path)
            plan.step(Change(code="secret", path=path, how=how, why=why))
    if tree.passwords:
        names = ", ".join(tree.passwords[:10])
        why = f"passwords of {names}"
        plan.step(Change(code="secret", path="/etc/shadow", how="lock", why=why))
