"""Keys that a toolstack would ignore: named one by one, with what to write instead.

xl skips unknown keys without a word, and only prints a line for an unknown vif key; xend leaves
unknown variables alone. So a misspelt key is a guest without what it should have had.
"""

import difflib
from collections.abc import Iterator, Mapping

from pipeline.xen import specs, xl, xm
from pipeline.xen.cfg_syntax import Value, read_assignments
from pipeline.xen.compatibility import SINCE
from pipeline.xen.values import SyntaxFault, Version, check_choice, parse_version

_XL = """
acpi acpi_firmware acpi_laptop_slate acpi_s3 acpi_s4 altp2m altp2mhvm apic bios bios_path_override
blkdev_start boot bootloader bootloader_args builder cap channel cmdline cpu_weight cpuid cpus
cpus_soft device_model_args device_model_args_hvm device_model_args_pv device_model_override
device_model_stubdomain_override device_model_stubdomain_seclabel device_model_user
device_model_version device_tree disk display dm_restrict driver_domain dtdev e820_host extra
extratime firmware firmware_override gfx_passthru gic_version hap hdtype hpet init_seclabel iomem
ioports irqs kernel keymap latency localtime max_event_channels max_grant_frames max_grant_version
max_maptrack_frames maxmem maxvcpus mca_caps memory mmio_hole ms_vm_genid msr_relaxed name
nestedhvm nographic nomigrate nx on_crash on_poweroff on_reboot on_soft_reset on_watchdog oos
opengl p9 pae passthrough pci pci_msitranslate pci_permissive pci_power_mgmt pci_seize period pool
pvcalls pvshim pvshim_cmdline pvshim_extra pvshim_path ramdisk rdm rdm_mem_boundary root
rtc_timeoffset sdl seclabel serial shadow_memory slice smbios_firmware soundhw spice
spice_clipboard_sharing spice_image_compression spice_streaming_video spiceagent_mouse
spicedisable_ticketing spicehost spicepasswd spiceport spicetls_port spiceusbredirection
spicevdagent stdvga stubdomain_cmdline stubdomain_kernel stubdomain_memory stubdomain_ramdisk tee
timer_mode tsc_mode type usb usbctrl usbdev usbdevice usbversion uuid vcpus vdispl vendor_device
vfb vga videoram vif viridian vkb vkb_device vmtrace_buf_kb vnc vncdisplay vnclisten vncpasswd
vncunused vncviewer vnuma vpmu vpt_align vsnd vtpm vuart xen_platform_pci
xend_suspend_evtchn_compat
"""

XL_KEYS = frozenset(_XL.split())

# Read only to warn that they do nothing.
XL_DEAD_KEYS = frozenset({"device_model", "vif2"})

# Keys that came after 4.17, with the version that brought them.
XL_LATER_KEYS = {
    "bootloader_restrict": SINCE["bootloader_user="],
    "bootloader_user": SINCE["bootloader_user="],
    "smbios": (4, 18),
    "sve": (4, 18),
    "virtio": (4, 18),
    "hvm_pirq": (4, 19),
    "nr_spis": (4, 19),
    "llc_colors": (4, 20),
}

# Keys younger than xl itself, as far as they concern our model.
XL_SINCE = {
    "type": SINCE["type="],
    "firmware": SINCE["firmware="],
    "max_grant_version": (4, 12),
    "pvshim": (4, 11),
    "hdtype": SINCE["hdtype="],
    "bios_path_override": SINCE["bios_path_override="],
}

# Read only when type="hvm".
_HVM = """
acpi_firmware bios bios_path_override boot gfx_passthru hdtype hpet nographic serial
smbios_firmware soundhw spice stdvga usb usbdevice usbversion vga videoram vkb_device
xen_platform_pci
"""
XL_HVM_KEYS = frozenset(_HVM.split())

_VIF = """
backend bridge devid gatewaydev ip mac model mtu netdev rate script trusted type untrusted vifname
"""
XL_VIF_KEYS = frozenset(_VIF.split())
XL_VIF_LATER = {"vlan": SINCE["vlan="]}

_VFB = "display keymap opengl sdl vnc vncdisplay vnclisten vncpasswd vncunused xauthority"
XL_VFB_KEYS = frozenset(_VFB.split())

_DISK = """
access backend backendtype cdrom devtype direct-io-safe discard format grant_usage no-discard
script specification target trusted untrusted vdev
"""
XL_DISK_KEYS = frozenset(_DISK.split())

_XM = """
access_control acpi apic blkif boot bootargs bootentry bootloader builder cpu cpu_cap cpu_weight
cpus device_model dhcp disk display extra fda fdb features gateway guest_os_type hostname
interface ioports ip irq isa kernel keymap localtime machine_address_size maxmem memory monitor
name netif netmask nfs_root nfs_server nics nographic on_crash on_poweroff on_reboot on_xend_start
on_xend_stop pae pci ramdisk restart root rtc_timeoffset sdl serial shadow_memory soundhw stdvga
timer_mode tpmif usb usbdevice uuid vcpu_avail vcpus vfb vhpt vif vnc vncconsole vncdisplay
vnclisten vncpasswd vncunused vncviewer vtpm xauthority
"""
XM_KEYS = frozenset(_XM.split())

_XM_LATER = """
cpuid cpuid_check hap hpet loader opengl suppress_spurious_page_faults target videoram vscsi
"""
XM_LATER_KEYS = dict.fromkeys(_XM_LATER.split(), (3, 3))

_XM_VIF = "accel backend bridge ip label mac model policy rate script type vifname"
XM_VIF_KEYS = frozenset(_XM_VIF.split())

_XM_VFB = "display keymap type vncdisplay vnclisten vncpasswd vncunused xauthority"
XM_VFB_KEYS = frozenset(_XM_VFB.split())

_KERNEL_IP = "xl does not build ip= for the kernel; put it into extra="
HINTS = {
    "bootargs": "bootloader_args = [ ... ] is what xl reads",
    "bootentry": "bootloader_args = [ ... ] is what xl reads",
    "cpu": "cpus = is what xl reads",
    "cpu_cap": "cap = is what xl reads",
    "dhcp": "put ip=dhcp into extra=, or let the guest ask by itself",
    "gateway": _KERNEL_IP,
    "hostname": _KERNEL_IP,
    "interface": _KERNEL_IP,
    "ip": _KERNEL_IP,
    "netmask": _KERNEL_IP,
    "nfs_root": "put nfsroot=SERVER:PATH into extra=",
    "nfs_server": "put nfsroot=SERVER:PATH into extra=",
    "nics": 'vif = [ "" ] gives a card',
    "on_xend_start": "a link in /etc/xen/auto starts a guest with the host",
    "on_xend_stop": "/etc/default/xendomains says what happens when the host stops",
    "restart": "on_poweroff, on_reboot and on_crash are what xl reads",
    "vcpu_avail": "vcpus = and maxvcpus = are what xl reads",
    "device_model": "device_model_override = is what xl reads",
    "type": "type = came with Xen 4.10; builder = is what older ones read",
}


def check_keys(configuration: str | Mapping[str, Value], *, target: str, xen: str) -> list[str]:
    """One line for each key of a configuration that `target` (xl or xm) would ignore.

    `configuration` is the text or its assignments. Raises SyntaxFault when the text cannot be read.
    """
    check_choice("target", target, ("xl", "xm"))
    version = parse_version(xen)
    problems: list[str] = []
    if isinstance(configuration, str):
        if target == "xl":
            problems += _find_repeated(configuration)
            configuration = xl.parse_assignments(configuration)
        else:
            configuration = xm.parse_assignments(configuration)
    if target == "xl":
        return problems + list(_check_xl(configuration, version))
    return problems + list(_check_xm(configuration, version))


def _find_repeated(text: str) -> list[str]:
    seen: dict[str, int] = {}
    problems = []
    for entry in read_assignments(text):
        if entry.key in seen and "+=" not in text.split("\n")[entry.line - 1]:
            problems.append(
                f"{entry.key}: line {entry.line} overrides line {seen[entry.key]}; keep one"
            )
        seen[entry.key] = entry.line
    return problems


def _check_xl(values: Mapping[str, Value], version: Version) -> Iterator[str]:
    for key in values:
        yield from _check_xl_key(key, version)
    yield from _check_xl_type(values)
    yield from _check_devices(values, "vif", XL_VIF_KEYS, XL_VIF_LATER, version)
    yield from _check_devices(values, "vfb", XL_VFB_KEYS, {}, version)
    for item in _strings(values, "disk"):
        yield from _check_xl_disk(item)


def _check_xl_key(key: str, version: Version) -> Iterator[str]:
    since = XL_LATER_KEYS.get(key) or XL_SINCE.get(key)
    if since is not None and version < since:
        yield _explain(key, f"xl ignores it before Xen {since[0]}.{since[1]}", HINTS)
    elif since is None and key in XL_DEAD_KEYS:
        yield _explain(key, "xl reads it only to warn that it does nothing", HINTS)
    elif since is None and key not in XL_KEYS:
        yield _explain(key, "xl ignores it", HINTS, XL_KEYS)


def _check_xl_type(values: Mapping[str, Value]) -> Iterator[str]:
    kind = str(values.get("type", "hvm" if values.get("builder") == "hvm" else "pv"))
    if kind != "hvm":
        for key in sorted(XL_HVM_KEYS & set(values)):
            yield f"{key}: xl reads it only for hvm, this domain is {kind}"
    if kind == "hvm" and "bootloader" in values:
        yield "bootloader: xl skips it for hvm, the guest's own boot loader is used"
    if "cmdline" in values:
        for key in ("root", "extra"):
            if key in values:
                yield f"{key}: xl ignores it beside cmdline=; put its words there"
    for key in ("vnc", "vncunused", "vncdisplay", "vnclisten"):
        if key in values and (kind == "pvh" or (kind == "pv" and "vfb" in values)):
            yield f"{key}: xl ignores it for this {kind} domain; put it into vfb = [ ... ]"


def _check_devices(
    values: Mapping[str, Value],
    name: str,
    known: frozenset[str],
    later: Mapping[str, Version],
    version: Version,
) -> Iterator[str]:
    for item in _strings(values, name):
        for key, value in specs.read_pairs(item).items():
            if key in later and version >= later[key]:
                continue
            if key in later:
                yield f"{name} {key}: ignored before Xen {later[key][0]}.{later[key][1]}"
            elif key == "type" and name == "vfb" and key not in known:
                yield f"vfb type: xl ignores type={value}; write {value}=1"
            elif key not in known:
                yield _explain(f"{name} {key}", "not a key of it", {}, known)


def _check_xl_disk(item: str) -> Iterator[str]:
    try:
        fields = specs.read_disk_fields(item)
    except SyntaxFault as fault:
        yield str(fault)
        return
    for key in fields:
        if key not in XL_DISK_KEYS:
            yield _explain(f"disk {key}", "xl refuses it", {}, XL_DISK_KEYS)


def _check_xm(values: Mapping[str, Value], version: Version) -> Iterator[str]:
    for key in values:
        since = XM_LATER_KEYS.get(key)
        if since is not None and version < since:
            yield f"{key}: xm ignores it before Xen {since[0]}.{since[1]}"
        elif since is None and key not in XM_KEYS:
            hint = {"type": "builder = 'hvm' or 'linux' is what xm reads"}
            yield _explain(key, "xm ignores it", hint, XM_KEYS)
    yield from _check_devices(values, "vif", XM_VIF_KEYS, {}, version)
    yield from _check_devices(
        values, "vfb", XM_VFB_KEYS, {"opengl": (3, 3), "videoram": (3, 3)}, version
    )


def _strings(values: Mapping[str, Value], key: str) -> list[str]:
    value = values.get(key, [])
    return value if isinstance(value, list) else []


def _explain(
    key: str, what: str, hints: Mapping[str, str], known: frozenset[str] = frozenset()
) -> str:
    bare = key.split()[-1]
    near = difflib.get_close_matches(bare, sorted(known), n=1, cutoff=0.8)
    hint = hints.get(bare) or (f"did you mean {near[0]}?" if near else "")
    return f"{key}: {what}; {hint}" if hint else f"{key}: {what}"
