"""A configuration becomes a spec whose domain means the same, but for what is reported."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import ROOT
from pipeline.errors import UsageError
from pipeline.foreign.import_file import Imported, import_text
from pipeline.foreign.import_keys import KEYS
from pipeline.foreign.import_spec import Host
from pipeline.spec import Spec, load_all
from pipeline.spec.domain import make_domain
from pipeline.xen.boot import Direct, Firmware, Pygrub
from pipeline.xen.devices import Disk
from pipeline.xen.domain import Domain
from pipeline.xen.render import render_libvirt, render_xl, render_xm
from pipeline.xen.values import Unsupported
from tests.unit.test_xen_roundtrip import OLD, domains

RENDERERS: dict[str, Callable[[Domain], str]] = {
    "xl": lambda domain: render_xl(domain, xen="4.20"),
    "xm": lambda domain: render_xm(domain, xen="3.4"),
    "libvirt": render_libvirt,
}
REPORTED = frozenset({"cannot be said", "added"})


def domain_of(spec: Spec) -> Domain:
    """What a build would render, wherever its disks will be."""
    disks = [
        Disk(
            target=f"/dev/{spec.lvm}/{part.name}" if spec.lvm else f"/srv/{part.name}",
            vdev=part.vdev,
            format=spec.format if part.has_files else "raw",
        )
        for part in spec.parts
    ]
    return make_domain(spec, Path("/srv"), disks)


def words_of(domain: Domain) -> set[str]:
    ours = ("console=", "rootfstype=", "xencons=")
    words = domain.boot.cmdline.split() if isinstance(domain.boot, Direct) else []
    return {word for word in words if word not in ("ro", "rw") and not word.startswith(ours)}


def differences(old: Domain, new: Domain) -> Iterator[str]:
    """The aspects in which two domains do not mean the same."""
    for aspect, key in (("memory", "memory_mib"), ("maxmem", "maxmem_mib")):
        if getattr(old, key) != getattr(new, key):
            yield aspect
    for (
        aspect
    ) in "type uuid vcpus maxvcpus cpus cpu_weight cap on_poweroff on_reboot on_crash".split():
        if getattr(old, aspect) != getattr(new, aspect):
            yield aspect
    if old.name.lower() != new.name:
        yield "name"
    if type(old.boot) is not type(new.boot):
        yield {Pygrub: "bootloader", Firmware: "firmware"}.get(type(old.boot), "kernel")
    if words_of(old) - words_of(new):
        yield "cmdline"
    for number, card in enumerate(old.cards):
        other = new.cards[number]
        for key in ("mac", "bridge", "vifname", "mtu", "ip", "model", "vlan"):
            if getattr(card, key) != getattr(other, key):
                yield f"card{number} {key}"
        if card.rate_kbytes_s != other.rate_kbytes_s:
            yield f"card{number} rate"
    if (old.framebuffer is None) != (new.framebuffer is None):
        yield "vnc"
    for key in ("vncdisplay", "vnclisten", "keymap") if old.framebuffer else ():
        if getattr(old.framebuffer, key) != getattr(new.framebuffer, key):
            yield key


def require_same(imported: Imported) -> None:
    new = domain_of(imported.spec.spec)
    for aspect in differences(imported.domain, new):
        outcome = imported.answers[aspect].outcome
        assert outcome in REPORTED, (aspect, imported.answers[aspect], imported.domain, new)
    kept = [f"disk{at}" for at in range(len(imported.domain.disks))]
    taken = [aspect for aspect in kept if imported.answers[aspect].outcome == "taken"]
    assert len(taken) <= len(new.disks)
    assert all(imported.answers[aspect].outcome in {"taken", *REPORTED} for aspect in kept)


def fit(domain: Domain, kind: str) -> Domain:
    """The same without what the toolstack would refuse to have rendered."""
    if kind == "xl":
        return domain
    cards = [
        replace(card, mtu=None, vlan=None, bridge=card.bridge or "br0") for card in domain.cards
    ]
    domain = replace(domain, cards=tuple(cards))
    if kind == "libvirt":
        plain = [replace(disk, script="") for disk in domain.disks]  # DRBD is xl's and xm's
        boot = domain.boot
        boot = replace(boot, hdtype="ide") if isinstance(boot, Firmware) else boot
        return replace(domain, cpu_weight=None, cap=None, boot=boot, disks=tuple(plain))
    boot, vcpus = domain.boot, min(domain.vcpus, 32)
    if domain.type == "hvm":
        boot = Firmware("bios", boot.order if isinstance(boot, Firmware) else "c")
    maxvcpus = domain.maxvcpus and max(vcpus, min(domain.maxvcpus, 32))
    disks = [disk for disk in domain.disks if disk.target] or [Disk(target="/dev/a", vdev="xvda")]
    screen = domain.framebuffer and replace(domain.framebuffer, vnclisten="127.0.0.1")
    return replace(
        domain, boot=boot, vcpus=vcpus, maxvcpus=maxvcpus, disks=tuple(disks), framebuffer=screen
    )


def values_of(key: str) -> st.SearchStrategy[str]:
    """A value as people write it, and as they should not."""
    texts = st.text(st.characters(codec="ascii", exclude_characters="\"\\'\n"), max_size=12)
    quoted = st.sampled_from(["", "0", "1", "all", "none"]) | texts.filter(str.isprintable)
    single = quoted.map(lambda text: f'"{text}"') | st.integers(0, 2**31).map(str)
    return (single | st.lists(single, max_size=3).map(lambda items: f"[{', '.join(items)}]")).map(
        lambda value: f"{key} = {value}"
    )


EXTRA = sorted(KEYS)
FURTHER = st.lists(st.sampled_from(EXTRA), max_size=4, unique=True).flatmap(
    lambda keys: st.tuples(*(values_of(key) for key in keys))
)


@pytest.mark.parametrize("kind", list(RENDERERS))
def test_what_is_rendered_comes_back_with_the_same_meaning(guests: Path, kind: str) -> None:
    alphabets = {"xm": domains(OLD, ("pv", "hvm"))}
    counted: list[str] = []

    # of those that are drawn, a renderer or a spec refuses a fifth to a half
    @settings(
        max_examples={"xl": 100, "xm": 170, "libvirt": 100}[kind],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(
        alphabets.get(kind, domains()), st.sampled_from(["bookworm", "bullseye", "trixie"]), FURTHER
    )
    def check(domain: Domain, suite: str, further: tuple[str, ...]) -> None:
        domain = fit(domain, kind)
        try:
            text = RENDERERS[kind](domain)
        except Unsupported:
            return
        more = {line.partition(" ")[0] for line in further if kind == "xl"}
        text += "\n".join(line for line in further if line.partition(" ")[0] in more)
        source = Path(f"/etc/xen/{kind}.cfg")
        try:
            imported = import_text(text, source, guests, suite=suite, host=Host())
        except UsageError as refused:
            assert refused.exit_code == 2, refused
            return
        if isinstance(domain.boot, Pygrub) and isinstance(imported.domain.boot, Pygrub):
            domain = replace(domain, boot=imported.domain.boot)  # each Xen has its own path
        assert imported.domain == replace(domain, name=imported.domain.name)
        assert imported.kind == kind or kind == "xm"
        assert more <= {finding.subject for finding in imported.findings}
        require_same(imported)
        counted.append(imported.kind)

    check()
    assert len(counted) >= 50  # 80 are usual


@pytest.mark.parametrize("guest", sorted(load_all(ROOT / "guests")))
def test_our_own_renderings_of_a_shipped_guest_come_back_as_it(guests: Path, guest: str) -> None:
    spec = load_all(ROOT / "guests")[guest]
    domain = domain_of(spec)
    for kind, render in RENDERERS.items():
        try:
            text = render(domain)
        except Unsupported:
            assert kind == "xm"
            continue
        source = Path(f"/etc/xen/{guest}.cfg")
        sizes = {
            disk.target: part.size_mib for disk, part in zip(domain.disks, spec.parts, strict=True)
        }
        host = Host(sizes=sizes)
        imported = import_text(text, source, guests, suite=spec.suite, host=host)
        again = domain_of(imported.spec.spec)
        assert again == replace(domain, disks=again.disks), kind
        made = imported.spec.spec
        assert (made.size, made.swap, made.fs) == (spec.size, spec.swap, spec.fs)
        assert not [each for each in imported.findings if each.code == "cannot be said"]
