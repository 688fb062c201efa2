"""The keys of a spec, section by section in the order of the reference, and what a key holds."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from pipeline.spec import values
from pipeline.xen.values import CrashAction, DomainType, StopAction


class Section(BaseModel):
    """Keys that belong together; a value that came is not changed, no other key is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Naming(Section):
    """Name."""

    name: values.GuestName = Field(
        description="The guest's name: its file is guests/NAME.toml, its domain has this name.",
        examples=["test-drbd", "web1"],
    )
    uuid: values.Uuid = Field(
        "",
        description="The domain's UUID. Default: made of the name, the same at every build.",
        examples=["50fd08d4-94b0-4ae3-9d30-6eb638421c86"],
    )
    description: values.Text = Field(
        "", description="What the guest is for, in one line.", examples=["replicated disk, node 1"]
    )
    hostname: values.HostName = Field(
        "",
        description="Host name, short or fully qualified. Default: the name.",
        examples=["web1", "web1.example.org"],
    )
    domain: values.HostName = Field(
        "", description="DNS domain, where hostname is short.", examples=["example.org"]
    )
    hosts: Annotated[tuple[values.HostsLine, ...], values.AsList] = Field(
        (), description="Further lines of /etc/hosts.", examples=[["192.168.1.5 db db.example.org"]]
    )


class Origin(Section):
    """Release and mirror."""

    suite: values.SuiteName = Field(
        "bookworm", description="Release, by its code name.", examples=["bookworm", "noble"]
    )
    arch: Literal["amd64", "i386"] = Field(
        "amd64",
        description="Architecture of the guest. Default: i386 for a kernel whose name ends in 686, "
        "else amd64.",
    )
    adopted: Annotated[StrictStr, AfterValidator(lambda text: check_adopted(text))] = Field(
        "",
        description="A root file system that `doit adopt` took in, by its name: the guest is made "
        "of it and not of packages. With boot = 'grub' it starts the kernel that is in it, with "
        "boot = 'direct' a package's. Suite and init are then those that it is most like.",
        examples=["web1"],
    )
    mirror: values.Mirror = Field(
        "host",
        description=(
            "Where packages come from: host (this machine's own apt sources), proxy (the caching"
            " proxy of `doit mirror-proxy`), a URL, HOST:PORT (meaning http://HOST:PORT/debian, or"
            " /ubuntu), file:/FOLDER, or the name of a file in mirrors/."
        ),
        examples=["host", "http://monmiroir:9999/debian/", "monmiroir:9999"],
    )
    guest_mirror: values.Mirror = Field(
        "",
        description="Mirror in the guest's own sources.list. Default: the same as mirror.",
        examples=["http://mirror.example.org/debian"],
    )
    components: Annotated[tuple[values.PackageName, ...], values.AsList] = Field(
        (),
        description="Components of the archive. Default by suite: main; Ubuntu: main, universe.",
        examples=[["main", "contrib"]],
    )
    updates: StrictBool = Field(True, description="Also use the suite's updates.")
    security: StrictBool = Field(True, description="Also use the suite's security updates.")
    keyring: values.FilePath = Field(
        "",
        description="Keys that must have signed the mirror. Default: the suite's keyring.",
        examples=["/usr/share/keyrings/debian-archive-keyring.gpg"],
    )
    snapshot_max_age: values.Duration = Field(
        "24h",
        description="How long a fetched state of the mirror is used again; 0: look every time.",
        examples=["24h", "7d", "0"],
    )
    bootstrap: Literal["mmdebstrap", "debootstrap", "parallel"] = Field(
        "",  # type: ignore[arg-type]
        description="How the base tree is made; `parallel` is this pipeline's own way to the same "
        "tree. Default: parallel where it is known to (docs/explanation/bootstrap.md), else "
        "mmdebstrap.",
    )


class Software(Section):
    """Software. What is installed besides the release's base.

    A lean guest boots, serves SSH and installs packages. It has no editor, pager, ping, cron,
    logrotate, rsync or manual pages, and with sysvinit no system log. `profile = "comfort"` adds
    vim-tiny, less, iputils-ping, cron, logrotate, lsof, rsync and tcpdump, with sysvinit rsyslog
    (etch: sysklogd): 12 packages and 5.3 MiB of disk in bookworm. Manual pages come with
    `documentation`.
    """

    init: Literal["systemd", "sysvinit"] = Field(
        "",  # type: ignore[arg-type]
        description="The guest's init. Default by suite: systemd from jessie on.",
    )
    profile: Literal["lean", "comfort"] = Field(
        "lean", description="How much is in it besides: lean nothing, comfort a day's tools."
    )
    packages: Annotated[tuple[values.PackageName, ...], values.AsList] = Field(
        (),
        description="Packages to install besides the base and those of the profile.",
        examples=[["drbd-utils", "vim"]],
    )
    elements: Annotated[tuple[values.ElementName, ...], values.AsList] = Field(
        (), description="Further diskimage-builder elements.", examples=[["drbd"]]
    )
    elements_path: Annotated[tuple[values.FilePath, ...], values.AsList] = Field(
        (),
        description="Folders with elements of your own. Where one has the name of one of ours, ours"
        " is taken; one that diskimage-builder ships is replaced.",
        examples=[["/srv/elements"]],
    )
    element_hosts: Annotated[tuple[values.HostName, ...], values.AsList] = Field(
        (),
        description="Hosts that your elements may fetch from by http or https, through http_proxy "
        "and https_proxy; a build reaches its mirror only otherwise.",
        examples=[["pypi.org", "files.pythonhosted.org"]],
    )
    role: Annotated[tuple[values.RoleName, ...], values.AsList] = Field(
        (),
        description="Role scripts of xen-tools to run on the guest's tree: names in roles_path, or "
        "paths (docs/how-to/xen-tools.md).",
        examples=[["web", "/srv/roles/site"]],
    )
    roles_path: Annotated[tuple[values.FilePath, ...], values.AsList] = Field(
        (),
        description="Folders with role scripts. Default: /etc/xen-tools/role.d.",
        examples=[["/etc/xen-tools/role.d"]],
    )
    role_args: values.RoleArguments = Field(
        "",
        description="Arguments of role scripts behind the tree's path, quoted as for a shell.",
        examples=["--site north"],
    )
    documentation: StrictBool = Field(
        False,
        description="Unpack manual pages, /usr/share/doc and messages in other languages than "
        "English. Default: only copyright files, and messages where locale names a language. "
        "Releases before squeeze have all of it.",
    )
    debconf_priority: Literal["low", "medium", "high", "critical"] = Field(
        "medium", description="Questions of at least this priority are asked by debconf."
    )
    timezone: values.TimeZone = Field(
        "Etc/UTC", description="Time zone.", examples=["Etc/UTC", "Europe/Paris"]
    )
    locale: values.Locale = Field(
        "",
        description="Locale. Default by suite: C.UTF-8 from wheezy on, C before.",
        examples=["C.UTF-8", "fr_FR.UTF-8"],
    )


class Access(Section):
    """Who may enter. Without any of these keys nobody can: root is locked and has no keys."""

    authorized_keys: Annotated[tuple[values.Text, ...], values.AsList] = Field(
        (),
        description=(
            "Public SSH keys that may log in as root: key lines, or files that hold them (relative"
            " to the spec; ~/ is the builder's home). Private keys, DSA, RSA under 2048 bits and"
            " keys that the suite's sshd does not know are refused."
        ),
        examples=[["~/.ssh/id_ed25519.pub"]],
    )
    root_password_file: values.PasswordFile = Field(
        "",
        description="File that holds root's password, for the console; '-' asks for it at the"
        " start (in a pipe: one line).",
        examples=["-", "/root/secrets/web1"],
    )
    root_password_hash: values.PasswordHash = Field(
        "",
        repr=False,
        description="Root's password as crypt(5) writes it, in a form the suite understands.",
        examples=["$6$salt$..."],
    )


class Boot(Section):
    """Kernel and boot."""

    kernel: values.Kernel = Field(
        "",
        description=(
            "Kernel: a package, package=version, host (this machine's kernel), or the absolute"
            " path of a vmlinuz. Default: the suite's leanest that boots the chosen way."
        ),
        examples=["linux-image-cloud-amd64", "host", "/boot/vmlinuz-6.1.0-xen"],
    )
    initrd: values.AbsolutePath = Field(
        "",
        description="Initial ramdisk of a kernel given as a path. Default: one is made.",
        examples=["/boot/initrd.img-6.1.0-xen"],
    )
    modules: values.AbsolutePath = Field(
        "",
        description="Modules of a kernel given as a path. Default: /lib/modules/ of its version.",
        examples=["/lib/modules/6.1.0-xen"],
    )
    type: DomainType = Field(
        "",  # type: ignore[arg-type]
        description=(
            "Kind of guest: pvh (the processor's virtualisation, and no PC around it), pv"
            " (paravirtual), hvm (a full PC). Default: pvh; but pv for i386, suites before bullseye"
            " and focal, Xen before 4.14, a kernel that is host or a path, a bootloader for PV."
        ),
    )
    boot: Literal["direct", "pygrub", "grub", "firmware"] = Field(
        "direct",
        description=(
            "How the kernel is found: direct (files of the host), pygrub (the host reads it out of"
            " the guest's disk), grub (PV GRUB, or PVH GRUB), firmware (an HVM's own boot"
            " loader on its whole disk, and the kernel inside the guest)."
        ),
    )
    firmware: values.FirmwareKind = Field(
        "",
        description="With boot = 'firmware': what starts the guest's own loader, bios (an HVM's"
        " SeaBIOS) or uefi (OVMF that is built for Xen, kept beside the disk; HVM or PVH)."
        " Default: bios.",
        examples=["uefi"],
    )
    boot_order: values.BootOrder = Field(
        "",
        description="Where an HVM's firmware looks, in this order: c its disk, d the CD, n the"
        " network. Default: c.",
        examples=["dc"],
    )
    cmdline: values.CommandLine = Field(
        "", description="Further kernel arguments.", examples=["quiet", "vsyscall=emulate"]
    )
    bootloader: values.AbsolutePath = Field(
        "",
        description="Path of pygrub or of the GRUB image in the host, if not the usual one.",
        examples=["/usr/lib/xen-3.2-1/bin/pygrub"],
    )
    xen: values.XenVersion = Field(
        "4.17", description="The Xen that will run the guest.", examples=["4.17", "3.2"]
    )


class Resources(Section):
    """Memory and processors."""

    memory: values.MemorySize = Field(
        "256M", description="Memory, at least 64M; a plain number is MiB.", examples=["256M", 512]
    )
    maxmem: values.MemorySize = Field(
        "",
        description="Memory that the guest may be given later. Default: memory.",
        examples=["1G"],
    )
    vcpus: values.Processors = Field(1, description="Virtual processors.")
    maxvcpus: values.Processors | None = Field(
        None, description="Processors that may be plugged in later. Default: vcpus."
    )
    cpus: values.Cpus = Field(
        "", description="Processors of the host that it may run on.", examples=["0-3,^1"]
    )
    cpu_weight: values.CpuWeight | None = Field(
        None, description="Its share of them beside other guests; Xen's default is 256."
    )
    cap: StrictInt | None = Field(
        None, description="At most so many percent of one processor; 150: one and a half."
    )


class Screen(Section):
    """Screen: a virtual frame buffer over VNC."""

    vnc: StrictBool = Field(False, description="Give the guest a screen that VNC shows.")
    vncdisplay: values.Display | None = Field(
        None, description="Fixed VNC display; port 5900 and this number.", examples=[2]
    )
    vncunused: StrictBool | None = Field(
        None, description="Take the first free display. Default: true without vncdisplay."
    )
    vnclisten: values.IpAddress = Field(
        "", description="Address that VNC listens on. Default: 127.0.0.1.", examples=["127.0.0.1"]
    )
    keymap: values.Keymap = Field("", description="VNC's keyboard map.", examples=["fr"])


class Life(Section):
    """Life in the host."""

    on_poweroff: StopAction = Field(
        "destroy", description="What Xen does when the guest powers off."
    )
    on_reboot: StopAction = Field("restart", description="What Xen does when the guest reboots.")
    on_crash: CrashAction = Field("restart", description="What Xen does when the guest crashes.")
    autostart: StrictBool = Field(False, description="Start with the host (/etc/xen/auto).")


def check_adopted(text: str) -> str:
    """The name of a folder below output/adopted, or nothing."""
    return values.check_guest_name(text) if text else text


class CardKeys(Section):
    """Network: the guest's first card. Further cards are tables of these keys in `interfaces`."""

    dhcp: StrictBool = Field(
        True, description="Ask for an address by DHCP. Default: true when no address is given."
    )
    address: Annotated[tuple[values.Address, ...], values.AsList] = Field(
        (),
        description="Fixed addresses, IPv4 and IPv6, each with its prefix length.",
        examples=[["192.168.1.10/24"], ["192.168.1.10/24", "2001:db8::5/64"]],
    )
    netmask: values.Netmask = Field(
        "",
        description="Netmask of the IPv4 addresses that are given without a prefix length.",
        examples=["255.255.255.0"],
    )
    gateway: values.Gateway = Field(
        "", description="IPv4 gateway, in the network of an address.", examples=["192.168.1.1"]
    )
    gateway6: values.Gateway6 = Field(
        "", description="IPv6 gateway, in such a network or link-local.", examples=["fe80::1"]
    )
    nameservers: Annotated[tuple[values.IpAddress, ...], values.AsList] = Field(
        (),
        description="Name servers. With DHCP they are asked besides those of the lease.",
        examples=[["192.168.1.1", "2001:db8::53"]],
    )
    bridge: values.Interface = Field(
        "br-xen", description="The host's bridge that the card joins.", examples=["br-xen"]
    )
    mac: values.MacAddress = Field(
        "",
        description=(
            "MAC address. Default: 00:16:3E and three bytes of sha256('NAME/INDEX'), NAME being the"
            " guest's name and INDEX the card's number from 0: the same at every build."
        ),
        examples=["00:16:3E:59:2A:ED"],
    )
    vifname: values.Interface = Field(
        "", description="Name of the interface in the host.", examples=["vif-web1"]
    )
    mtu: values.Mtu | None = Field(
        None, description="Largest packet in bytes, set on both sides.", examples=[1500]
    )
    rate: values.Rate = Field(
        "", description="Limit of what the guest sends.", examples=["10Mb/s", "1MB/s@20ms"]
    )
    model: Literal["", "e1000", "rtl8139", "virtio-net"] = Field(
        "", description="The card that QEMU shows to an HVM guest; only with type = 'hvm'."
    )

    @model_validator(mode="before")
    @classmethod
    def _choose_dhcp(cls, given: Any) -> Any:
        if isinstance(given, dict) and "dhcp" not in given:
            return {**given, "dhcp": not given.get("address")}
        return given
