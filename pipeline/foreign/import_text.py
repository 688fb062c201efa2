"""A configuration that somebody else wrote, read: its domain, and each of its keys.

What kind it is its content says. Nothing of it is run, nothing is asked of the host.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import WrongValueError
from pipeline.foreign import import_elements
from pipeline.foreign.import_keys import NETWORK_KEYS, XL_ASPECTS, XM_ASPECTS, Answer, answer_of
from pipeline.xen import libvirt, specs, xl, xm
from pipeline.xen.cfg_syntax import Value
from pipeline.xen.domain import Domain
from pipeline.xen.keys import XL_KEYS, XM_KEYS, XM_LATER_KEYS, check_keys
from pipeline.xen.values import SyntaxFault

Kind = Literal["xl", "xm", "libvirt", "xen-tools", "partitions", "none"]
_NEWEST_XEN = "4.21"
_GUEST_KEYS = frozenset({"kernel", "bootloader", "disk", "builder", "type", "memory", "vif"})
_XM_ONLY = XM_KEYS - XL_KEYS - set(NETWORK_KEYS)
_XL_ONLY = XL_KEYS - XM_KEYS - set(XM_LATER_KEYS)
_TAG = re.compile(r"[\[ ]")
_SHIM_LOADERS = {
    "pvgrub32": "/usr/lib/grub-xen/grub-i386-xen.bin",
    "pvgrub64": "/usr/lib/grub-xen/grub-x86_64-xen.bin",
}


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as it stands there. Its `aspect` of the domain has an answer of its own, or it has."""

    name: str
    value: str
    aspect: str = ""
    answer: Answer | None = None


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What was read; `network` is what xend would have made the kernel's ip= of."""

    kind: Kind
    domain: Domain
    keys: tuple[Key, ...]
    network: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


def kind_of(text: str) -> Kind:
    """What a text is, by its content; none where it is nothing that describes guests."""
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if first.startswith("<"):
        return "libvirt"
    if first.startswith("[") and first.endswith("]") and "=" not in first:
        return "partitions"
    names = {line.partition("=")[0].strip() for line in lines if "=" in line}
    if not names & _GUEST_KEYS:
        return "xen-tools" if names & {"size", "swap", "fs", "dist", "lvm", "dir"} else "none"
    try:
        values = xl.parse_assignments(text)
    except SyntaxFault:
        # xen-tools' conf has no quotes, which neither xl nor Python can read
        return "xen-tools" if names & {"size", "dist", "lvm", "dir"} else "xm"
    if not set(values) & _GUEST_KEYS:
        return "none"
    is_old = set(values) & _XM_ONLY or any("type=vnc" in item for item in _strings(values, "vfb"))
    return "xm" if is_old and not set(values) & _XL_ONLY else "xl"


def read_configuration(text: str, *, name: str) -> Configuration:
    """The configuration of one guest; `name` is for one that has none.

    Raises SyntaxFault, with the line, for what its toolstack could not read, WrongValueError for
    what can be no guest at all.
    """
    if "\0" in text:
        raise SyntaxFault(f"line {text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL byte")
    kind = kind_of(text)
    if kind == "libvirt":
        return _read_xml(libvirt.read_tree(text))
    if kind not in ("xl", "xm"):
        raise SyntaxFault("this is no guest's configuration")
    parse = xl.parse_assignments if kind == "xl" else xm.parse_assignments
    return _Assignments(parse(text), kind, name).read()


class _Assignments:
    """The keys of an xl or xm configuration; those that make no domain are taken out one by one."""

    def __init__(self, values: Mapping[str, Value], kind: Kind, name: str) -> None:
        self._values = dict(values)
        self._order = list(values)
        self._kind: Kind = kind
        self._keys: list[Key] = []
        self._values.setdefault("name", name)
        self._is_named = "name" in values

    def read(self) -> Configuration:
        network = {
            key: str(self._values.pop(key))
            for key in NETWORK_KEYS
            if not isinstance(self._values.get(key, []), list)
        }
        self._keys += [
            Key(name=key, value=value, aspect=f"network {key}") for key, value in network.items()
        ]
        self._drop_ignored()
        self._drop_answered()
        self._choose_loader()
        self._read_screens()
        self._read_cards()
        self._read_disks()
        domain = self._make_domain()
        aspects = dict(XL_ASPECTS if self._kind == "xl" else XM_ASPECTS)
        if self._kind == "xm" and "vcpu_avail" in self._values:
            aspects["vcpus"] = "maxvcpus"  # xend's vcpus is what may be reached
        self._keys += [
            Key(name=key, value=str(value), aspect=aspects[key])
            for key, value in self._values.items()
            if not isinstance(value, list) and (key != "name" or self._is_named)
        ]
        self._keys += [
            Key(name=key, value=" ".join(value), aspect=aspects[key])
            for key, value in self._values.items()
            if isinstance(value, list) and key not in ("disk", "vif", "vfb")
        ]
        keys = sorted(self._keys, key=lambda key: self._order.index(_TAG.split(key.name)[0]))
        return Configuration(kind=self._kind, domain=domain, keys=tuple(keys), network=network)

    def _drop(self, name: str, value: object, answer: Answer) -> None:
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        self._keys.append(Key(name=name, value=shown, answer=answer))

    def _drop_ignored(self) -> None:
        """What xl knows and does not read of this domain."""
        if self._kind != "xl":
            return
        for line in check_keys(self._values, target="xl", xen=_NEWEST_XEN):
            key, _, why = line.partition(": ")
            if key in self._values and key in XL_ASPECTS:
                self._drop(key, self._values.pop(key), Answer("not needed", why))

    def _drop_answered(self) -> None:
        aspects = XL_ASPECTS if self._kind == "xl" else XM_ASPECTS
        for key in [key for key in self._values if key not in aspects]:
            value = self._values.pop(key)
            text = ", ".join(value) if isinstance(value, list) else str(value)
            self._drop(key, value, answer_of(key, text, target=self._kind))

    def _choose_loader(self) -> None:
        """xl's name for a GRUB that boots a PV guest, as the file that Debian has of it."""
        loader = _SHIM_LOADERS.get(str(self._values.get("firmware", "")))
        if loader and "kernel" not in self._values:
            self._values["kernel"] = loader

    def _read_screens(self) -> None:
        screens = _strings(self._values, "vfb")
        for number, item in enumerate(screens):
            kept = []
            for key, value in specs.read_pairs(item).items():
                if key in ("vnc", "vncunused", "vncdisplay", "vnclisten", "keymap"):
                    kept.append((key, value))
                    self._keys.append(Key(name=f"vfb[{number}] {key}", value=value, aspect=key))
                elif key == "type":
                    kept.append((key, value))
                    aspect = Answer("not needed", "vnc = true says it")
                    self._drop(f"vfb[{number}] {key}", value, aspect)
                else:
                    self._drop(f"vfb[{number}] {key}", value, answer_of(key, value, target="xl"))
            screens[number] = specs.write_pairs([*kept])

    def _read_cards(self) -> None:
        kept: list[str] = []
        for item in _strings(self._values, "vif"):
            number, pairs = len(kept), {}
            for key, value in specs.read_pairs(item).items():
                label = f"vif[{number}] {key}"
                try:
                    card = specs.read_card(specs.write_pairs([(key, value)]))
                except ValueError as mistake:
                    self._drop(label, value, refuse(mistake, _CARD_HINTS.get(key, "")))
                    continue
                if card == specs.read_card(""):
                    self._drop(label, value, Answer("not needed", "it is what holds anyway"))
                    continue
                pairs[key] = value
                self._keys.append(Key(name=label, value=value, aspect=f"card{number} {key}"))
            kept.append(specs.write_pairs([*pairs.items()]))
        if "vif" in self._values:
            self._values["vif"] = kept

    def _read_disks(self) -> None:
        read: Callable[[str], object] = specs.read_xl_disk if self._kind == "xl" else xm.read_disk
        kept: list[str] = []
        for place, item in enumerate(_strings(self._values, "disk")):
            try:
                read(item)
            except ValueError as mistake:
                self._drop(f"disk[{place}]", item, refuse(mistake))
                continue
            key = Key(name=f"disk[{place}]", value=item, aspect=f"disk{len(kept)}")
            self._keys.append(key)
            kept.append(item)
        if "disk" in self._values:
            self._values["disk"] = [*kept]

    def _make_domain(self) -> Domain:
        read = xl.read_domain if self._kind == "xl" else xm.read_domain
        while True:
            try:
                return read(self._values)
            except ValueError as mistake:
                key = _blamed(mistake)
                if key == "name" or key not in self._values:
                    raise
                self._drop(key, self._values.pop(key), refuse(mistake))


_CARD_HINTS = {
    "script": "routed and NAT cards are the host's: add the line to the installed configuration",
    "backend": "a card's other end is dom0 here",
}


def refuse(mistake: ValueError, hint: str = "") -> Answer:
    """The answer of what is no value of a domain."""
    if isinstance(mistake, WrongValueError):
        text = f"{mistake.key}: {mistake.message}" if mistake.key else mistake.message
        return Answer("cannot be said", text, mistake.hint or hint)
    return Answer("cannot be said", str(mistake), hint)


def _blamed(mistake: ValueError) -> str:
    """The key that a mistake is about; its own words begin with it."""
    key = mistake.key if isinstance(mistake, WrongValueError) else ""
    return key or str(mistake).partition(":")[0]


def _strings(values: Mapping[str, Value], key: str) -> list[str]:
    value = values.get(key, [])
    return value if isinstance(value, list) else []


def _read_xml(root: ElementTree.Element) -> Configuration:
    if root.get("type", "xen") != "xen":
        raise SyntaxFault(f"a guest of {root.get('type')}, not of Xen")
    keys = [*_drop_models(root), *_drop_devices(root)]
    domain = None
    while domain is None:
        try:
            domain = libvirt.read_domain(root)
        except ValueError as mistake:
            node = root.find(_blamed(mistake))
            if node is None or node.tag == "name":
                raise
            root.remove(node)
            shown = import_elements.show(node)
            keys.append(Key(name=str(node.tag), value=shown, answer=refuse(mistake)))
    for name, value, aspect, answer in import_elements.walk(root):
        keys.append(Key(name=name, value=value, aspect=aspect, answer=answer))
    text = root.findtext("description", root.findtext("title", ""))
    return Configuration(
        kind="libvirt", domain=domain, keys=tuple(keys), description=" ".join(text.split())
    )


def _drop_models(root: ElementTree.Element) -> Iterator[Key]:
    """libvirt names the card of a guest that has no emulated one too (netfront)."""
    is_pc = root.findtext("os/type", "").strip() == "hvm"
    for place, card in enumerate(root.iterfind("devices/interface")):
        for node in card.findall("model"):
            if not is_pc or node.get("type") == "netfront":
                card.remove(node)
                answer = Answer("not needed", "only an HVM guest has an emulated card")
                label = f"devices/interface[{place}]/model"
                yield Key(name=label, value=import_elements.show(node), answer=answer)


def _drop_devices(root: ElementTree.Element) -> Iterator[Key]:
    """Disks and cards that make no part of a domain."""
    devices = root.find("devices")
    if devices is None:
        return
    readers: tuple[tuple[str, Callable[[ElementTree.Element], object]], ...] = (
        ("disk", libvirt.read_disk),
        ("interface", libvirt.read_card),
    )
    for tag, read in readers:
        for place, node in enumerate(devices.findall(tag)):
            try:
                read(node)
            except ValueError as mistake:
                devices.remove(node)
                label = f"devices/{tag}[{place}]"
                yield Key(name=label, value=import_elements.show(node), answer=refuse(mistake))
