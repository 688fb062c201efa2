"""What is rendered for a toolstack says the same thing when it is parsed back."""

import string
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.xen import libvirt, xl, xm
from pipeline.xen.boot import Boot, Direct, Firmware, Grub, Pygrub, grub_domain_type
from pipeline.xen.cfg_syntax import quote_string
from pipeline.xen.devices import DRBD_SCRIPT, Card, Disk, Framebuffer, device_of
from pipeline.xen.domain import CRASH_ACTIONS, STOP_ACTIONS, Domain
from pipeline.xen.render import render_libvirt, render_xl, render_xm
from pipeline.xen.values import Unsupported

NAMES = st.text(string.ascii_letters + string.digits + "._+-", min_size=1, max_size=30).filter(
    lambda name: name[0].isalnum()
)
LINKS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=15)


def is_carriable(text: str) -> bool:
    """Whether the model takes this text: no control characters, no space at the ends."""
    odd = (0x7F, 0x85, 0x2028, 0x2029, 0xFFFE, 0xFFFF)
    return text == text.strip() and all(ord(char) >= 32 and ord(char) not in odd for char in text)


@dataclass(frozen=True)
class Alphabet:
    """The texts that a target can carry, and the paths and words made of them."""

    texts: st.SearchStrategy[str]

    @property
    def paths(self) -> st.SearchStrategy[str]:
        return self.texts.map(lambda text: f"/{text}").filter(lambda path: path[-1] not in "/ ")

    @property
    def words(self) -> st.SearchStrategy[str]:
        return self.texts.filter(
            lambda text: len(text.split()) == 1 and not text.startswith("root=")
        )


ANY = Alphabet(st.text(st.characters(codec="utf-8"), max_size=20).filter(is_carriable))
OLD = Alphabet(
    st.text(st.characters(codec="ascii", exclude_characters=","), max_size=20).filter(is_carriable)
)
VDEVS = st.builds(
    lambda stem, letter, number: f"{stem}{letter}{number}",
    st.sampled_from(["xvd", "sd", "hd"]),
    st.sampled_from("abcdefgh"),
    st.sampled_from(["", "1", "2", "15"]),
)
MACS = st.integers(1, 2**40 - 1).map(
    lambda value: "00:" + ":".join(f"{byte:02x}" for byte in value.to_bytes(5, "big"))
)


@st.composite
def disks(draw: st.DrawFn, vdev: str, alphabet: Alphabet) -> Disk:
    if draw(st.booleans()) and not vdev[-1].isdigit():
        target = draw(st.one_of(st.just(""), alphabet.paths))
        return Disk(target=target, vdev=vdev, access="ro", devtype="cdrom")
    access = draw(st.sampled_from(["rw", "ro"]))
    if draw(st.integers(0, 9)) == 0:
        target = device_of(draw(st.sampled_from(["r0", "db.1_a", "A-b+c"])))
        return Disk(target=target, vdev=vdev, access=access, script=DRBD_SCRIPT)
    target = draw(alphabet.paths)
    if draw(st.integers(0, 9)) == 0:
        return Disk(target=target, vdev=vdev, access="shared")
    formats = ["raw"] if target.startswith("/dev/") else ["raw", "qcow2", "vhd"]
    return Disk(
        target=target,
        vdev=vdev,
        format=draw(st.sampled_from(formats)),
        access=access,
    )


def cards(mac: str, *, hvm: bool) -> st.SearchStrategy[Card]:
    return st.builds(
        Card,
        mac=st.sampled_from([mac, None]),
        bridge=st.none() | LINKS,
        vifname=st.none() | LINKS,
        mtu=st.none() | st.integers(68, 65535),
        rate_kbytes_s=st.none() | st.integers(1, 10**9),
        ip=st.none() | st.ip_addresses().map(str).filter(lambda text: "%" not in text),
        model=st.sampled_from([None, "e1000"]) if hvm else st.none(),
        vlan=st.none() | st.integers(1, 4094),
    )


@st.composite
def boots(draw: st.DrawFn, kind: str, alphabet: Alphabet) -> Boot:
    if kind == "hvm" and draw(st.booleans()):
        order = draw(st.lists(st.sampled_from("acdn"), min_size=1, max_size=4, unique=True))
        hdtype = draw(st.sampled_from(["ide", "ahci"]))
        return Firmware(draw(st.sampled_from(["bios", "uefi"])), "".join(order), hdtype)
    choice = "direct" if kind == "hvm" else draw(st.sampled_from(["direct", "pygrub", "grub"]))
    if choice == "grub":
        return Grub(f"/usr/lib/grub-xen/grub-i386-xen{'_pvh' if kind == 'pvh' else ''}.bin")
    if choice == "pygrub":
        path = draw(st.sampled_from(["pygrub", "/usr/local/bin/pygrub"]))
        user = draw(st.sampled_from(["", "pygrub-web1", "998"]))
        return Pygrub(path, tuple(draw(st.lists(alphabet.words, max_size=3))), user)
    # a kernel that is hvmloader or a GRUB for Xen is another way to boot
    kernels = alphabet.paths.filter(
        lambda path: not path.endswith("/hvmloader") and grub_domain_type(path) is None
    )
    return Direct(
        kernel=draw(kernels),
        ramdisk=draw(st.none() | alphabet.paths),
        root=draw(st.sampled_from([None, "/dev/xvda1", "LABEL=root"])),
        cmdline=" ".join(draw(st.lists(alphabet.words, max_size=4))),
    )


@st.composite
def domains(
    draw: st.DrawFn, alphabet: Alphabet = ANY, kinds: tuple[str, ...] = ("pv", "pvh", "hvm")
) -> Domain:
    kind = draw(st.sampled_from(kinds))
    boot = draw(boots(kind, alphabet))
    vdevs = draw(st.lists(VDEVS, max_size=4, unique=True, min_size=1))
    macs = draw(st.lists(MACS, max_size=3, unique=True))
    screens = st.builds(
        Framebuffer,
        vnclisten=st.none() | st.ip_addresses(v=4).map(str),
        vncdisplay=st.none() | st.integers(0, 59635),
        keymap=st.sampled_from([None, "fr", "en-us"]),
    )
    memory = draw(st.integers(1, 2**20))
    vcpus = draw(st.integers(1, 64))
    is_weighed = draw(st.integers(0, 2)) == 0  # libvirt refuses these
    return Domain(
        name=draw(NAMES),
        type=kind,
        uuid=draw(st.none() | st.uuids().map(str)),
        memory_mib=memory,
        maxmem_mib=draw(st.none() | st.integers(memory, 2**21)),
        vcpus=vcpus,
        maxvcpus=draw(st.none() | st.integers(vcpus, 128)),
        cpus=draw(st.sampled_from([None, "0-3,^1", "5"])),
        cpu_weight=draw(st.none() | st.integers(1, 65535)) if is_weighed else None,
        cap=draw(st.none() | st.integers(0, 100)) if is_weighed else None,
        boot=boot,
        disks=tuple(draw(disks(vdev, alphabet)) for vdev in vdevs),
        cards=tuple(draw(cards(mac, hvm=kind == "hvm")) for mac in macs),
        framebuffer=draw(st.none() | screens),
        on_poweroff=draw(st.sampled_from(STOP_ACTIONS)),
        on_reboot=draw(st.sampled_from(STOP_ACTIONS)),
        on_crash=draw(st.sampled_from(CRASH_ACTIONS)),
    )


@given(domains())
def test_xl_configuration_parses_back_to_the_same_domain(domain: Domain) -> None:
    assert xl.parse(render_xl(domain, xen="4.20")) == domain


@given(domains(ANY, ("pv", "hvm")))
def test_xl_configuration_of_an_old_xen_parses_back_too(domain: Domain) -> None:
    plain = tuple(replace(card, mtu=None, vlan=None) for card in domain.cards)
    domain = replace(domain, cards=plain)
    assert xl.parse(render_xl(domain, xen="4.8")) == domain


@given(domains(OLD, ("pv", "hvm")))
def test_xm_configuration_parses_back_or_is_refused_with_a_reason(domain: Domain) -> None:
    domain = replace(
        domain, cards=tuple(replace(card, mtu=None, vlan=None) for card in domain.cards)
    )
    try:
        text = render_xm(domain, xen="3.4")
    except Unsupported:
        return
    assert xm.parse(text) == domain


@given(domains())
def test_libvirt_xml_parses_back_or_is_refused_with_a_reason(domain: Domain) -> None:
    plain = tuple(
        replace(card, mtu=None, vlan=None, bridge=card.bridge or "br0") for card in domain.cards
    )
    domain = replace(domain, cards=plain)
    try:
        text = render_libvirt(domain)
    except Unsupported:
        return
    assert libvirt.parse(text) == domain


@given(ANY.texts)
def test_a_string_survives_the_quoting_of_xl(text: str) -> None:
    assert xl.parse_assignments(f"a = {quote_string(text)}\n") == {"a": text}
