"""What a guest of this host, or a spec that is meant for it, will not find here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.dom0.configuration import Grammar, read_config, require_readable
from pipeline.dom0.doctor.facts import HostFacts
from pipeline.dom0.inventory import Installed, survey
from pipeline.dom0.layout import Layout
from pipeline.errors import Finding, PipelineError
from pipeline.spec import Spec
from pipeline.xen.boot import Direct, Grub
from pipeline.xen.domain import Domain


def find_spec_trouble(spec: Spec, facts: HostFacts) -> Iterator[Finding]:
    """A spec against the host: pure."""
    name, suite = spec.name, spec.suite_facts
    if spec.arch == "i386" and suite.libc_xen_package not in ("", *spec.packages):
        yield Finding(
            "error",
            name,
            f"a 32-bit {spec.suite} without {suite.libc_xen_package}: slow threads, "
            '"4gb seg fixup" on its console',
            f'guests/{name}.toml: packages = ["{suite.libc_xen_package}"]',
        )
    if suite.needs_vsyscall and "vsyscall=" not in spec.cmdline and spec.kernel_source != "package":
        yield Finding(
            "error",
            name,
            f"{spec.suite}'s C library makes vsyscalls, a newer kernel kills what does",
            f'guests/{name}.toml: cmdline = "vsyscall=emulate"',
        )
    if not facts.is_dom0:
        return
    is_small = facts.caps and spec.arch == "i386" and spec.type == "pv"
    if is_small and not any(cap.endswith("x86_32p") for cap in facts.caps):
        yield Finding(
            "error",
            name,
            "this Xen runs no 32-bit PV guests",
            "arch=amd64, type=pvh, or boot Xen with pv=32 where it was built with it",
        )
    if facts.caps and spec.type != "pv" and not any(cap.startswith("hvm") for cap in facts.caps):
        yield Finding(
            "error",
            name,
            f"type {spec.type} needs VT-x or AMD-V, which Xen does not see",
            "switch it on in the firmware, or type=pv",
        )


def find_bridge_trouble(domain: Domain, facts: HostFacts) -> Iterator[Finding]:
    """The bridges that a configuration names, on this dom0."""
    for bridge in sorted({card.bridge or "xenbr0" for card in domain.cards}):
        if facts.is_dom0 and bridge not in facts.bridges:
            yield Finding(
                "error",
                domain.name,
                f"there is no bridge {bridge}; xl create will fail",
                f"/etc/network/interfaces: auto {bridge}, iface {bridge} inet static, "
                "bridge_ports eth0, bridge_stp off, bridge_fd 0, bridge_maxwait 0; ifup it",
            )


def find_installed_trouble(
    record: Installed, layout: Layout, facts: HostFacts
) -> Iterator[Finding]:
    """An installed guest: what its configuration names must be there."""
    path = layout.config(record.name)
    try:
        text = read_config(layout, record.name)
        if text is None:
            yield Finding(
                "error",
                record.name,
                f"{path} is gone",
                f"doit install name={record.name} replace=yes, or doit remove name={record.name}",
            )
            return
        domain = require_readable(Grammar(record.toolstack), path, text)
    except PipelineError as error:
        yield Finding("error", record.name, error.brief, error.hint)
        return
    named = [disk.target for disk in domain.disks if disk.target]
    if isinstance(domain.boot, Direct | Grub):
        named.append(domain.boot.kernel)
    if isinstance(domain.boot, Direct) and domain.boot.ramdisk:
        named.append(domain.boot.ramdisk)
    for target in named:
        if not Path(target).exists():
            yield Finding(
                "error", record.name, f"{target} is gone", f"{path} names it: put it back"
            )
    yield from find_bridge_trouble(domain, facts)
    if record.pending:
        waits = f"it runs an old kernel; {Path(record.pending).name} waits"
        hint = f"doit shutdown name={record.name}, then doit start name={record.name}"
        yield Finding("warning", record.name, waits, hint)


def find_link_trouble(layout: Layout) -> Iterator[Finding]:
    """Links in auto/ that lead nowhere: xendomains fails on them at the host's start."""
    if not layout.auto.is_dir():
        return
    for link in sorted(layout.auto.iterdir()):
        if link.is_symlink() and not link.exists():
            yield Finding("error", link.stem, f"{link} leads nowhere", f"rm {link}")


def find_guest_trouble(
    specs: Mapping[str, Spec], layout: Layout, facts: HostFacts
) -> list[Finding]:
    """What the specs and the installed guests will not find here, and links that lead nowhere."""
    found = [trouble for spec in specs.values() for trouble in find_spec_trouble(spec, facts)]
    installed, errors = survey(layout)
    found += [Finding("error", "installed", error.brief, error.hint) for error in errors]
    for record in installed.values():
        found += find_installed_trouble(record, layout, facts)
    return [*found, *find_link_trouble(layout)]
