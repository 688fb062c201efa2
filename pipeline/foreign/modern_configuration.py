"""An old guest's configuration as that of a PVH guest: what has to change, and nothing else."""

import difflib
from dataclasses import replace

from pipeline.dom0.configuration import with_keys
from pipeline.errors import UsageError, VerificationError
from pipeline.foreign.old_guest import GRAMMAR, OldGuest, modern_disks, node_of
from pipeline.spec.domain import GRUB_BINARIES
from pipeline.xen import specs, xl
from pipeline.xen.boot import Boot, Direct, Grub
from pipeline.xen.cfg_syntax import Value
from pipeline.xen.compatibility import case_of, refuse
from pipeline.xen.domain import Domain
from pipeline.xen.values import Unsupported

GRUB = GRUB_BINARIES["pvh", "amd64"]
CONSOLE = "hvc0"
# of kernels that PV guests had once; nothing reads them any more
_DEAD_WORDS = ("elevator=", "xencons=")


def modern_domain(old: OldGuest, *, boot: str, xen: str) -> Domain:
    """The PVH domain that the old one becomes, its disks still where they are.

    `boot` is grub (the kernel inside) or direct (the one that the configuration names). Raises
    UsageError for what no PVH guest of this Xen can be.
    """
    how: Boot = Grub(GRUB) if boot == "grub" else _modern_direct(old)
    domain = replace(old.domain, type="pvh", boot=how, disks=modern_disks(old.domain))
    try:
        refuse(case_of(domain, xen))
    except Unsupported as error:
        raise UsageError(f"{old.path}: {error.message}", hint=error.hint) from error
    return domain


def _modern_direct(old: OldGuest) -> Direct:
    boot = old.domain.boot
    if not isinstance(boot, Direct):
        raise UsageError(
            f"{old.path} names no kernel of this host",
            hint="leave boot=direct out: the guest boots the kernel that is in it",
        )
    words = [word for word in boot.cmdline.split() if not word.startswith(_DEAD_WORDS)]
    consoles = [word for word in words if word.startswith("console=")]
    if f"console={CONSOLE}" not in consoles:
        words = [word for word in words if word not in consoles] + [f"console={CONSOLE}"]
    root = node_of(boot.root) if boot.root and boot.root.startswith("/dev/") else boot.root
    return replace(boot, root=root, cmdline=" ".join(words))


def render_text(old: OldGuest, domain: Domain) -> str:
    """The old text with what the new domain has otherwise; its comments and other keys stay.

    Raises VerificationError where it is written so that this cannot be done.
    """
    root, extra = xl.root_and_extra(domain.boot)
    boot = domain.boot
    kernel = boot.kernel if isinstance(boot, Direct | Grub) else ""
    changes: dict[str, Value | None] = {
        "builder": None,
        "bootloader": None,
        "bootloader_args": None,
        "kernel": kernel,
        "type": domain.type,
        "ramdisk": boot.ramdisk if isinstance(boot, Direct) else None,
        "root": root,
        "extra": extra or None,
        "cmdline": None,
        "disk": [specs.write_xl_disk(disk) for disk in domain.disks],
    }
    text = with_keys(old.path, GRAMMAR, old.text, changes)
    if GRAMMAR.domain(text) != domain:
        raise VerificationError(
            f"{old.path} is not written so that this can be replaced in it",
            hint="write each key once, on lines of its own",
        )
    return text


def show_difference(old: OldGuest, text: str) -> list[str]:
    """The configuration's changes as diff -u shows them."""
    was, now = (version.splitlines() for version in (old.text, text))
    return list(difflib.unified_diff(was, now, str(old.path), "as PVH", lineterm="", n=1))
