"""The host's pitfalls, judged from its facts alone; each finding names its fix.

Facts: xen-command-line(7) (dom0_mem, dom0_max_vcpus, console, com1), xl.conf(5) (autoballoon),
xend-config.sxp's comments (dom0-min-mem, dom0-cpus), Documentation/admin-guide/kernel-parameters of
Linux (console, vsyscall), Xen 3.0's xencons=.
"""

import re
from collections.abc import Iterator
from typing import Any

from pipeline.dom0.doctor.advisories import find_advisory_trouble
from pipeline.dom0.doctor.facts import HostFacts
from pipeline.dom0.doctor.pitfall import Pitfall
from pipeline.errors import Finding

_SIZE = re.compile(r"(\d+)([kKmMgG]?)")
_FACTORS = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "": 1 / 1024}
_SHARE = re.compile(r"\bdom0_mem=\S*[%-]")  # 25%, 1G+10%, -2G: xen-command-line(7)
_MANY_CPUS = 4
_DOM0_MIB = 1024
AUTO = "/etc/xen/auto"


def find_pitfalls(facts: HostFacts) -> list[Finding]:
    """Everything that is known to hurt a Xen host of this kind."""
    return [
        *find_pae_trouble(facts),
        *find_memory_trouble(facts),
        *find_processor_trouble(facts),
        *find_serial_trouble(facts),
        *find_library_trouble(facts),
        *find_service_trouble(facts),
        *find_volume_trouble(facts),
        *find_xendomains_trouble(facts),
        *find_firmware_trouble(facts),
        *find_advisory_trouble(facts.builds),
    ]


def find_pae_trouble(facts: HostFacts) -> Iterator[Finding]:
    """A 32-bit Xen and its dom0 must both have PAE, and so must the processor."""
    if not facts.has_pae:
        yield Finding(
            "error",
            "PAE",
            "this processor has no PAE: Debian's 32-bit Xen kernels end with \"Cannot execute a "
            'PAE-enabled kernel on a PAE-less CPU"',
            "use a machine whose /proc/cpuinfo names pae, or build Xen and kernel without it",
            code="no-pae",
        )
    pae_caps = [cap for cap in facts.caps if cap.endswith("x86_32p")]
    plain = [cap for cap in facts.caps if cap.endswith("x86_32")]
    if plain and not pae_caps:
        yield Finding(
            "error",
            "PAE",
            'Xen runs without PAE: a PAE guest ends with "PAE mode mismatch (xen=no Dom0=yes)"',
            "boot the -pae hypervisor (xen-hypervisor-*-i386-pae)",
            code="pae-mode",
        )


def find_memory_trouble(facts: HostFacts) -> Iterator[Finding]:
    """dom0's memory must be fixed, and alike wherever it is set."""
    if not (facts.is_dom0 or facts.xen_line or facts.xend):
        return
    line = facts.xen_line or facts.xen_now
    low, high = dom0_memory(line)
    where = facts.loader or "the boot loader"
    if low is None and _SHARE.search(line):
        return  # of what the host has, in Xen's own words: nothing to compare
    if low is None:
        yield Pitfall(
            "error",
            "dom0's memory",
            "dom0 has all memory and gives it away guest by guest: it fragments, and network "
            'drivers fail ("xen_net: memory squeeze in netback driver")',
            f"{where}: dom0_mem=1024M,max:1024M on Xen's line, then update-grub and reboot",
            code="dom0-mem",
            settings=_memory(_first_size(facts)),
        )
    elif high is None and not facts.xend:
        yield Pitfall(
            "warning",
            "dom0's memory",
            f"dom0_mem={low:.0f}M without max: dom0's kernel prepares for all memory",
            f"{where}: dom0_mem={low:.0f}M,max:{low:.0f}M",
            code="dom0-mem-max",
            settings=_memory(low),
        )
    if facts.xend:
        yield from _find_xend_memory(facts, low, where)
    if low is not None and facts.xl.get("autoballoon", "auto") in ("on", "1"):
        yield Pitfall(
            "error",
            "dom0's memory",
            "dom0's memory is fixed, but xl.conf says autoballoon=on: xl takes from it again",
            '/etc/xen/xl.conf: autoballoon="off"',
            code="autoballoon",
            settings=_memory(low),
        )


def _memory(mib: float) -> dict[str, Any]:
    return {"boot": {"dom0_mem": f"{mib:.0f}M"}}


def _first_size(facts: HostFacts) -> int:
    """MiB for a dom0 that has no share of its own: what xend keeps for it, else at most half."""
    minimum = facts.xend.get("dom0-min-mem", "")
    return int(minimum) if minimum.isdigit() else min(_DOM0_MIB, facts.memory_mib // 2 or _DOM0_MIB)


def _find_xend_memory(facts: HostFacts, low: float | None, where: str) -> Iterator[Finding]:
    minimum = facts.xend.get("dom0-min-mem", "")
    if not minimum.isdigit():
        yield Pitfall(
            "error",
            "dom0's memory",
            "xend-config.sxp does not say (dom0-min-mem ...)",
            "set it to what dom0_mem= says, in MiB: both places must agree",
            code="dom0-min-mem",
            settings=_memory(low or _first_size(facts)),
        )
    elif low is not None and int(minimum) != round(low):
        yield Pitfall(
            "error",
            "dom0's memory",
            f"dom0's memory is set in two places that differ: dom0_mem={low:.0f}M ({where}), "
            f"(dom0-min-mem {minimum}) (/etc/xen/xend-config.sxp)",
            f"write (dom0-min-mem {low:.0f}), or dom0_mem={minimum}M",
            code="dom0-min-mem",
            settings=_memory(low),
        )


def dom0_memory(line: str) -> tuple[float | None, float | None]:
    """MiB that dom0 gets and may have at most, of Xen's command line; None where it says none."""
    low = high = None
    for word in line.split():
        if not word.startswith("dom0_mem="):
            continue
        for part in word.removeprefix("dom0_mem=").split(","):
            kind, colon, text = part.rpartition(":")
            found = _SIZE.fullmatch(text)
            if not found:
                continue
            size = int(found[1]) * _FACTORS[found[2].lower()]
            if kind == "max":
                high = size
            elif not colon:
                low = size
    return low, high


def find_processor_trouble(facts: HostFacts) -> Iterator[Finding]:
    """dom0's share of the processors."""
    line = facts.xen_line or facts.xen_now
    is_old = facts.xen_version.startswith("3.") or (facts.xend and not facts.xen_version)
    if is_old and facts.xend.get("dom0-cpus", "0") != "1":
        yield Pitfall(
            "error",
            "processors",
            "dom0 uses every processor: on Xen 3.x kernels die now and then "
            "(BUG at drivers/xen/core/evtchn.c:481)",
            "/etc/xen/xend-config.sxp: (dom0-cpus 1), restart xend",
            code="dom0-cpus",
            settings={"boot": {"dom0_max_vcpus": 1}},
        )
    if not is_old and facts.is_dom0 and facts.cpus > _MANY_CPUS and "dom0_max_vcpus" not in line:
        yield Pitfall(
            "warning",
            "processors",
            f"dom0 has all {facts.cpus} processors and competes with its guests for each",
            f"{facts.loader}: dom0_max_vcpus=2 dom0_vcpus_pin on Xen's line",
            code="dom0-vcpus",
            settings={"boot": {"dom0_max_vcpus": 2}},
        )


def find_serial_trouble(facts: HostFacts) -> Iterator[Finding]:
    """Xen owns the serial line that it prints on: dom0 must log in by hvc0."""
    xen, linux = f"{facts.xen_line} {facts.xen_now}".split(), facts.linux_line.split()
    serial = _consoles(xen)
    for port in sorted(serial):
        tty = f"ttyS{int(port[-1]) - 1}"
        if any(word.startswith(f"console={tty}") for word in linux) or tty in facts.gettys:
            yield Pitfall(
                "error",
                "serial line",
                f"Xen takes {port} ({tty}), and dom0 still wants {tty}: no login over serial",
                "dom0's kernel: console=tty0 console=hvc0; a getty on hvc0: "
                "co:2345:respawn:/sbin/getty -h -L hvc0 115200 ansi, or systemctl enable "
                "serial-getty@hvc0",
                code="serial-taken",
                settings={"boot": {"serial": port}},
            )
        elif "hvc0" not in facts.gettys and not _starts_getty(linux):
            yield Pitfall(
                "error",
                "serial line",
                f"Xen prints on {port}, but nobody can log in there: no getty on hvc0",
                "inittab: co:2345:respawn:/sbin/getty -h -L hvc0 115200 ansi; with systemd "
                "console=hvc0 on dom0's line is enough",
                code="serial-login",
                settings={"boot": {"serial": port}},
            )
        if not any(word.startswith(f"{port}=") for word in xen):
            yield Pitfall(
                "warning",
                "serial line",
                f"console={port} without {port}=: the line's speed is the firmware's",
                f"{facts.loader}: {port}=115200,8n1 console={port},vga",
                code="serial-speed",
                settings={"boot": {"serial": port}},
            )
    yield from _find_stolen_ports(facts, linux)


def _find_stolen_ports(facts: HostFacts, linux: list[str]) -> Iterator[Finding]:
    """Xen 3.0 takes every port, whatever its own console is."""
    steals = facts.xen_version.startswith("3.0") or (
        "xen-3.0" in facts.xen_line and not facts.xen_version
    )
    wants = {name for name in facts.gettys if name.startswith("ttyS")}
    if steals and wants and not any(word.startswith("xencons=") for word in linux):
        yield Pitfall(
            "error",
            "serial line",
            f"Xen 3.0 takes the serial ports from dom0, which has a getty on {min(wants)}",
            f"{facts.loader or '/boot/grub/menu.lst'}: xenkopt=xencons=tty6",
            code="xencons",
            settings={"boot": {"xencons": "tty6"}},
        )


def _consoles(words: list[str]) -> set[str]:
    """com1, com2 where Xen's console= names them."""
    named = {
        part
        for word in words
        if word.startswith("console=")
        for part in word.removeprefix("console=").split(",")
    }
    return {name for name in named if re.fullmatch(r"com[12]", name)}


def _starts_getty(linux: list[str]) -> bool:
    """systemd starts a login on the last console= that is a serial one, hvc0 included."""
    return "console=hvc0" in linux


def find_library_trouble(facts: HostFacts) -> Iterator[Finding]:
    """A 32-bit dom0 needs the C library that leaves Xen's segments alone."""
    if facts.is_dom0 and facts.machine in ("i386", "i686") and not facts.libc6_xen:
        yield Finding(
            "error",
            "C library",
            "a 32-bit dom0 with the ordinary C library: every thread-local access is emulated "
            '("4gb seg fixup"), and typing repeats keys',
            "apt-get install libc6-xen where the release has it, or mv /lib/tls /lib/tls.disabled",
            code="libc6-xen",
        )
    if not facts.has_vsyscall:
        yield Finding(
            "warning",
            "C library",
            "this kernel answers no vsyscall: releases before squeeze crash when they are built "
            "here, and in a guest with such a kernel",
            "vsyscall=emulate on the kernel's line: here to build, in the guest's cmdline= to run",
            code="vsyscall",
        )


def find_service_trouble(facts: HostFacts) -> Iterator[Finding]:
    """What a dom0 must run."""
    if not facts.is_dom0 or facts.xend:
        return
    daemons = {"xenconsoled": "no guest has a console", "xenstored": "no guest can be created"}
    for name, effect in daemons.items():
        aliases = {name, "oxenstored"} if name == "xenstored" else {name}
        if facts.services and not aliases & facts.services:
            yield Finding(
                "error",
                "services",
                f"{name} does not run: {effect}",
                "systemctl start xen",
                code="services",
            )


def find_volume_trouble(facts: HostFacts) -> Iterator[Finding]:
    """LVM in dom0 must not read what guests write to their volumes."""
    if facts.is_dom0 and facts.groups and not (facts.lvm_filter or facts.lvm_devices):
        yield Pitfall(
            "warning",
            "LVM",
            "LVM looks into every volume, guests' disks too: a guest that makes a volume group "
            "shows up in dom0",
            '/etc/lvm/lvm.conf: devices { global_filter = [ "r|^/dev/VG0/|", '
            '"r|^/dev/mapper/VG0-[^-]|" ] }, and no "a|.*|" behind it, which takes /dev/dm-3 back; '
            "or lvmdevices --adddev for your own disks",
            code="lvm-filter",
            settings={"lvm": {"groups": list(facts.groups)}},
        )


def find_xendomains_trouble(facts: HostFacts) -> Iterator[Finding]:
    """What xendomains does with the guests in auto/ when the host starts and stops."""
    guests = [guest for guest in facts.configured if guest.is_autostarted]
    if not (guests and facts.xendomains):
        return
    saves, target = (facts.xendomains.get(f"XENDOMAINS_{key}", "") for key in ("SAVE", "MIGRATE"))
    kept = {"migrate_to": target} if target else {}
    is_kept = bool(re.fullmatch(r"[\w.-]*", target))  # no options of xl migrate
    auto = facts.xendomains.get("XENDOMAINS_AUTO", "")
    if auto != AUTO:
        yield Pitfall(
            "error",
            "xendomains",
            f"{len(guests)} guests in {AUTO} do not start with the host: XENDOMAINS_AUTO={auto}",
            f'/etc/default/xendomains: XENDOMAINS_AUTO="{AUTO}"',
            code="xendomains-auto",
            settings={"guests": {"save": bool(saves), **kept}} if is_kept else {},
        )
    memory = sum(guest.memory_mib for guest in guests)
    if saves and memory > facts.save_room_mib:
        yield Pitfall(
            "error",
            "xendomains",
            f"a stop of the host saves its guests in {saves}: {memory} MiB, and there is room for "
            f"{facts.save_room_mib}",
            '/etc/default/xendomains: XENDOMAINS_SAVE="", which shuts them down instead',
            code="xendomains-save",
            settings={"guests": {"save": False, **kept}} if is_kept else {},
        )


def find_firmware_trouble(facts: HostFacts) -> Iterator[Finding]:
    """Debian's OVMF lost Xen with edk2-stable202108: a guest with it stands still (#1050030)."""
    since = re.match(r"(\d{4})\.(\d\d)", facts.ovmf)
    guests = [
        guest.name
        for guest in facts.configured
        if {guest.values.get("bios"), guest.values.get("firmware")} & {"ovmf", "uefi"}
        and "bios_path_override" not in guest.values
    ]
    if guests and since and (int(since[1]), int(since[2])) >= (2021, 8):
        yield Finding(
            "error",
            "firmware",
            f"{', '.join(guests)}: ovmf {facts.ovmf} starts no Xen guest (Debian #1050030)",
            "bios_path_override = an OVMF built of OvmfXen.dsc: doit build of a guest with "
            'firmware = "uefi" makes one (docs/how-to/uefi.md); or bios = "seabios"',
            code="ovmf",
        )
