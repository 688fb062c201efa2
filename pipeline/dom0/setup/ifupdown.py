"""A host's bridges in ifupdown's files: what its ports had becomes the bridge's.

The stanza of a port gives its addresses, routes and name servers away and becomes manual; all else
in the files stays, byte for byte. Facts: interfaces(5), bridge-utils-interfaces(5), bridge-utils'
NEWS of 1.7 (systemd's udev gives a bridge an address of its own since bullseye), ifupdown's
changelog (`source` since 0.7, wheezy).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Self

from pipeline.dom0.setup.host_file import HostFile
from pipeline.dom0.setup.host_settings import Bridge, HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.nat import down_commands, up_commands
from pipeline.errors import PipelineError
from pipeline.guest.interfaces_file import Stanza, parse_stanzas, split_line, static_lines

INTERFACES = "/etc/network/interfaces"
FOLDER = "/etc/network/interfaces.d"
_IN_FOLDER = re.compile(r"[A-Za-z0-9_-]+")  # what source-directory takes
_BRIDGE_HW = (5, 10)  # bullseye: bridge-utils 1.7
# what a stanza says of its addresses; `-` and `_` are alike
_ADDRESS = {"address", "netmask", "broadcast", "network", "gateway", "pointopoint", "scope"}
_LEASE = {"hostname", "leasehours", "leasetime", "vendor", "client", "client-no-id"}
_ALONG = {"metric", "accept-ra", "autoconf", "privext", "preferred-lifetime", "dhcp", "ll-attempts"}
_ALONG |= {"dad-attempts", "dad-interval", "request-prefix"}
_ROUTES = re.compile(
    "(pre-|post-)?(up|down) (.*[ /;&|])?(ip (-[^ ]+ )*(a|addr|address|r|ro|route|ru|rule)|route) "
)
# of the bridge's own stanza, what dom0.toml says
_BRIDGE = {f"bridge-{name}" for name in ("ports", "stp", "maxwait", "fd", "hello", "hw")}


@dataclass(frozen=True)
class Interfaces:
    """The files that ifupdown reads, by their paths."""

    files: dict[str, list[Stanza]]

    @classmethod
    def of(cls, host: HostView) -> Self:
        """The host's, with all that they name."""
        files: dict[str, list[Stanza]] = {}
        waiting = [INTERFACES]
        while waiting:
            path = waiting.pop(0)
            text = host.read(path) if path not in files else None
            if text is not None:
                files[path] = parse_stanzas(text)
                waiting += _find_sourced(host, path, files[path])
        return cls(files)

    def defines(self, *names: str) -> list[Stanza]:
        """The stanzas of an interface, in order."""
        every = [stanza for stanzas in self.files.values() for stanza in stanzas]
        return [stanza for stanza in every if stanza.iface in names]

    def names_of(self, port: str) -> list[str]:
        """A port and its old aliases (eth0:1) as far as they are defined."""
        every = [stanza.iface for stanzas in self.files.values() for stanza in stanzas]
        return list(dict.fromkeys(name for name in every if name.partition(":")[0] == port))


def _find_sourced(host: HostView, path: str, stanzas: Iterable[Stanza]) -> Iterator[str]:
    for keyword, pattern in _sources(path, stanzas):
        for place in host.find(f"{pattern}/*" if keyword == "source-directory" else pattern):
            if keyword == "source" or _IN_FOLDER.fullmatch(PurePosixPath(place).name):
                yield place


def _sources(path: str, stanzas: Iterable[Stanza]) -> Iterator[tuple[str, str]]:
    for stanza in stanzas:
        if stanza.words[:1] in (["source"], ["source-directory"]):
            for pattern in stanza.words[1:]:
                yield stanza.words[0], str(PurePosixPath(path).parent / pattern)


def render_interfaces(settings: HostSettings, host: HostView) -> Iterator[HostFile]:
    """Every file that ifupdown reads, and those of the bridges that are to be."""
    there = Interfaces.of(host)
    _refuse_mappings(there, settings)
    blocks = {name: _bridge_lines(name, settings, host, there) for name in settings.bridge}
    blocks |= {name: _nat_lines(name, settings) for name in settings.nat}
    texts = {path: _Edit(settings, blocks, stanzas).text for path, stanzas in there.files.items()}
    for name in blocks:
        if there.defines(name):
            continue  # it stands where it stood
        path = f"{FOLDER}/{name}"
        if not any(_covers(path, *source) for source in _sources(INTERFACES, _main(there))):
            path = INTERFACES
        before = texts.get(path, "")
        before += "\n" * (bool(before) and not before.endswith("\n")) + "\n" * bool(before)
        texts[path] = before + "".join(f"{line}\n" for line in blocks[name])
    for path, text in texts.items():
        if path != INTERFACES and PurePosixPath(path).parent != PurePosixPath(FOLDER):
            if text != "".join(line for stanza in there.files[path] for line in stanza.lines):
                raise PipelineError(
                    f"{path} configures a port and is not in {FOLDER}", hint="move it there first"
                )
            continue
        yield HostFile(path, text.encode(errors="surrogateescape"))


def _main(there: Interfaces) -> list[Stanza]:
    return there.files.get(INTERFACES, [])


def _covers(path: str, keyword: str, pattern: str) -> bool:
    folder, _, name = path.rpartition("/")
    if keyword == "source-directory":
        return folder == pattern.rstrip("/") and bool(_IN_FOLDER.fullmatch(name))
    return fnmatchcase(path, pattern)


def _refuse_mappings(there: Interfaces, settings: HostSettings) -> None:
    """A script that chooses a port's stanza when it is brought up says more than files do."""
    ports = [port for bridge in settings.bridge.values() for port in bridge.ports]
    for path, stanzas in there.files.items():
        for stanza in stanzas:
            patterns = stanza.words[1:] if stanza.words[:1] == ["mapping"] else []
            mapped = [
                port for port in ports if any(fnmatchcase(port, pattern) for pattern in patterns)
            ]
            if mapped:
                raise PipelineError(
                    f"{path}: a script chooses the configuration of {mapped[0]} (mapping)",
                    hint="give it an iface stanza of its own first",
                )


class _Edit:
    """One file as it is to be."""

    def __init__(
        self, settings: HostSettings, blocks: dict[str, list[str]], stanzas: list[Stanza]
    ) -> None:
        bridges = settings.bridge.items()
        self._ports = {port: name for name, bridge in bridges for port in bridge.ports}
        self._waiting = dict(blocks)
        self._blocks = blocks
        self._is_manual: set[str] = set()
        self.text = "".join(line for stanza in stanzas for line in self._rewrite(stanza))

    def _rewrite(self, stanza: Stanza) -> list[str]:
        words, name = stanza.words, stanza.iface
        if name in self._blocks:
            block = [f"{line}\n" for line in self._waiting.pop(name, [])]
            return block + stanza.remarks
        if name in self._ports:
            return self._free_port(stanza)
        port, colon, _ = name.partition(":")
        if colon and port in self._ports:
            return [_renamed(line, port, self._ports[port]) for line in stanza.lines]
        if words and (words[0] == "auto" or words[0].startswith("allow-")):
            return [self._rewrite_auto(stanza.lines[0], words), *stanza.lines[1:]]
        return list(stanza.lines)

    def _rewrite_auto(self, line: str, words: list[str]) -> str:
        for port, name in self._ports.items():
            line = re.sub(rf"(?<!\S){re.escape(port)}:", f"{name}:", line)
        if not set(words[1:]) & set(self._blocks):
            return line
        kept = [word for word in split_line(line) if word not in self._blocks]
        return " ".join(kept) + "\n" if len(kept) > 1 else ""

    def _free_port(self, stanza: Stanza) -> list[str]:
        """The stanza without what the bridge has of it."""
        if stanza.method == "manual":
            self._is_manual.add(stanza.iface)
            return list(stanza.lines)
        kept = [line for line in stanza.lines[1:] if not _moves(line)]
        if stanza.iface in self._is_manual and not any(map(split_line, kept)):
            return kept
        # inet6 knows no manual in old releases: the first one is inet's, whatever it was
        family = stanza.family if stanza.iface in self._is_manual else "inet"
        self._is_manual.add(stanza.iface)
        head = re.compile(r"(\s*iface\s+\S+\s+)\S+(\s+)\S+")
        if not (match := head.match(stanza.lines[0])):  # continued amid its words
            more = " ".join(["manual", *stanza.words[4:]])
            return [f"iface {stanza.iface} {family} {more}\n", *kept]
        return [f"{match[1]}{family}{match[2]}manual{stanza.lines[0][match.end() :]}", *kept]


def _moves(line: str) -> bool:
    """Whether an option is of the addresses, not of the card."""
    word = _option(line)
    is_known = word in _ADDRESS | _LEASE | _ALONG or word.startswith("dns-")
    return is_known or bool(_ROUTES.match(" ".join(split_line(line))))


def _option(line: str) -> str:
    words = split_line(line)
    return words[0].replace("_", "-") if words else ""


def _renamed(line: str, port: str, bridge: str) -> str:
    """The line with the port's name replaced, where it is a word or an alias."""
    return re.sub(rf"(?<![\w.:-]){re.escape(port)}(?![\w.-])", bridge, line)


def _bridge_lines(
    name: str, settings: HostSettings, host: HostView, there: Interfaces
) -> list[str]:
    """The lines for a bridge: auto, then a stanza for each address."""
    bridge = settings.bridge[name]
    of_ports = [stanza for stanza in there.defines(*bridge.ports) if stanza.method != "manual"]
    stanzas: list[list[str]] = []
    for family, version in (("inet", 4), ("inet6", 6)):
        before = [stanza for stanza in of_ports if stanza.family == family]
        before = before or [stanza for stanza in there.defines(name) if stanza.family == family]
        stanzas += _address_stanzas(name, bridge, before, version)
    stanzas = stanzas or [[f"iface {name} inet manual"]]
    options = [f"bridge_ports {' '.join(bridge.ports) or 'none'}"]
    options += [f"bridge_stp {'on' if bridge.stp else 'off'}"]
    options += [f"bridge_maxwait {bridge.maxwait}", f"bridge_fd {bridge.fd}"]
    options += [f"bridge_hello {bridge.hello}"] if bridge.hello else []
    if bridge.ports and host.linux >= _BRIDGE_HW:
        options.append(f"bridge_hw {bridge.ports[0]}")
    options += [f"dns-nameservers {' '.join(bridge.dns)}"] if bridge.dns else []
    stanzas[0] += [f"    {option}" for option in options]
    return [f"auto {name}", *(line for lines in stanzas for line in lines)]


def _address_stanzas(
    name: str, bridge: Bridge, before: list[Stanza], version: int
) -> list[list[str]]:
    """The stanzas of one family: as dom0.toml says, else as they were."""
    lines = [[_inherit(line, stanza, bridge, name) for line in stanza.options] for stanza in before]
    addresses = bridge.of_version(version)
    if addresses or (bridge.dhcp and version == 4):
        said = bridge.gateway if version == 4 else bridge.gateway6
        gateways = (
            [said]
            if said
            else [
                "".join(split_line(line)[1:2])
                for stanza in before
                for line in stanza.options
                if _option(line) == "gateway"
            ]
        )
        first = [static_lines(name, *pair) for pair in zip(addresses, gateways[:1], strict=False)]
        rest = [static_lines(name, address) for address in addresses[len(first) :]]
        stanzas = [*first, *rest] or [[f"iface {name} inet dhcp"]]
        own = _ADDRESS | (_LEASE if addresses else set())
        for given in lines:
            stanzas[0] += [line for line in given if line and _option(line) not in own]
        return stanzas
    heads = [" ".join(["iface", name, *stanza.words[2:]]) for stanza in before]
    return [[head, *filter(None, given)] for head, given in zip(heads, lines, strict=True)]


def _inherit(line: str, stanza: Stanza, bridge: Bridge, name: str) -> str:
    """An option as the bridge has it; "" for what stays with the port or dom0.toml says."""
    option = _option(line)
    is_own = stanza.iface == name and option not in _BRIDGE
    if not (is_own or _moves(line)) or (bridge.dns and option.startswith("dns-nameserver")):
        return ""
    for port in bridge.ports:
        line = _renamed(line, port, name)
    return line.rstrip("\n")


def _nat_lines(name: str, settings: HostSettings) -> list[str]:
    """The lines for a bridge of guests behind NAT: the filter stands before it is up."""
    lines = [f"auto {name}", *static_lines(name, settings.nat[name].interface)]
    lines += [f"    bridge_{option}" for option in ("ports none", "stp off", "maxwait 0", "fd 0")]
    lines += [f"    {phase} {command}" for phase, command in up_commands(name)]
    return lines + [f"    down {command}" for command in down_commands(name)]
