"""Why the two nodes of a replicated disk are not together, by what they answer. Pure.

Facts: drbd_receiver.c of Linux 6.1, DRBD 8.4.11, has what the kernel says of a peer. It compares
neither the peers' addresses (whoever is called answers), nor the sizes of two new disks (the
smaller one counts).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from pipeline.proof.checks import Answer
from pipeline.proof.replicated_state import read_states

# asked in a node, with resource and minor as arguments; the secret stays where it is
QUESTION = r"""
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C
file=/etc/drbd.d/$1.res
ask() {
    printf '@@ %s\n' "$1"
    shift
    "$@" 2>&1 </dev/null
    printf '\n@@ status %s\n' "$?"
}
resource() { grep -v shared-secret "$file"; }
log() { dmesg | grep -i drbd | tail -n 200; }
disk() {
    node=$(sed -n 's/^ *disk *\(.*\);$/\1/p' "$file")
    cat "/sys/class/block/${node##*/}/size"
}
ask proc cat /proc/drbd
ask resource resource
ask log log
ask disk disk
ask addresses ip -o addr
"""
_ADDRESS = re.compile(r"^    on (\S+) \{\s+address ipv[46] \[?([^\]\s]+?)\]?:(\d+);", re.MULTILINE)
_OWN = re.compile(r"\binet6? ([0-9a-f.:]+)")
# the last of them counts: what was said before may have been mended
_SAID = (
    ("Authentication of peer failed", "their shared secrets differ"),
    ("Split-Brain detected but unresolved", "split brain: both were written to without the other"),
    ("Unrelated data, aborting", "their data are not related: one was made anew by hand"),
    ("I shall become SyncSource, but I am inconsistent", "neither has the whole data"),
    ("The peer's disk size is too small", "the other's disk is too small for the data"),
)
_INCOMPATIBLE = re.compile(r"incompatible (\S+) settings")


@dataclass(frozen=True)
class Node:
    """What one node answered to QUESTION; `name` is its host name."""

    name: str
    answers: dict[str, Answer]

    def text(self, what: str) -> str:
        """One answer; "" for none."""
        answer = self.answers.get(what)
        return answer.text if answer and answer.status == 0 else ""

    @property
    def size_mib(self) -> float:
        """The disk below; 0 where it is not there."""
        text = self.text("disk").strip()
        return int(text) / 2048 if text.isdigit() else 0.0

    @property
    def places(self) -> dict[str, tuple[str, str]]:
        """Host name to address and port, as the node's own file says."""
        entries = _ADDRESS.findall(self.text("resource"))
        return {host: (address, port) for host, address, port in entries}

    @property
    def addresses(self) -> list[str]:
        """What its cards have, this machine's own left out."""
        own: list[str] = _OWN.findall(self.text("addresses"))
        return [each for each in own if each not in ("127.0.0.1", "::1")]


def explain(first: Node, second: Node, minor: int) -> str:
    """Why the two are not together as they should be, in one line; "" where nothing is seen.

    What is configured comes first: it is the cause of what the kernel says.
    """
    pairs = ((first, second), (second, first))
    causes = chain(
        *(_find_unready(node, minor) for node in (first, second)),
        _find_different_sizes(first, second),
        *(_find_wrong_places(*pair) for pair in pairs),
        *(_find_said(node) for node in (first, second)),
        _find_apart(first, second, minor),
    )
    return next(causes, "")


def _find_unready(node: Node, minor: int) -> Iterator[str]:
    if not node.text("resource"):
        yield f"{node.name} has no file of the resource in /etc/drbd.d"
    elif not node.text("proc"):
        yield f"{node.name}: the module drbd is not loaded"
    elif not node.size_mib:
        yield f"{node.name}: the disk that its resource names is not there"
    elif minor not in read_states(node.text("proc")):
        yield f"{node.name}: the resource is not up: systemctl status drbd"
    elif not read_states(node.text("proc"))[minor].has_disk:
        yield f"{node.name}: its disk is lost or was not attached"


def _find_different_sizes(first: Node, second: Node) -> Iterator[str]:
    if first.size_mib != second.size_mib:
        sizes = f"{first.size_mib:g} MiB in {first.name}, {second.size_mib:g} in {second.name}"
        yield f"the disks differ in size: {sizes}"


def _find_wrong_places(node: Node, peer: Node) -> Iterator[str]:
    own, other = node.places.get(node.name), node.places.get(peer.name)
    if own is None or other is None:
        named = " and ".join(node.places) or "nobody"
        yield f"{node.name}'s resource is for {named}, not for {node.name} and {peer.name}"
        return
    if own[0] not in node.addresses:
        yield f"{node.name} has no address {own[0]}: {_join(node.addresses)}"
    elif other[0] not in peer.addresses:
        has = _join(peer.addresses)
        yield f"{node.name} looks for {peer.name} at {other[0]}; {peer.name} has {has}"
    elif own[1] != peer.places.get(peer.name, own)[1]:
        theirs = peer.places[peer.name][1]
        yield f"the ports differ: {own[1]} in {node.name}, {theirs} in {peer.name}"


def _find_said(node: Node) -> Iterator[str]:
    for line in reversed(node.text("log").splitlines()):
        if "Handshake successful" in line:
            return  # whatever came before was another connection
        if match := _INCOMPATIBLE.search(line):
            yield f"their settings of {match[1]} differ"
        for words, cause in _SAID:
            if words in line:
                yield cause


def _find_apart(first: Node, second: Node, minor: int) -> Iterator[str]:
    states = [read_states(node.text("proc"))[minor] for node in (first, second)]
    if all(state.connection == "Connected" for state in states):
        if states[0].disk == states[1].disk == "Inconsistent":
            yield "two new disks that nobody declared the same: /etc/default/drbd"
        return
    alone = [state.connection for state in states]
    if "StandAlone" in alone:
        node = (first, second)[alone.index("StandAlone")]
        yield f"{node.name} has left its peer alone (StandAlone): drbdadm connect"
    elif set(alone) <= {"WFConnection", "Unconnected", "NetworkFailure", "Timeout"}:
        yield "they do not reach each other: their bridge or cards are down, or a filter is there"


def _join(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"
