"""The domain's configurations: each says exactly what the spec means (A9, B5)."""

from collections.abc import Iterator
from dataclasses import fields

from pipeline.check.facts import Facts, judge
from pipeline.errors import Finding
from pipeline.guest.domains import domain_of
from pipeline.spec.domain import without_ahci, xl_version, xm_version
from pipeline.xen import keys, libvirt, xl, xm
from pipeline.xen.domain import Direct, Domain

_PARSERS = {"cfg": xl.parse, "xm": xm.parse, "xml": libvirt.parse}


def expected_domain(facts: Facts) -> Domain:
    """The domain that the spec means."""
    return domain_of(facts.spec, facts.project)


def read_domains(facts: Facts) -> dict[str, Domain]:
    """File name to domain, of every rendering that can be read."""
    found = {}
    for suffix, parse in _PARSERS.items():
        name = f"{facts.spec.name}.{suffix}"
        if name in facts.texts:
            try:
                found[name] = parse(facts.texts[name])
            except ValueError:
                continue  # check_configurations says so
    return found


def check_configurations(facts: Facts) -> Iterator[Finding]:
    """A9, B5: parsed back, each is the spec's domain; none has a key that its reader ignores."""
    expected = expected_domain(facts)
    for suffix in _PARSERS:
        name = f"{facts.spec.name}.{suffix}"
        if name not in facts.texts and f"{name}.unsupported" in facts.texts:
            continue
        row = "A9" if suffix == "cfg" else "C9"
        yield judge(
            row,
            name,
            _differences(facts, name, expected if suffix == "cfg" else without_ahci(expected)),
            ok=f"{expected.type}, {expected.memory_mib} MiB, as in the spec",
            hint=f"build it again: doit build name={facts.spec.name}",
        )
        if suffix != "xml":
            yield judge(row, f"{name}: keys", _ignored(facts, name, suffix), ok="none is ignored")
    names = [disk.target for disk in expected.hard_disks]
    boot = expected.boot
    if isinstance(boot, Direct):
        names += [boot.kernel, *([boot.ramdisk] if boot.ramdisk else [])]
    here = [name.rpartition("/")[2] for name in names]
    missing = [f"no {name}" for name in here if name not in facts.sizes]
    yield judge("B5", "files it names", missing, ok=" ".join(here))


def _differences(facts: Facts, name: str, expected: Domain) -> list[str]:
    parse = _PARSERS[name.rpartition(".")[2]]
    if name not in facts.texts:
        return ["missing"]
    try:
        found = parse(facts.texts[name])
    except ValueError as fault:
        return [str(fault)]
    return [
        f"{item.name}: {getattr(found, item.name)!r}, not {getattr(expected, item.name)!r}"
        for item in fields(Domain)
        if getattr(found, item.name) != getattr(expected, item.name)
    ]


def _ignored(facts: Facts, name: str, suffix: str) -> list[str]:
    is_xl = suffix == "cfg"
    target, xen = ("xl", xl_version(facts.spec)) if is_xl else ("xm", xm_version(facts.spec))
    try:
        return keys.check_keys(facts.texts.get(name, ""), target=target, xen=xen)
    except ValueError as fault:
        return [str(fault)]


CHECKS = (check_configurations,)
