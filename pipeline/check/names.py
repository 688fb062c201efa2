"""What makes the guest itself: its names, its machine id, nothing of others (A4, C6)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.check.facts import Facts, compare, judge
from pipeline.errors import Finding


def check_names(facts: Facts) -> Iterator[Finding]:
    """A4: the host name, and /etc/hosts by which `hostname -f` is the fully qualified one."""
    spec = facts.spec
    hint = f"build it again: doit build name={spec.name} replace=yes"
    seen = facts.tree.text("/etc/hostname").strip()
    yield compare("A4", "hostname", expected=spec.short_hostname, seen=seen, hint=hint)
    lines = [line.split("#")[0].split() for line in facts.tree.text("/etc/hosts").splitlines()]
    named = [words for words in lines if len(words) > 1]
    further = [line.split() for line in spec.hosts]
    own = [
        words
        for words in named
        if words not in further and (words[0].startswith("127.") or spec.fqdn in words[1:])
    ]
    fqdn, short = spec.fqdn, spec.short_hostname
    names = [fqdn, short, "localhost"] if fqdn != short else [short, "localhost"]
    yield compare(
        "A4",
        "hosts",
        expected=" ".join(["127.0.0.1", *names]),
        seen="\n".join(" ".join(words) for words in own),
        hint=hint,
    )
    if further:
        missing = [" ".join(words) for words in further if words not in named]
        yield judge("A4", "further hosts", missing, ok=f"all {len(further)}", hint=hint)


def check_machine_id(facts: Facts) -> Iterator[Finding]:
    """C6: machine-id(5) is set and no other guest's."""
    seen = facts.tree.text("/etc/machine-id").strip()
    faults = [] if re.fullmatch(r"[0-9a-f]{32}", seen) else [f"{seen or 'nothing'}"]
    faults += [f"{name} has it, too" for name, other in facts.machine_ids.items() if other == seen]
    yield judge(
        "C6",
        "machine-id",
        faults,
        ok="its own",
        hint="remove machine-id below output/identity/ of one of them and build that one again",
    )


CHECKS = (check_names, check_machine_id)
