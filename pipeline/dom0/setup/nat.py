"""Guests with private addresses behind their host: a table of nftables, dnsmasq, forwarding.

The table is the host's beside its own, which stays as it is (nft(8): every base chain of a hook has
its say, so that a host's own `drop` holds). From a guest's side the host has DHCP, DNS, ping and
`host_ports`; from outside nobody begins a connection with a guest. Forwarding is the host's whole:
whoever sits in another network of its may send through it, too.

dnsmasq(8) reads its own file alone, is bound to the bridge, tells nothing of the host's
/etc/hosts, and leaves a dnsmasq of the host's alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.dom0.setup.host_file import HostFile
from pipeline.dom0.setup.host_settings import HostSettings, Nat
from pipeline.dom0.setup.host_view import HostView
from pipeline.errors import PipelineError

SYSCTL = "/etc/sysctl.d/60-domu-nat.conf"
UNITS = "/etc/systemd/system"
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_BEFORE = "# before this file: "
_INET_NAT = (5, 2)  # the kernel's first with nat chains in tables of the family inet


def rules_path(name: str) -> str:
    """The file that nft loads for a bridge."""
    return f"/etc/domu/{name}.nft"


def dnsmasq_path(name: str) -> str:
    """The configuration of a bridge's dnsmasq."""
    return f"/etc/domu/{name}.dnsmasq"


def pid_path(name: str) -> str:
    """Where that dnsmasq notes its number."""
    return f"/run/domu-{name}.pid"


def unit_name(name: str) -> str:
    """The unit that runs NAT where systemd-networkd sets up the bridge."""
    return f"domu-nat-{name}.service"


def table_name(name: str) -> str:
    """The table of nftables; its lexer takes what Device does."""
    return f"domu_{name}"


def render_nat(settings: HostSettings, host: HostView) -> Iterator[HostFile]:
    """The files of every nat table of dom0.toml; raises PipelineError for a release without it."""
    if settings.nat and host.linux < _INET_NAT:
        raise PipelineError(
            f"the nftables of {host.suite} cannot do NAT in one table",
            hint="NAT is for bullseye and later: take a bridge here",
        )
    for name, nat in settings.nat.items():
        yield HostFile(rules_path(name), render_rules(name, nat).encode())
        yield HostFile(dnsmasq_path(name), _render_dnsmasq(name, nat).encode())
    if settings.nat:
        remark = host.read(SYSCTL) or f"{_BEFORE}{(host.read(FORWARDING) or '0').strip()}\n"
        remark = remark.partition("\n")[0]
        yield HostFile(SYSCTL, f"{remark}\nnet.ipv4.ip_forward = 1\n".encode())


def forwarding_before(host: HostView) -> str:
    """What the kernel forwarded before our file was there: "0" or "1", "" without that file."""
    said = re.match(rf"{_BEFORE}([01])\n", host.read(SYSCTL) or "")
    return said[1] if said else ""


def render_rules(name: str, nat: Nat) -> str:
    """What nft -f loads, as often as it is told to."""
    net, table = nat.interface.network, table_name(name)
    ports = ", ".join(map(str, nat.host_ports))
    services = f"        tcp dport {{ {ports} }} accept\n" if ports else ""
    way_out = f'        oifname != "{nat.out}" drop\n' if nat.out else ""
    return f"""table inet {table}
delete table inet {table}
table inet {table} {{
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname != "{name}" accept
        ct state established,related accept
        udp dport 67 accept
        meta nfproto ipv6 drop
        ip saddr != {net} drop
        meta l4proto {{ tcp, udp }} th dport 53 accept
        icmp type echo-request accept
{services}        drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{name}" oifname "{name}" accept
        oifname "{name}" ct state established,related accept
        oifname "{name}" drop
        iifname != "{name}" accept
        meta nfproto ipv6 drop
        ip saddr != {net} drop
{way_out}    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname != "{name}" ip saddr {net} masquerade
    }}
}}
"""


def _render_dnsmasq(name: str, nat: Nat) -> str:
    first, last = nat.leases
    return f"""interface={name}
except-interface=lo
bind-dynamic
no-hosts
dhcp-range={first},{last},{nat.interface.netmask},12h
dhcp-authoritative
dhcp-leasefile=/var/lib/misc/domu-{name}.leases
pid-file={pid_path(name)}
"""


def up_commands(name: str) -> tuple[tuple[str, str], ...]:
    """What ifupdown runs before a bridge is up, and then."""
    return ("pre-up", f"nft -f {rules_path(name)}"), ("up", f"dnsmasq -C {dnsmasq_path(name)}")


def down_commands(name: str) -> tuple[str, str]:
    """What ifupdown runs before it takes the bridge down."""
    retry = "--retry TERM/5/KILL/5"
    stop = f"start-stop-daemon --stop --oknodo {retry} --pidfile {pid_path(name)} --name dnsmasq"
    return stop, f"nft delete table inet {table_name(name)} || true"


def render_unit(name: str) -> str:
    """The same for systemd, where nftables' own unit empties the kernel's tables at a reload."""
    rules = f"/usr/sbin/nft -f {rules_path(name)}"
    return f"""[Unit]
Description=NAT, DHCP and DNS for the guests on {name}
After=nftables.service systemd-networkd.service systemd-resolved.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
ExecStartPre={rules}
ExecStart=/usr/sbin/dnsmasq -k -C {dnsmasq_path(name)}
ExecReload={rules}
ExecStopPost=-/usr/sbin/nft delete table inet {table_name(name)}
Restart=on-failure
RestartSec=2

[Install]
WantedBy=multi-user.target
"""
