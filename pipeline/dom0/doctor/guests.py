"""What a guest of this host, or a spec that is meant for it, will not find here."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.dom0.configuration import Grammar, read_config, require_readable
from pipeline.dom0.doctor.facts import HostFacts
from pipeline.dom0.doctor.loaders import find_loader_trouble
from pipeline.dom0.inventory import Installed, survey
from pipeline.dom0.layout import Layout
from pipeline.errors import Finding, PipelineError
from pipeline.spec import Spec
from pipeline.spec.guest_type import choose_type
from pipeline.suites import SUITES
from pipeline.xen.boot import Direct, Grub
from pipeline.xen.capabilities import find_unable, has_hvm
from pipeline.xen.devices import resource_of
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
            code="spec-libc",
        )
    if suite.needs_vsyscall and "vsyscall=" not in spec.cmdline and spec.kernel_source != "package":
        yield Finding(
            "error",
            name,
            f"{spec.suite}'s C library makes vsyscalls, a newer kernel kills what does",
            f'guests/{name}.toml: cmdline = "vsyscall=emulate"',
            code="spec-vsyscall",
        )
    if facts.is_dom0:
        for finding in find_unable(spec.type, spec.arch, facts.caps):
            yield replace(finding, subject=name, code="guest-type")


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
                code="bridge",
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
                code="config",
            )
            return
        domain = require_readable(Grammar(record.toolstack), path, text)
    except PipelineError as error:
        yield Finding("error", record.name, error.brief, error.hint, code="config")
        return
    named = [disk.target for disk in domain.disks if disk.target]
    if isinstance(domain.boot, Direct | Grub):
        named.append(domain.boot.kernel)
    if isinstance(domain.boot, Direct) and domain.boot.ramdisk:
        named.append(domain.boot.ramdisk)
    for target in named:
        if not Path(target).exists():
            resource = resource_of(target)
            back = f"drbdadm up {resource}" if resource else f"{path} names it: put it back"
            if isinstance(domain.boot, Grub) and target == domain.boot.kernel:
                back = "apt-get install grub-xen-host"
            yield Finding("error", record.name, f"{target} is gone", back, code="target")
    yield from _find_script_trouble(domain, layout)
    yield from find_bridge_trouble(domain, facts)
    for finding in find_unable(domain.type, "amd64", facts.caps):
        yield replace(finding, subject=record.name, code="guest-type")
    if record.pending:
        waits = f"it runs an old kernel; {Path(record.pending).name} waits"
        hint = f"doit shutdown name={record.name}, then doit start name={record.name}"
        yield Finding("warning", record.name, waits, hint, code="kernel-waits")


def _find_script_trouble(domain: Domain, layout: Layout) -> Iterator[Finding]:
    """The programs that make a disk ready for its guest."""
    for script in sorted({disk.script for disk in domain.disks if disk.script}):
        place = layout.configs / "scripts" / script
        if not place.is_file():
            message = f"there is no {place}; xl create will fail"
            yield Finding(
                "error", domain.name, message, "apt-get install drbd-utils", code="script"
            )


def find_pv_trouble(
    specs: Mapping[str, Spec], installed: Mapping[str, Installed], facts: HostFacts
) -> Iterator[Finding]:
    """Guests that are PV where they would be PVH by default: one line for all of them."""
    if not (facts.is_dom0 and has_hvm(facts.caps)):
        return
    names = {
        spec.name
        for spec in specs.values()
        if spec.type == "pv" and _would_be_pvh(spec.suite, dict(spec), facts)
    }
    names |= {
        record.name
        for record in installed.values()
        if _type_of(record) == "pv" and _would_be_pvh(record.suite, _keys_of(record), facts)
    }
    ours = {*specs, *installed}
    elders = [guest for guest in facts.configured if guest.name not in ours and guest.is_pv]
    hints = []
    if names:
        hints += [f"leave type out of the spec, then doit rebuild name={min(names)}"]
    if elders:
        hints += [f"not built here: doit modernize cfg={elders[0].path} dry=yes"]
    if hints:
        shown = ", ".join([*sorted(names), *(guest.name for guest in elders)])
        yield Finding(
            "warning",
            "PV",
            f"PV guests that may run as PVH here: {shown}",
            "; ".join(hints),
            code="pv-guest",
        )


def _would_be_pvh(suite: str, keys: Mapping[str, Any], facts: HostFacts) -> bool:
    here = {**keys, "xen": facts.xen_version}
    return suite in SUITES and choose_type(SUITES[suite], here)[0] == "pvh"


def _keys_of(record: Installed) -> dict[str, str]:
    """What a record says of a spec's keys."""
    kernel = f"linux-image-{record.abi}" if record.abi else ""
    return {"kernel": kernel, "arch": "i386" if "686" in record.abi else "amd64"}


def _type_of(record: Installed) -> str:
    try:
        return Grammar(record.toolstack).domain(record.config_text).type
    except ValueError:
        return ""


def find_link_trouble(layout: Layout) -> Iterator[Finding]:
    """Links in auto/ that lead nowhere: xendomains fails on them at the host's start."""
    if not layout.auto.is_dir():
        return
    for link in sorted(layout.auto.iterdir()):
        if link.is_symlink() and not link.exists():
            yield Finding(
                "error", link.stem, f"{link} leads nowhere", f"rm {link}", code="auto-link"
            )


def find_guest_trouble(
    specs: Mapping[str, Spec], layout: Layout, facts: HostFacts
) -> list[Finding]:
    """What the specs and the installed guests will not find here, and links that lead nowhere."""
    found = [trouble for spec in specs.values() for trouble in find_spec_trouble(spec, facts)]
    installed, errors = survey(layout)
    found += [
        Finding("error", "installed", error.brief, error.hint, code="record") for error in errors
    ]
    for record in installed.values():
        found += find_installed_trouble(record, layout, facts)
    loaders = find_loader_trouble(layout, facts, installed)
    pv = find_pv_trouble(specs, installed, facts)
    return [*found, *loaders, *pv, *find_link_trouble(layout)]
