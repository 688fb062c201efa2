"""xl.conf, xend-config.sxp, xendomains and ssh: what [boot], [guests] and [migration] are to them.

One value has one key in dom0.toml: dom0's memory goes to Xen's line (grub.py) and to xend or xl
from there. Facts: xl.conf(5), xend-config.sxp(5), Debian's /etc/init.d/xendomains (any RESTORE that
is not empty means yes), xl(1) MIGRATE, ssh_config(5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.dom0.setup import sxp
from pipeline.dom0.setup.assignments import read_assignments, set_assignment
from pipeline.dom0.setup.host_file import Command, HostFile, Part
from pipeline.dom0.setup.host_settings import Guests, HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.reader import read_by, refusals, refused
from pipeline.errors import Finding, PipelineError
from pipeline.files import read_bytes
from pipeline.spec.values import parse_size

XL_CONF = "/etc/xen/xl.conf"
XENDOMAINS = "/etc/default/xendomains"
SSH = "/etc/ssh/ssh_config.d/domu-migration.conf"
_KNOWN = ("/etc/ssh/ssh_known_hosts", "/root/.ssh/known_hosts")
_ALIVE = "ServerAliveInterval 15"
_SNIPPET = f"""\
# Of [migration] in dom0.toml: xl migrate goes through ssh as root.
# A host that falls silent ends the migration within a minute, and the guest goes on here.
Match localuser root host "{{hosts}}"
    ConnectTimeout 10
    {_ALIVE}
    ServerAliveCountMax 3
"""


def _render(settings: HostSettings, host: HostView) -> Iterator[HostFile]:
    if host.toolstack == "xm":
        if wanted := _xend_settings(settings):
            text = host.require(sxp.PATH, "xen-utils")
            for key, value in wanted.items():
                text = sxp.set_sxp(text, key, value)
            yield _file(sxp.PATH, text)
    elif settings.boot and settings.boot.dom0_mem:
        # without the file autoballoon is "auto", which leaves alone what dom0_mem= has fixed
        text = host.read(XL_CONF) or ""
        yield from [_file(XL_CONF, set_assignment(text, "autoballoon", "off"))] if text else []
    if settings.guests:
        text = host.require(XENDOMAINS, "xen-utils-common")
        for key, value in _xendomains(settings.guests).items():
            text = set_assignment(text, key, value)
        yield _file(XENDOMAINS, text)
    if settings.migration and settings.migration.hosts and host.toolstack == "xl":
        yield _file(SSH, _SNIPPET.format(hosts=",".join(settings.migration.hosts)))


def _file(path: str, text: str) -> HostFile:
    return HostFile(path, text.encode(errors="surrogateescape"))


def _xend_settings(settings: HostSettings) -> Mapping[str, str]:
    boot, migration, wanted = settings.boot, settings.migration, {}
    if boot and boot.dom0_mem:
        wanted["dom0-min-mem"] = str(parse_size(boot.dom0_mem))
    if boot and boot.dom0_max_vcpus:
        wanted["dom0-cpus"] = str(boot.dom0_max_vcpus)
    if migration and migration.hosts:
        wanted |= sxp.relocation_settings(*migration.hosts)
    return wanted


def _xendomains(guests: Guests) -> Mapping[str, str]:
    restore = {"XENDOMAINS_RESTORE": "true"} if guests.save else {}
    return {
        "XENDOMAINS_MIGRATE": guests.migrate_to or "",
        "XENDOMAINS_SAVE": "/var/lib/xen/save" if guests.save else "",
        **restore,
        "XENDOMAINS_AUTO": "/etc/xen/auto",
    }


def _check(settings: HostSettings, host: HostView, tree: Path) -> Iterator[Finding]:
    for file in _render(settings, host):
        if file.path == XENDOMAINS:
            yield from refusals(("sh", "-n", XENDOMAINS), host, tree, path=XENDOMAINS)
        if file.path in (XENDOMAINS, sxp.PATH):
            yield from _read_back(settings, tree, file.path)
        if file.path == XL_CONF:
            yield from _check_xl_conf(host, tree)
        if file.path == SSH and settings.migration:
            for peer in settings.migration.hosts:
                yield from _check_peer(peer, host, tree)


def _read_back(settings: HostSettings, tree: Path, path: str) -> Iterator[Finding]:
    text = read_bytes(tree / path.lstrip("/")).decode(errors="surrogateescape")
    if path == XENDOMAINS and settings.guests:
        given, wanted = read_assignments(text), _xendomains(settings.guests)
    else:
        given, wanted = sxp.read_sxp(text), _xend_settings(settings)
    for key, value in wanted.items():
        if given.get(key) != value:
            yield Finding("error", path, f"{key} would be {given.get(key)!r}, not {value!r}")


def _check_xl_conf(host: HostView, tree: Path) -> Iterator[Finding]:
    """xl itself, not Debian's wrapper; it says nothing of the file where Xen does not run yet."""
    program = f"/usr/lib/xen-{host.xen_version}/bin/xl" if host.xen_version else "xl"
    try:
        said = read_by((program, "list"), host, tree)
    except PipelineError as error:
        said = error.details
    for line in said.splitlines():
        if "xl.conf" in line:
            yield Finding("error", XL_CONF, f"xl: {line.strip()}", "mend the line that it names")


def _check_peer(peer: str, host: HostView, tree: Path) -> Iterator[Finding]:
    try:
        said = read_by(("ssh", "-G", peer), host, tree)
    except PipelineError as error:
        yield refused("ssh", SSH, error)
        return
    if _ALIVE.lower() not in said:
        yield Finding(
            "warning",
            SSH,
            f"ssh does not take it for {peer}",
            "Include /etc/ssh/ssh_config.d/*.conf at the top of /etc/ssh/ssh_config",
        )
    for known in _KNOWN:
        try:
            read_by(("ssh-keygen", "-F", peer, "-f", known), host, tree)
        except PipelineError:
            continue
        return
    yield Finding(
        "warning",
        "migration",
        f"root's ssh does not know {peer}'s host key",
        f"ssh root@{peer} true, once, and compare the key; ssh-copy-id root@{peer} if it asks for "
        "a password: xl needs both, on both hosts",
    )


def _after(_settings: HostSettings, host: HostView) -> Iterator[Command]:
    if host.toolstack == "xm":
        yield ("/etc/init.d/xend", "restart")


TOOLSTACK = Part(
    "toolstack",
    places=(XL_CONF, sxp.PATH, XENDOMAINS, SSH),
    render=_render,
    check=_check,
    after=_after,
)
