"""Which tool of a foreign system brings its cards up, and by which names it knows them."""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Literal

from pipeline.check.network import read_interfaces, read_sections
from pipeline.walls.beneath import Beneath

NetworkTool = Literal["ifupdown", "networkd", "netplan", "NetworkManager", "other"]
NETPLAN, NETWORKD = "/etc/netplan/*.yaml", "/etc/systemd/network/*.network"
CONNECTIONS = "/etc/NetworkManager/system-connections/*"
INTERFACES = "/etc/network/interfaces*"
_ENABLED = "/etc/systemd/system/multi-user.target.wants/{}.service"
_KEY = re.compile(r"""^(?P<indent> *)["']?(?P<key>[^\s#"':]+)["']?\s*:(?P<rest>.*)$""")


def find_network_tool(tree: Beneath, texts: Mapping[str, str]) -> NetworkTool:
    """The one that its files configure; where several do, the one that the others give way to."""
    if any("ethernets" in text for _, text in select(texts, NETPLAN)):
        return "netplan"
    if set(_ifupdown_names(texts)):
        return "ifupdown"
    if tree.exists(_ENABLED.format("systemd-networkd")) and any(select(texts, NETWORKD)):
        return "networkd"
    has_manager = tree.exists(_ENABLED.format("NetworkManager"))
    if any(select(texts, CONNECTIONS)) or has_manager:
        return "NetworkManager"
    if any(select(texts, NETWORKD)):
        return "networkd"
    return "ifupdown" if "/etc/network/interfaces" in texts else "other"


def find_names(tool: NetworkTool, texts: Mapping[str, str]) -> tuple[str, ...]:
    """The names, or patterns of names, of the cards that are configured, in order."""
    finders = {
        "ifupdown": _ifupdown_names,
        "networkd": _networkd_names,
        "netplan": _netplan_names,
        "NetworkManager": _manager_names,
    }
    return tuple(dict.fromkeys(finders[tool](texts))) if tool in finders else ()


def select(texts: Mapping[str, str], pattern: str) -> Iterator[tuple[str, str]]:
    """Paths like a pattern with their texts, in the order of their names."""
    for path in sorted(texts):
        if fnmatchcase(path, pattern):
            yield path, texts[path]


def _ifupdown_names(texts: Mapping[str, str]) -> Iterator[str]:
    for _, text in select(texts, INTERFACES):
        yield from (name for name in read_interfaces(text)[0] if name != "lo")


def _networkd_names(texts: Mapping[str, str]) -> Iterator[str]:
    for _, text in select(texts, NETWORKD):
        for key, value in read_sections(text).get("Match", []):
            if key == "Name":
                yield from value.split()


def _manager_names(texts: Mapping[str, str]) -> Iterator[str]:
    for _, text in select(texts, CONNECTIONS):
        sections = read_sections(text)
        for section, wanted in (("connection", "interface-name"), ("match", "interface-name")):
            for key, value in sections.get(section, []):
                if key == wanted:
                    yield from filter(None, value.split(";"))


def _netplan_names(texts: Mapping[str, str]) -> Iterator[str]:
    for _, text in select(texts, NETPLAN):
        for number, name in ethernets(text):
            yield _matched_name(text.splitlines(), number) or name


def ethernets(text: str) -> Iterator[tuple[int, str]]:
    """Line number and id of every card in a netplan file, in its usual block form."""
    inside, depth = -1, -1
    for number, line in enumerate(text.splitlines()):
        match = _KEY.match(line)
        if not match:
            continue
        indent = len(match["indent"])
        if inside >= 0 and indent <= inside:
            inside = depth = -1
        if match["key"] == "ethernets" and not match["rest"].strip():
            inside = indent
        elif inside >= 0 and depth in (-1, indent):
            depth = indent
            yield number, match["key"]


def _matched_name(lines: list[str], number: int) -> str:
    """What `match: {name: ...}` below a card's line says, "" where it has none."""
    first = _KEY.match(lines[number])
    assert first is not None
    for line in lines[number + 1 :]:
        match = _KEY.match(line)
        if match and len(match["indent"]) <= len(first["indent"]):
            return ""
        if match and match["key"] == "name":
            return match["rest"].strip().strip("\"'")
    return ""
