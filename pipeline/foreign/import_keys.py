"""What becomes of every key that xl, xm and libvirt know, when a configuration becomes a spec.

The keys of xl are those of xl.cfg(5) of 4.17 to 4.20 (xen/keys.py), those of xm of its create.py of
Xen 3.0 to 3.4, the elements of libvirt those of formatdomain, as far as its Xen driver reads them.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pipeline.errors import Finding, Level, suggest_nearest
from pipeline.xen.keys import HINTS, XL_DEAD_KEYS, XL_KEYS, XL_LATER_KEYS, XM_KEYS, XM_LATER_KEYS

Outcome = Literal["taken", "not needed", "cannot be said", "added"]
LEVELS: Mapping[Outcome, Level] = {
    "taken": "ok",
    "not needed": "skipped",
    "cannot be said": "warning",
    "added": "ok",
}


class Answer(NamedTuple):
    """What becomes of a key: its outcome, the spec's key or the reason, and what to do."""

    outcome: Outcome
    text: str
    hint: str = ""

    def about(self, key: str, value: str, source: str) -> Finding:
        """The row of the report: the key, what the file says, what becomes of it."""
        text = f"{value} {self.text}" if self.text.startswith("->") else self.text
        if value and not self.text.startswith("->"):
            text = f"{value}: {self.text}"
        if self.outcome == "added" and self.hint:
            text += f" ({self.hint})"
        return Finding(
            LEVELS[self.outcome], key, text, self.hint, seen=value, code=self.outcome, source=source
        )


# key of the file: the aspect of the domain model that it is about, which knows its own answer
XL_ASPECTS: Mapping[str, str] = {
    **{key: key for key in "name uuid type memory maxmem vcpus maxvcpus kernel ramdisk".split()},
    **{key: key for key in ("cpus", "cpu_weight", "cap")},
    **{key: key for key in "root extra cmdline bootloader bootloader_args boot hdtype".split()},
    "bios_path_override": "bios_path_override",
    **{key: key for key in "firmware vnc vncunused vncdisplay vnclisten keymap vfb".split()},
    **{key: key for key in "on_poweroff on_reboot on_crash disk vif".split()},
    "builder": "type",
    "bios": "firmware",
}
XM_ASPECTS: Mapping[str, str] = {
    **{key: key for key in XL_ASPECTS if key in XM_KEYS and key != "cmdline"},
    "builder": "type",
    "vcpu_avail": "vcpus",
    "bootargs": "bootloader_args",
    "cpu_cap": "cap",
}
# what xend made the kernel's ip= of; xl reads none of them, a spec can say them all
NETWORK_KEYS = ("dhcp", "ip", "netmask", "gateway", "hostname")

SPEC_KEYS: Mapping[str, str] = {
    "name": "name, in lower case",
    "maxvcpus": "maxvcpus",
    "kernel": "kernel, where the file is there; boot, where it is a GRUB",
    "bootloader_args": "none: pygrub is called without arguments",
    "hdtype": "none: AHCI where the host's Xen has it",
    "extra": "cmdline",
    "cmdline": "cmdline",
    "root": "none: it says which disk is the root",
    "disk": "lvm, size, swap, format; cdrom",
    "vif": "bridge, mac, vifname, mtu, rate, model; further ones: [[interfaces]]",
    "vfb": "vnc, vncdisplay, vnclisten, keymap",
    "vncunused": "vncunused",
    "ramdisk": "initrd",
    "bootloader": "boot, bootloader",
    "firmware": "boot, firmware",
    "bios_path_override": "none: a build makes the firmware",
    "boot": "boot_order, where it is not c",
    "ip": "address",
}


def cannot(keys: str, text: str, hint: str = "") -> dict[str, Answer]:
    """Keys that a spec has no word for, with the reason and what does it instead."""
    return dict.fromkeys(keys.split(), Answer("cannot be said", text, hint))


def needless(keys: str, text: str, hint: str = "") -> dict[str, Answer]:
    """Keys that a build does without."""
    return dict.fromkeys(keys.split(), Answer("not needed", text, hint))


KEYS: Mapping[str, Answer] = {
    **cannot("cpus_soft cpu", "one list of processors holds for all of them", "cpus ="),
    **cannot(
        "period slice latency extratime",
        "only the weight and the cap are",
        "xl sched-rtds -d NAME ...",
    ),
    **cannot("pool", "a pool of processors is the host's", "xl cpupool-migrate"),
    **cannot(
        "pci pci_msitranslate pci_permissive pci_power_mgmt pci_seize gfx_passthru rdm "
        "rdm_mem_boundary dtdev ioports iomem irqs irq passthrough vscsi",
        "a device of one host is no part of what a guest is built of",
        "xl pci-attach NAME BDF, or add the line to the installed configuration",
    ),
    **cannot(
        "usb usbctrl usbdev usbdevice usbversion",
        "USB devices are the host's",
        "xl usbdev-attach NAME ...",
    ),
    **cannot(
        "vncpasswd spicepasswd",
        "a password here would stand in clear in every rendering",
        "VNC listens on 127.0.0.1: come by ssh -L",
    ),
    **cannot(
        "sdl opengl display xauthority spice spice_clipboard_sharing spice_image_compression "
        "spice_streaming_video spiceagent_mouse spicedisable_ticketing spicehost spiceport "
        "spicetls_port spiceusbredirection spicevdagent vncconsole",
        "the one screen of a spec is VNC",
        "vnc = true",
    ),
    **needless("vncviewer", "it is about the program that shows the screen, not the guest"),
    **cannot(
        "acpi acpi_firmware acpi_laptop_slate acpi_s3 acpi_s4 altp2m altp2mhvm apic "
        "cpuid cpuid_check e820_host features firmware_override hap hpet isa "
        "machine_address_size mca_caps mmio_hole ms_vm_genid msr_relaxed nestedhvm nx oos pae "
        "smbios smbios_firmware soundhw stdvga suppress_spurious_page_faults timer_mode tsc_mode "
        "vendor_device vga vhpt videoram viridian vkb vkb_device vpt_align xen_platform_pci "
        "nographic hvm_pirq guest_os_type",
        "the emulated PC is as Xen makes it",
        "what a Linux guest needs of it is there; tell us what else must be",
    ),
    **cannot("localtime rtc_timeoffset", "the guest's clock is UTC", "timezone says what it shows"),
    **needless("serial", "the serial console of a full PC is always there"),
    **needless(
        "device_model device_model_version device_model_override",
        "the host's own device model is found by name",
    ),
    **cannot(
        "device_model_args device_model_args_hvm device_model_args_pv "
        "device_model_stubdomain_override device_model_stubdomain_seclabel device_model_user "
        "dm_restrict stubdomain_cmdline stubdomain_kernel stubdomain_memory stubdomain_ramdisk "
        "loader",
        "the device model runs as xl starts it",
    ),
    **needless(
        "bootloader_restrict bootloader_user",
        "a pygrub guest of ours is always restricted where Xen can",
    ),
    **cannot(
        "channel vtpm tpmif p9 pvcalls vdispl vsnd vuart virtio fda fdb netif",
        "the guest has disks, cards and a screen, no other devices",
    ),
    **cannot(
        "seclabel init_seclabel access_control", "labels of a security module are the host's policy"
    ),
    **cannot(
        "max_event_channels max_grant_frames max_grant_version max_maptrack_frames "
        "shadow_memory vmtrace_buf_kb vpmu nomigrate llc_colors nr_spis blkif",
        "limits of Xen's tables stay Xen's own",
    ),
    **cannot("device_tree gic_version sve tee vnuma", "a guest of 32 or 64 bit x86 has none of it"),
    **cannot(
        "pvshim pvshim_cmdline pvshim_extra pvshim_path",
        "PV guests run without the shim here",
        'type = "pvh" is leaner',
    ),
    **cannot("driver_domain blkdev_start", "a guest that serves devices to others is not built"),
    **cannot(
        "on_watchdog on_soft_reset",
        "no watchdog and no soft reset is set up",
        "on_crash, on_reboot",
    ),
    **cannot("nfs_root nfs_server", "the root file system is a disk"),
    **cannot("bootentry", "names of the menu are the guest's own"),
    **needless(
        "on_xend_start on_xend_stop", "a link in /etc/xen/auto starts a guest", "autostart = true"
    ),
    **needless("restart", "on_poweroff, on_reboot and on_crash say it"),
    **needless("nics interface", "vif says how many cards there are"),
    **needless("xend_suspend_evtchn_compat monitor target", "it was for suspending under xend"),
}
# at these values a key says what holds anyway (xl.cfg(5), create.py of xm)
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys("acpi apic pae nx hap acpi_s3 acpi_s4 vkb_device".split(), ("1",)),
    **dict.fromkeys(
        "localtime nestedhvm sdl opengl nographic usb spice vncconsole".split(), ("0",)
    ),
    **dict.fromkeys("nomigrate pvshim gfx_passthru e820_host altp2mhvm hpet oos".split(), ("0",)),
    **dict.fromkeys("device_model_stubdomain_override dm_restrict driver_domain".split(), ("0",)),
    **dict.fromkeys("pci_msitranslate pci_permissive pci_power_mgmt pci_seize".split(), ("0",)),
    **dict.fromkeys("vncpasswd display xauthority nfs_root nfs_server pool".split(), ("",)),
    "rtc_timeoffset": ("0",),
    "cpu": ("", "-1"),
    "stdvga": ("0",),
    "xen_platform_pci": ("1",),
    "tsc_mode": ("default", "0"),
}


def answer_of(key: str, value: str, *, target: str) -> Answer:
    """What becomes of a key that no aspect of the domain model is about."""
    if value in DEFAULTS.get(key, ()):
        return Answer("not needed", f"{value or 'empty'} is what holds anyway")
    if answer := KEYS.get(key):
        return answer
    if key in XL_DEAD_KEYS:
        return Answer("not needed", "xl reads it only to warn that it does nothing")
    known = XL_KEYS | set(XL_LATER_KEYS) if target == "xl" else XM_KEYS | set(XM_LATER_KEYS)
    hint = HINTS.get(key) or suggest_nearest(key, known)
    return Answer("not needed", f"{target} knows no such key: it did nothing", hint)
