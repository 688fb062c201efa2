"""Why two nodes of a replicated disk are not together: what they answer, and the one line of it."""

from dataclasses import replace

import pytest

from pipeline.guest.replication_files import render_resource
from pipeline.proof.checks import Answer, Expectation, judge
from pipeline.proof.replicated_state import State, read_states
from pipeline.proof.replication_faults import Node, explain
from tests.replicated import NODE, make_node
from tests.unit.test_proof_checks import ANSWERS, KEY

VERSION = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: 2A5DFCD31AE4EBF93C0E357 \n"
COUNTS = "    ns:0 nr:0 dw:0 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:"


def proc(connection: str, disks: str, peer: str = "Secondary", oos: int = 0) -> str:
    line = f" 0: cs:{connection} ro:Secondary/{peer} ds:{disks} C r-----\n"
    return f"{VERSION}{line}{COUNTS}{oos}\n"


def log(*lines: str) -> str:
    said = ["drbd r0: Handshake successful: Agreed network protocol version 101", *lines]
    return "\n".join(f"[   12.34567{at}] {line}" for at, line in enumerate(said))


TOGETHER = proc("Connected", "UpToDate/UpToDate")
ALONE = proc("WFConnection", "Inconsistent/DUnknown", peer="Unknown", oos=65496)
APART = proc("StandAlone", "Inconsistent/DUnknown", peer="Unknown", oos=65496)


def node(at: int, *, proc: str = TOGETHER, log: str = "", mib: int = 64, **keys: object) -> Node:
    """Node db-a (1) or db-b (2), as its own files and kernel have it."""
    own, other = ("db-a", "db-b") if at == 1 else ("db-b", "db-a")
    table = NODE | {"address": f"10.77.0.{at}", "peer": other, "peer_address": f"10.77.0.{3 - at}"}
    table |= keys
    cards = [{"bridge": "br-db", "address": f"10.77.0.{at}/29"}]
    spec = make_node(table, name=own, interfaces=cards)
    text = render_resource(spec, spec.replicated[0], "/dev/xvda3", "5ecre7" * 8)
    addresses = f"1: lo    inet 127.0.0.1/8 scope host lo\n3: enX1    inet 10.77.0.{at}/29 brd"
    texts = {"proc": proc, "resource": text, "log": log, "addresses": addresses}
    texts["disk"] = str(mib * 2048)
    return Node(own, {name: Answer(text, 0) for name, text in texts.items()})


def lacking(sound: Node, what: str) -> Node:
    return replace(sound, answers={**sound.answers, what: Answer("No such file or directory", 1)})


def test_two_that_are_together_have_no_fault() -> None:
    assert explain(node(1), node(2), 0) == ""


def test_different_secrets() -> None:
    said = log(
        "drbd r0: Authentication of peer failed", "drbd r0: conn( Disconnecting -> StandAlone )"
    )
    found = explain(node(1, proc=APART, log=said), node(2, proc=ALONE), 0)
    assert found == "their shared secrets differ"
    assert explain(node(1, proc=ALONE), node(2, proc=APART, log=said), 0) == found


def test_an_older_trouble_is_not_todays() -> None:
    said = log(
        "drbd r0: Authentication of peer failed", *log("drbd r0: conn( Connected )").split("\n")
    )
    assert explain(node(1, log=said), node(2), 0) == ""


def test_a_wrong_peer_address_is_found_even_where_the_other_one_connects() -> None:
    wanted = "db-a looks for db-b at 10.77.0.5; db-b has 10.77.0.2"
    for state in (TOGETHER, ALONE):
        faulty = node(1, proc=state, peer_address="10.77.0.5")
        assert explain(faulty, node(2, proc=state), 0) == wanted
        assert explain(node(2, proc=state), faulty, 0) == wanted


def test_different_sizes_though_the_kernel_takes_the_smaller() -> None:
    found = explain(node(1), node(2, mib=96), 0)
    assert found == "the disks differ in size: 64 MiB in db-a, 96 in db-b"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("block drbd0: Split-Brain detected but unresolved, dropping connection!", "split brain"),
        ("block drbd0: Unrelated data, aborting!", "not related"),
        ("drbd r0: incompatible after-sb-1pri settings", "settings of after-sb-1pri differ"),
        (
            "block drbd0: The peer's disk size is too small! (130992 < 196512 sectors)",
            "too small for the data",
        ),
    ],
)
def test_what_the_kernel_says(line: str, cause: str) -> None:
    assert cause in explain(node(1, proc=APART, log=log(line)), node(2, proc=ALONE), 0)


def test_what_is_not_ready_comes_first() -> None:
    sound = node(2, proc=ALONE)
    assert "not loaded" in explain(lacking(sound, "proc"), node(1, proc=ALONE), 0)
    assert "no file of the resource" in explain(lacking(sound, "resource"), node(1), 0)
    assert "is not there" in explain(lacking(sound, "disk"), node(1), 0)
    assert "not up" in explain(node(1, proc=f"{VERSION} 0: cs:Unconfigured\n"), sound, 0)
    lost = proc("Connected", "Diskless/UpToDate")
    assert "disk is lost" in explain(node(1, proc=lost), sound, 0)


def test_what_is_apart_without_a_word() -> None:
    assert "do not reach each other" in explain(node(1, proc=ALONE), node(2, proc=ALONE), 0)
    assert "db-b has left" in explain(node(1, proc=ALONE), node(2, proc=APART), 0)
    new = proc("Connected", "Inconsistent/Inconsistent", oos=65496)
    assert "nobody declared the same" in explain(node(1, proc=new), node(2, proc=new), 0)
    ports = explain(node(1, proc=ALONE, port=7789), node(2, proc=ALONE), 0)
    assert ports == "the ports differ: 7789 in db-a, 7788 in db-b"
    stranger = explain(node(1, proc=ALONE, peer="db-c"), node(2, proc=ALONE), 0)
    assert stranger == "db-a's resource is for db-a and db-c, not for db-a and db-b"


def test_the_states_of_several() -> None:
    more = " 2: cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----\n"
    text = f"{TOGETHER} 1: cs:Unconfigured\n{more}{COUNTS}2048\n\t[====>...] sync'ed: 9.1%\n"
    states = read_states(text)
    assert states[0] == State("Connected", "Secondary", "UpToDate", "UpToDate", 0)
    assert str(states[2]) == "SyncTarget Secondary Inconsistent/UpToDate"
    assert states[2].out_of_sync == 2048 and set(states) == {0, 2}


@pytest.mark.parametrize(
    ("said", "level"),
    [(ALONE, "ok"), (TOGETHER, "ok"), (APART, "error"), ("", "error"), (VERSION, "error")],
)
def test_one_guest_alone_is_asked_whether_its_disk_is_up(said: str, level: str) -> None:
    spec = make_node()
    answers = {name: Answer(text, 0) for name, text in {**ANSWERS, "drbd": said}.items()}
    expected = Expectation(spec, spec.cards, "", frozenset([KEY]), (), ())
    levels = {check.subject: check.level for check in judge(answers, expected)}
    assert levels["replicated disk r0"] == level
