"""Likely causes of a guest that does not do what it must, from what it and Xen's tools printed.

Pure: the texts go in, sentences for a person come out. `find_host_fault` tells apart what says
nothing about the guest.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of a guest: its console, what `xl create` said if it failed, how far it came.

    `type` is pv, pvh or hvm; `boot` direct, pygrub, grub or firmware. `is_reached` is whether it
    answered over the network.
    """

    console: str = ""
    create: str = ""
    type: str = "pv"
    boot: str = "direct"
    has_login: bool = False
    is_reached: bool = False


_CONSOLE: tuple[tuple[str, str], ...] = (
    (
        r"VFS: Unable to mount root fs|VFS: Cannot open root device",
        "the kernel got no initrd, or root= names nothing that it can mount itself",
    ),
    (r"cannot be mounted as root file system", "root= names a disk that holds no such file system"),
    (
        r"initrd: module \S+ does not load",
        "the initrd's modules are of another kernel than vmlinuz",
    ),
    (r"No working init found|initrd: no \S+ on the root", "the root file system has no init"),
    (r"emergency mode|Give root password for maintenance", "a mount of /etc/fstab failed"),
    (r"Out of memory|Kernel panic - not syncing: System is deadlocked", "memory= is too small"),
)
_CREATE: tuple[tuple[str, str], ...] = (
    (
        r"[Pp]ygrub.*(?:[Uu]nable to find|No such)|Boot loader didn't return|bootloader failed",
        "pygrub found no menu or no kernel in the guest's first disk",
    ),
    (r"[Bb]ridge .* does not exist|vif-bridge .*exited", "bridge= names no bridge of the host"),
    (r"Disk .*does not exist|failed to stat", "disk= names a file or device that does not exist"),
    (r"unrecogni[sz]ed|config parsing error", "xl does not understand the configuration"),
)
_HOST: tuple[tuple[str, str], ...] = (
    (
        r"not enough free memory|failed to free memory|Insufficient memory",
        "the host has not as much memory free as the guest wants",
    ),
    (r"No space left on device", "the host has no space left"),
    (
        r"killing execution of \S+ \w+ because of timeout",
        "the host is too busy: a hotplug script of Xen did not end in its time",
    ),
    (
        r"[Cc]annot connect to xenstore|xs_(?:daemon_)?open.*(?:refused|No such file)",
        "xenstored does not run in the host",
    ),
    (
        r"(?:privcmd|xencall|evtchn).*(?:No such file|Permission denied)",
        "xl finds no Xen in the host",
    ),
)
_NO_LOADER = r"no loader found|Invalid kernel|xc_dom_parse_image returned -\d+|no PVH|not a PVH"
_NO_ROOT = re.compile(r"root device (\S+) did not appear|ALERT!\s+(\S+) does not exist")
_IS_UP = re.compile(r"Reached target multi-user|Started serial-getty|INIT: Entering runlevel")
# GRUB's own screen: it ran, and no kernel came after it
_GRUB = re.compile(r"GNU GRUB|Booting `|grub>|error: .*(?:xen|kernel|compress)", re.IGNORECASE)
_KERNEL = re.compile(r"Linux version \d|\[ +\d+\.\d{6}\]")


def find_host_fault(create: str) -> str:
    """Why `xl create` could not work on this host, whatever the guest is; "" if not known."""
    return next((cause for pattern, cause in _HOST if re.search(pattern, create)), "")


# the guest's processor found at an address of Xen's own: SVM, as QEMU emulates it, mixes them up
_LOST = re.compile(
    r"Triple fault[^\0]{0,400}?RIP:\s+e008:\[<ffff82d[0-9a-f]+>\]\s[^\0]{0,200}?CONTEXT: hvm guest"
)


def is_guest_lost(xen_log: str) -> bool:
    """Whether the emulator lost a PVH or HVM guest, which had done nothing."""
    return bool(_LOST.search(xen_log))


def likely_causes(seen: Seen) -> list[str]:
    """The known causes that fit, most telling first; may be empty."""
    found = [cause for pattern, cause in _CREATE if re.search(pattern, seen.create)]
    if re.search(_NO_LOADER, seen.create):
        found.append(_explain_loader(seen))
    if missing := _NO_ROOT.search(seen.console):
        found.append(_explain_root(missing[1] or missing[2], seen.console))
    found += [cause for pattern, cause in _CONSOLE if re.search(pattern, seen.console)]
    if not found and not seen.has_login and not seen.create:
        found += _explain_silence(seen)
    has_no_network = re.search(r"Failed to start (?:networking|.*Raise network)", seen.console)
    if not seen.is_reached and (seen.has_login or has_no_network):
        found.append(_explain_network(seen.console))
    return found


def _explain_loader(seen: Seen) -> str:
    if "HVM container" in seen.create:
        return (
            "the kernel has no PVH note (XEN_ELFNOTE_PHYS32_ENTRY): it cannot start as a pvh guest"
        )
    note = "PVH note" if seen.type == "pvh" else "PV note of Xen"
    return (
        f"Xen finds no loader for this kernel as a {seen.type} guest: it has no {note}, or it is"
        " compressed in a form that the toolstack does not know"
    )


def _explain_root(device: str, console: str) -> str:
    """No such disk in the initrd: because its driver is missing, or under another name?"""
    listed = re.search(r"initrd: block devices here: ?(.*)", console)
    known = set(re.findall(r"\b(?:xvd|sd|hd)[a-z]+\d*\b", listed[1])) if listed else set()
    known |= set(re.findall(r"blkfront: (\w+):", console))
    if known:
        return (
            f"root= does not name the disk's vdev: it says {device},"
            f" the guest has {', '.join(sorted(known))}"
        )
    return (
        f"the guest saw no disk at all, so {device} did not appear: the initrd holds no"
        " xen-blkfront"
    )


def _explain_silence(seen: Seen) -> list[str]:
    if seen.boot == "grub" and not _KERNEL.search(seen.console):
        if seen.console.strip():
            return [
                "GRUB ran, but no kernel came after it: GRUB for Xen cannot unpack this kernel"
                " (LZ4, as Debian's cloud kernel has it), take the generic one"
            ]
        return ["nothing on the console: GRUB for Xen did not start, or it found no disk"]
    if not seen.console.strip():
        return [
            "nothing on the console: the kernel has no console=hvc0, or it cannot start as a"
            f" {seen.type} guest"
        ]
    if _IS_UP.search(seen.console):
        if re.search(r"Timed out waiting for device dev-hvc0", seen.console):
            return ["systemd waited too little for hvc0: a busy machine (DefaultDeviceTimeoutSec=)"]
        if re.search(r"Started serial-getty@hvc0|Started getty on hvc0", seen.console):
            return ["it was still starting when the time was over: a busy machine, or a slow unit"]
        return ["the guest started, but no getty runs on hvc0"]
    return []


def _explain_network(console: str) -> str:
    renamed = re.search(r"(enX\d): renamed from (eth\d)", console)
    if renamed:
        return (
            f"the card was renamed: udev calls it {renamed[1]}, the guest's network files may"
            f" still say {renamed[2]}"
        )
    return "no network file of the guest names its card, or none asks for an address"
