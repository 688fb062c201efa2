"""The names of a guest's cards: its files cover both that one can have under Xen, eth0 and enX0.

The kernel says eth0, systemd 250 and later enX0; nothing here guesses which it will be.
"""

import re
from collections.abc import Iterable, Iterator

from pipeline.foreign.changes import Change
from pipeline.foreign.network_setup import (
    CONNECTIONS,
    INTERFACES,
    NETPLAN,
    NETWORKD,
    ethernets,
    select,
)
from pipeline.foreign.root_tree import RootTree

_PHYSICAL = re.compile(r"(eth|en[opsxX])\w*")
_RULES = "*-persistent-net.rules"
_LINK = "/etc/systemd/network/10-domu-network.link"
_CODE = "card-name"
_WHY = "a card of Xen's is called eth0 or enX0, its files know it as {}"
# a stanza of interfaces(5) begins with one of these
_STANZA = re.compile(r"^\s*(auto|allow-\S+|iface|mapping|source\S*|no-\S+)\b")


def cover_cards(tree: RootTree, count: int) -> Iterator[Change]:
    """Changes after which the configured cards are found by either name."""
    yield from _drop_rules(tree)
    cards = [name for name in tree.interfaces if _PHYSICAL.fullmatch(name)]
    cards = [
        name for name in cards if not re.fullmatch(r"enX\d+", name) or _partner(name) not in cards
    ]
    places = {name: index for index, name in enumerate(cards[:count])}
    menders = {
        "ifupdown": _cover_ifupdown,
        "networkd": _cover_networkd,
        "netplan": _cover_netplan,
        "NetworkManager": _cover_manager,
    }
    if places and tree.network in menders and not _is_covered(tree.interfaces, len(places)):
        yield from menders[tree.network](tree, places)


def remove_cards(tree: RootTree, count: int) -> Iterator[Change]:
    """Changes after which no file configures a card: those of the new identity will."""
    del count
    yield from _drop_rules(tree)
    why = "the guest's identity says how its cards are set up"
    for pattern in (NETPLAN, NETWORKD, CONNECTIONS, "/etc/sysconfig/network-scripts/ifcfg-*"):
        for path, text in select(tree.texts, pattern):
            if not path.endswith("/ifcfg-lo"):
                yield Change(code="network", path=path, now=text, how="remove", why=why)
    for path, text in select(tree.texts, INTERFACES):
        if path != "/etc/network/interfaces":
            yield Change(code="network", path=path, now=text, how="remove", why=why)
        else:
            plain = "auto lo\niface lo inet loopback\n"
            yield Change(code="network", path=path, now=text, becomes=plain, why=why)


def find_lost_card(tree: RootTree, words: str) -> str:
    """What its first card will be called while its files set up others, "" where they find it.

    `words` are those of its kernel's command line as far as its configuration has them.
    """
    lines = [words, *(tree.texts.get(path, "") for path in tree.menus)]
    name = "eth0" if any("net.ifnames=0" in line for line in lines) else tree.card_name
    has_cards = any(map(_PHYSICAL.fullmatch, tree.interfaces))
    return name if name and has_cards and not _matches(tree.interfaces, name) else ""


def _drop_rules(tree: RootTree) -> Iterator[Change]:
    why = "it gives the new card another number than the old one's"
    for path, text in select(tree.texts, f"/etc/udev/rules.d/{_RULES}"):
        yield Change(code=_CODE, path=path, now=text, how="remove", why=why)


def _change(path: str, text: str, changed: str, cards: Iterable[str]) -> Iterator[Change]:
    if changed != text:
        why = _WHY.format(", ".join(cards))
        yield Change(code=_CODE, path=path, now=text, becomes=changed, why=why)


def _partner(name: str) -> str:
    return f"eth{name.removeprefix('enX')}"


def _is_covered(names: tuple[str, ...], count: int) -> bool:
    return all(
        _matches(names, f"eth{index}") and _matches(names, f"enX{index}") for index in range(count)
    )


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), name)
        for pattern in patterns
    )


def _both(index: int) -> tuple[str, str]:
    return f"eth{index}", f"enX{index}"


def _cover_ifupdown(tree: RootTree, places: dict[str, int]) -> Iterator[Change]:
    """Each stanza twice, brought up when udev sees a card of that name; without systemd the
    kernel's name is kept instead, because an `auto` of a card that is not there is an error."""
    keeps = tree.init != "systemd"
    for path, text in select(tree.texts, INTERFACES):
        changed = _double_stanzas(text, places, keeps=keeps)
        yield from _change(path, text, changed, places)
    if keeps and tree.has_udev:
        link = "[Match]\nDriver=vif\n\n[Link]\nNamePolicy=keep kernel\nMACAddressPolicy=none\n"
        why = "udev may call the card enX0"
        yield Change(code=_CODE, path=_LINK, becomes=link, why=why)


def _double_stanzas(text: str, places: dict[str, int], *, keeps: bool) -> str:
    lines: list[str] = []
    for block in _blocks(text):
        words = block[0].split()
        if words[:1] == ["iface"] and len(words) > 1 and words[1] in places:
            eth, enx = _both(places[words[1]])
            for name in (eth,) if keeps else (eth, enx):
                head = re.sub(rf"(?<=\s){re.escape(words[1])}(?=\s)", name, block[0], count=1)
                body = block[1:]
                while body and not body[-1].strip() and name == eth and not keeps:
                    body = body[:-1]
                lines += [head, *body]
        elif words and words[0] in ("auto", "allow-auto", "allow-hotplug"):
            lines += _double_names(block, words, places, keeps=keeps)
        else:
            lines += block
    return "\n".join(lines)


def _double_names(
    block: list[str], words: list[str], places: dict[str, int], *, keeps: bool
) -> list[str]:
    """An `auto` line without our cards, and one for them."""
    ours = [name for name in words[1:] if name in places]
    if not ours:
        return block
    others = [name for name in words[1:] if name not in places]
    lines = [f"{words[0]} {' '.join(others)}"] if others else []
    if keeps:
        lines.append(f"{words[0]} {' '.join(_both(places[name])[0] for name in ours)}")
    else:
        names = [name for card in ours for name in _both(places[card])]
        lines.append(f"allow-hotplug {' '.join(names)}")
    return [*lines, *block[1:]]


def _blocks(text: str) -> Iterator[list[str]]:
    block: list[str] = []
    for line in text.split("\n"):
        if _STANZA.match(line) and block:
            yield block
            block = []
        block.append(line)
    yield block


def _cover_networkd(tree: RootTree, places: dict[str, int]) -> Iterator[Change]:
    for path, text in select(tree.texts, NETWORKD):
        lines = text.split("\n")
        for number, line in enumerate(lines):
            key, sign, value = line.partition("=")
            names = value.split()
            ours = [name for name in names if name in places]
            if sign and key.strip() == "Name" and ours:
                both = [name for card in ours for name in _both(places[card])]
                lines[number] = f"Name={' '.join(dict.fromkeys([*both, *names]))}"
        yield from _change(path, text, "\n".join(lines), places)


def _cover_netplan(tree: RootTree, places: dict[str, int]) -> Iterator[Change]:
    """The card keeps its id and gets a pattern that both names are like."""
    for path, text in select(tree.texts, NETPLAN):
        lines = text.split("\n")
        cards = [(number, name) for number, name in ethernets(text) if name in places]
        for number, name in reversed(cards):
            indent = re.match(r" *", lines[number])
            assert indent is not None
            deeper = " " * (len(indent[0]) + 2)
            index = places[name]
            lines[number + 1 : number + 1] = [
                f"{deeper}match:",
                f'{deeper}  name: "e[tn][hX]{index}"',
            ]
        if "match:" not in text:
            yield from _change(path, text, "\n".join(lines), places)


def _cover_manager(tree: RootTree, places: dict[str, int]) -> Iterator[Change]:
    for path, text in select(tree.texts, CONNECTIONS):
        match = re.search(r"^interface-name=(\S+)\n", text, re.MULTILINE)
        if not match or match[1] not in places:
            continue
        both = ";".join(_both(places[match[1]]))
        plain = text.replace(match[0], "", 1).rstrip("\n")
        changed = f"{plain}\n\n[match]\ninterface-name={both};\n"
        yield from _change(path, text, changed, (match[1],))
