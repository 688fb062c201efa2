"""The bootability lint: would this guest boot under Xen? Judged from facts, before any boot.

The caller reads kernel, initrd and file system into BootFacts; the rules are in boot_rules_kernel
(kernel, loader, initrd) and boot_rules_guest (devices, console, menus). A fact that is None was not
read: the rules that need it say nothing.
"""

from __future__ import annotations

from pipeline.xen import boot_rules_guest, boot_rules_kernel
from pipeline.xen.boot_facts import BootFacts, Finding


def lint(facts: BootFacts) -> list[Finding]:
    """Every finding, errors first; an empty list is a guest that should boot."""
    findings = [
        finding
        for rule in (*boot_rules_kernel.RULES, *boot_rules_guest.RULES)
        for finding in rule(facts)
    ]
    return sorted(findings, key=lambda finding: finding.level != "error")


__all__ = ["BootFacts", "Finding", "lint"]
