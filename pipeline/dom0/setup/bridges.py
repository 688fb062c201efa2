"""The bridges and NAT of dom0.toml: rendered for the host's tool, read by it, brought to life.

Facts: ifup(8), networkctl(1), systemd-networkd(8): without a bus, and with /sys read-only as in a
container, it works in a network namespace of its own and says what it makes of its files.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from pipeline.dom0.setup.host_file import Command, HostFile, Part
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.ifupdown import FOLDER, INTERFACES, Interfaces, render_interfaces
from pipeline.dom0.setup.nat import (
    FORWARDING,
    SYSCTL,
    UNITS,
    dnsmasq_path,
    forwarding_before,
    render_nat,
    rules_path,
    unit_name,
)
from pipeline.dom0.setup.networkd import FOLDER as NETWORKD
from pipeline.dom0.setup.networkd import (
    find_network_file,
    list_network_files,
    netdev_file,
    render_networkd,
)
from pipeline.dom0.setup.reader import read_by, refused
from pipeline.errors import Finding, PipelineError

_BINARIES = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/lib/systemd", "/lib/systemd")
_APART = re.compile(r"^\s*bind-(interfaces|dynamic)\b", re.MULTILINE)
_READ_S = 3  # networkd has read its files, made the bridges and found the cards after one
_ASK_NETWORKD = f"""
mount -t tmpfs tmpfs /run && mkdir /run/systemd && mount -t sysfs -o ro sysfs /sys
for port; do n=$((n + 1)) && ip link add "$port" type veth peer name "cable$n"; done
export SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console
timeout --preserve-status {_READ_S} "$0" 2>&1
"""


def _is_of_networkd(host: HostView, *several: HostSettings) -> bool:
    said = (settings.network for settings in several if settings.network)
    return next(said, host.network) == "networkd"


def _ports(*several: HostSettings) -> list[str]:
    bridges = chain.from_iterable(settings.bridge.values() for settings in several)
    return list(dict.fromkeys(port for bridge in bridges for port in bridge.ports))


def _names(*several: HostSettings) -> list[str]:
    return list(
        dict.fromkeys(
            chain.from_iterable((*settings.bridge, *settings.nat) for settings in several)
        )
    )


def render(settings: HostSettings, host: HostView) -> Iterator[HostFile]:
    """The files of every bridge and nat table; raises PipelineError for what cannot be."""
    if not _names(settings):
        return
    yield from render_nat(settings, host)
    if not _is_of_networkd(host, settings):
        yield from render_interfaces(settings, host)
        return
    for stanza in Interfaces.of(host).defines(*_ports(settings)):
        if stanza.method != "manual":
            raise PipelineError(
                f"{stanza.iface} is configured by ifupdown, the bridge would be by networkd",
                hint='network = "ifupdown", or take it out of /etc/network/interfaces first',
            )
    yield from render_networkd(settings, host)


def check(settings: HostSettings, host: HostView, tree: Path) -> Iterator[Finding]:
    """What the host lacks, what opens, and what its own programs say of the new files."""
    findings = list(_check_host(settings, host))
    yield from findings
    if all(finding.level != "error" for finding in findings):
        for path, argv in _readers(settings, replace(host, root=tree)):
            yield _ask(path, argv, host, tree)
        if _is_of_networkd(host, settings):
            yield from _ask_networkd(settings, host, tree)


def _check_host(settings: HostSettings, host: HostView) -> Iterator[Finding]:
    for name, package in _programs(settings, host).items():
        if not _find_program(host, name):
            message = "is not installed: the network would not come up"
            yield Finding("error", name, message, f"apt-get install {package}")
    for port in _ports(settings):
        if host.exists("/sys/class/net") and not host.exists(f"/sys/class/net/{port}"):
            yield Finding("warning", port, "is no device of this host now")
    if settings.nat:
        yield from _check_exposure(settings, host)
    if _is_of_networkd(host, settings):
        yield from _check_order(settings, host)


def _programs(settings: HostSettings, host: HostView) -> dict[str, str]:
    """The programs without which there is no such network, and their packages."""
    nat = {"nft": "nftables", "dnsmasq": "dnsmasq-base", "sysctl": "procps"} if settings.nat else {}
    if _is_of_networkd(host, settings):
        return {**nat, "systemd-networkd": "systemd"}
    return {**nat, "ifup": "ifupdown", "brctl": "bridge-utils"}


def _find_program(host: HostView, name: str) -> str:
    paths = (f"{folder}/{name}" for folder in _BINARIES)
    return next((path for path in paths if host.exists(path)), "")


def _check_exposure(settings: HostSettings, host: HostView) -> Iterator[Finding]:
    """What NAT opens, and a name server of the host's that leaves ours no place."""
    if (host.read(FORWARDING) or "").strip() == "0":
        yield Finding(
            "warning",
            "net.ipv4.ip_forward",
            "this host forwards packets from now on, for whoever sends it some in its networks",
            "a firewall of its own may say whose; that of the guests behind NAT is ours",
        )
    texts = [host.read(path) or "" for path in host.find("/etc/dnsmasq.d/*")]
    texts.append(host.read("/etc/dnsmasq.conf") or "")
    runs = host.exists("/etc/init.d/dnsmasq") or host.find("/*/systemd/system/dnsmasq.service")
    if runs and not any(_APART.search(text) for text in texts):
        yield Finding(
            "error",
            ", ".join(settings.nat),
            "the host's own dnsmasq listens everywhere and leaves no port for the guests'",
            "write bind-dynamic into a file of /etc/dnsmasq.d and restart it",
        )


def _check_order(settings: HostSettings, host: HostView) -> Iterator[Finding]:
    """Files of others that networkd takes before ours."""
    for device, path in list_network_files(settings).items():
        other = find_network_file(host, device)
        if other and Path(other).name < Path(path).name:
            yield Finding("error", device, f"{other} comes before {path}", "give it a later name")


def _readers(settings: HostSettings, new: HostView) -> Iterator[tuple[str, list[str]]]:
    """Each file with the command that reads it; networks of their own keep the host's as it is."""
    alone = ["unshare", "--net", "--"]
    if not _is_of_networkd(new, settings):
        for name in _defined(settings, new):
            yield INTERFACES, [*alone, "ifup", "--no-act", "--force", name]
    for name in settings.nat:
        yield rules_path(name), [*alone, "nft", "-c", "-f", rules_path(name)]
        yield dnsmasq_path(name), ["dnsmasq", "--test", "-C", dnsmasq_path(name)]
        if _is_of_networkd(new, settings):
            unit = f"{UNITS}/{unit_name(name)}"
            yield unit, ["systemd-analyze", "verify", unit]
    if settings.nat:
        yield SYSCTL, [*alone, "sysctl", "-p", SYSCTL]


def _ask(path: str, argv: list[str], host: HostView, tree: Path) -> Finding:
    try:
        read_by(argv, host, tree)
    except PipelineError as error:
        return refused(argv[0], path, error)
    return Finding("ok", path, f"read by {shlex.join(argv)}")


def _ask_networkd(settings: HostSettings, host: HostView, tree: Path) -> Iterator[Finding]:
    """networkd itself, in a network with cards of the ports' names: what does it take for what?"""
    program, ports = _find_program(host, "systemd-networkd"), _ports(settings)
    alone = ["unshare", "--net", "--mount", "--propagation", "unchanged", "--"]
    argv = [*alone, "sh", "-ec", _ASK_NETWORKD, program, *ports]
    try:
        said = read_by(argv, host, tree)
    except PipelineError as error:
        yield refused("systemd-networkd", NETWORKD, error)
        return
    for line in sorted(set(re.findall(rf"^{NETWORKD}/00-domu-\S+:\d+: .*", said, re.MULTILINE))):
        yield Finding("error", "systemd-networkd", line)
    for device, path in list_network_files(settings).items():
        taken = re.findall(rf"^{re.escape(device)}: Configuring with (\S+)\.$", said, re.MULTILINE)
        if path in taken:
            yield Finding("ok", path, f"systemd-networkd configures {device} with it")
        else:
            seen = taken[0] if taken else "nothing"
            yield Finding("error", device, expected=path, seen=seen, source="systemd-networkd")


def _defined(settings: HostSettings, host: HostView) -> list[str]:
    """The ports, bridges and their aliases that ifupdown's files define, the ports first."""
    there = Interfaces.of(host)
    every = [*_ports(settings), *_names(settings)]
    return [name for device in every for name in there.names_of(device)]


def take_up(settings: HostSettings, host: HostView) -> Iterator[Command]:
    """systemd reads units anew."""
    if settings.nat and _is_of_networkd(host, settings):
        yield "systemctl", "daemon-reload"


def deactivate(leaving: HostSettings, entering: HostSettings, host: HostView) -> Iterator[Command]:
    """The devices go down as the files of before have brought them up, the bridges first."""
    if forwarding_before(host) == "0":
        yield "sysctl", "-q", "net.ipv4.ip_forward=0"
    if _is_of_networkd(host, entering, leaving):
        units = (unit_name(name) for name in leaving.nat)
        yield from (("systemctl", "stop", unit) for unit in units)
        return
    both = [name for settings in (leaving, entering) for name in _defined(settings, host)]
    for name in dict.fromkeys(reversed(both)):
        yield "ifdown", name


def activate(leaving: HostSettings, entering: HostSettings, host: HostView) -> Iterator[Command]:
    """The devices come up as the files say now; a card that was never ifupdown's loses what it has.

    A connection over the port outlives it: the bridge has the addresses again, and the port's MAC.
    """
    if entering.nat:
        yield "sysctl", "-q", "-p", SYSCTL
    if _is_of_networkd(host, entering, leaving):
        yield from _activate_networkd(leaving, entering, host)
        return
    there = Interfaces.of(host)
    for name in _names(leaving):  # what ifup gave up half way is nothing to ifdown
        if not there.defines(name) and host.exists(f"/sys/class/net/{name}/bridge"):
            yield "ip", "link", "delete", name
    for port in _ports(entering):
        if host.exists(f"/sys/class/net/{port}"):
            yield "ip", "address", "flush", "dev", port, "scope", "global"
    both = [name for settings in (leaving, entering) for name in _defined(settings, host)]
    for name in dict.fromkeys(both):
        yield "ifup", name


def _activate_networkd(
    leaving: HostSettings, entering: HostSettings, host: HostView
) -> Iterator[Command]:
    for name in _names(leaving):
        if not host.exists(netdev_file(name)) and host.exists(f"/sys/class/net/{name}"):
            yield "ip", "link", "delete", name
    yield "networkctl", "reload"
    for port in _ports(leaving, entering):
        yield "networkctl", "reconfigure", port
    for name in entering.nat:
        yield "systemctl", "restart", unit_name(name)


NETWORK = Part(
    name="network",
    places=(
        INTERFACES,
        f"{FOLDER}/*",
        f"{NETWORKD}/00-domu-*.netdev",
        f"{NETWORKD}/00-domu-*.network",
        "/etc/domu/*.nft",
        "/etc/domu/*.dnsmasq",
        SYSCTL,
        f"{UNITS}/domu-nat-*.service",
        f"{UNITS}/multi-user.target.wants/domu-nat-*.service",
    ),
    render=render,
    check=check,
    after=take_up,
    deactivate=deactivate,
    activate=activate,
    later="the network is as the files say after a reboot; or at once: now=yes",
)
