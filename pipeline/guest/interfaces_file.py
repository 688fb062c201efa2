"""interfaces(5), the file of ifupdown, as stanzas that keep every byte of it."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

_KEYWORD = re.compile(
    "iface|mapping|auto|allow-.*|source|source-directory|rename|template|no-auto-down|no-scripts"
)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True)
class Stanza:
    """The lines from one keyword to the next, comments and empty lines among them.

    A line that a backslash continues is one line. What stands before the first keyword is a stanza
    without words.
    """

    lines: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """Those of the line with the keyword."""
        words = split_line(self.lines[0])
        return words if words and _KEYWORD.fullmatch(words[0]) else []

    @property
    def iface(self) -> str:
        """The name of the interface that it defines, else ""."""
        return self.words[1] if self.words[:1] == ["iface"] and len(self.words) > 3 else ""

    @property
    def family(self) -> str:
        """inet, inet6, ... of an iface stanza."""
        return self.words[2]

    @property
    def method(self) -> str:
        """static, dhcp, manual, ... of an iface stanza."""
        return self.words[3]

    @property
    def options(self) -> list[str]:
        """The lines that say something, below the keyword's."""
        return [line for line in self.lines[1:] if split_line(line)]

    @property
    def remarks(self) -> list[str]:
        """The comments and empty lines below the keyword."""
        return [line for line in self.lines[1:] if not split_line(line)]


def split_line(line: str) -> list[str]:
    """The words of a line, as ifupdown puts continued ones together; a comment has none."""
    joined = line.replace("\\\n", "")
    return [] if joined.lstrip().startswith("#") else joined.split()


def parse_stanzas(text: str) -> list[Stanza]:
    """The stanzas, whose lines are the text again."""
    stanzas: list[list[str]] = []
    goes_on = False
    for line in _LINE.findall(text):
        if goes_on:
            stanzas[-1][-1] += line
        else:
            words = split_line(line)
            if not stanzas or (words and _KEYWORD.fullmatch(words[0])):
                stanzas.append([])
            stanzas[-1].append(line)
        goes_on = line.endswith("\\\n") and bool(split_line(stanzas[-1][-1]) or goes_on)
    return [Stanza(tuple(lines)) for lines in stanzas]


def static_lines(
    name: str, address: IPv4Interface | IPv6Interface, gateway: object = None
) -> list[str]:
    """The lines of a stanza with an address."""
    is_four = address.version == 4
    lines = [f"iface {name} {'inet' if is_four else 'inet6'} static", f"    address {address.ip}"]
    # netmask on a line of its own: ifupdown before 0.7 knows no prefix in the address
    lines.append(f"    netmask {address.netmask if is_four else address.network.prefixlen}")
    return lines + [f"    gateway {gateway}"] * bool(gateway)
