"""A bridge in ifupdown's files: the port's stanza gives its addresses away, all else stays."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dom0.setup.bridges import NETWORK
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.ifupdown import FOLDER, INTERFACES
from pipeline.errors import PipelineError

LOOPBACK = "auto lo\niface lo inet loopback\n"
STATIC = """
# the card
auto eth0
iface eth0 inet static
    address 192.168.1.145
    # of the office
    netmask 255.255.255.0
    gateway 192.168.1.1
"""
SEED = """auto br-xen
iface br-xen inet static
    address 192.168.1.145
    netmask 255.255.255.0
    gateway 192.168.1.1
    bridge_ports eth0
    bridge_stp off
    bridge_maxwait 0
    bridge_fd 0
"""
MANUAL = "\n# the card\nauto eth0\niface eth0 inet manual\n    # of the office\n"
GIVEN = {"ports": ["eth0"], "address": "192.168.1.145/24", "gateway": "192.168.1.1"}


def make_host(files: dict[str, str], suite: str = "bookworm") -> HostView:
    """A host of these files alone."""
    changed: dict[str, bytes | None] = {path: text.encode() for path, text in files.items()}
    nowhere = Path("/nonexistent")
    return HostView(nowhere, suite, "systemd", "ifupdown", "grub2", "xl", changed=changed)


def render(host: HostView, **tables: Any) -> dict[str, str]:
    """The files as they are to be, which a second rendering leaves as they are."""

    def once(files: dict[str, str]) -> dict[str, str]:
        made = NETWORK.render(settings, make_host({**files}, host.suite))
        return {file.path: (file.content or b"").decode() for file in made}

    settings = HostSettings.model_validate(tables)
    before = {path: (content or b"").decode() for path, content in host.changed.items()}
    after = {**before, **once(before)}
    assert once(after).items() <= after.items()
    return after


@pytest.mark.parametrize("suite", ["etch", "lenny"])
def test_the_seed_s_stanza_stands_where_its_release_reads_it(suite: str) -> None:
    files = render(make_host({INTERFACES: LOOPBACK + STATIC}, suite), bridge={"br-xen": GIVEN})
    assert files == {INTERFACES: f"{LOOPBACK}{MANUAL}\n{SEED}"}


@pytest.mark.parametrize("line", ["source {}/*\n", "source-directory {}\n", "source {}/b*\n"])
def test_a_bridge_has_a_file_of_its_own_where_the_host_reads_such(line: str) -> None:
    text = LOOPBACK + line.format(FOLDER)
    files = render(make_host({INTERFACES: text + STATIC}), bridge={"br-xen": GIVEN})
    assert files[INTERFACES] == text + MANUAL
    assert files[f"{FOLDER}/br-xen"] == f"{SEED}    bridge_hw eth0\n"


def test_a_port_is_found_in_the_file_that_names_it() -> None:
    own = {INTERFACES: f"{LOOPBACK}source interfaces.d/*\n", f"{FOLDER}/card": STATIC}
    files = render(make_host(own), bridge={"br-xen": {"ports": ["eth0"]}})
    assert files[INTERFACES] == own[INTERFACES] and files[f"{FOLDER}/card"] == MANUAL
    assert "gateway 192.168.1.1\n" in files[f"{FOLDER}/br-xen"]


def test_what_a_port_has_becomes_the_bridge_s_and_what_is_of_the_card_stays() -> None:
    port = """auto bond0.5
iface bond0.5 inet static inherits office
    address 10.0.0.2/24
    vlan-raw-device bond0
    hwaddress 02:00:00:00:00:01
    mtu 9000
    dns-nameservers 10.0.0.1
    up ip route add 10.8.0.0/16 \\
        via 10.0.0.3 dev bond0.5
    post-up ethtool -K bond0.5 tso off
iface bond0.5 inet6 static
    address 2001:db8::2
    netmask 64
"""
    files = render(make_host({INTERFACES: port}), bridge={"br-xen": {"ports": ["bond0.5"]}})
    before, block = files[INTERFACES].split("\n\n")
    assert before.splitlines() == [
        *("auto bond0.5", "iface bond0.5 inet manual inherits office"),
        *("    vlan-raw-device bond0", "    hwaddress 02:00:00:00:00:01", "    mtu 9000"),
        "    post-up ethtool -K bond0.5 tso off",
    ]
    assert "iface br-xen inet static inherits office\n    address 10.0.0.2/24\n" in block
    assert "    up ip route add 10.8.0.0/16 \\\n        via 10.0.0.3 dev br-xen\n" in block
    assert block.endswith("iface br-xen inet6 static\n    address 2001:db8::2\n    netmask 64\n")


def test_each_family_is_said_anew_or_as_it_was() -> None:
    both = "iface eth0 inet dhcp\n    hostname web\niface eth0 inet6 auto\n    privext 2\n"
    new = {"ports": ["eth0"], "address": ["10.0.0.2/24", "10.0.1.2/24"], "dns": ["10.0.0.1"]}
    files = render(make_host({INTERFACES: both}), bridge={"br-xen": new})
    assert "iface eth0 inet manual\n\nauto br-xen\niface br-xen inet static\n" in files[INTERFACES]
    assert (
        "hostname" not in files[INTERFACES]
        and "    dns-nameservers 10.0.0.1\n" in files[INTERFACES]
    )
    assert files[INTERFACES].endswith("iface br-xen inet6 auto\n    privext 2\n")
    kept = render(make_host({INTERFACES: both}), bridge={"br-xen": {"ports": ["eth0"]}})
    assert "iface br-xen inet dhcp\n    hostname web\n    bridge_ports eth0\n" in kept[INTERFACES]


def test_a_bridge_made_by_hand_keeps_what_dom0_toml_does_not_say() -> None:
    hand = SEED.replace("eth0", "eth1") + "    bridge_vlan_aware yes\n    # mine\n" + LOOPBACK
    table = {"ports": ["eth0"], "hello": 1, "fd": 2, "stp": True}
    files = render(make_host({INTERFACES: hand}, "etch"), bridge={"br-xen": table})
    options = ["ports eth0", "stp on", "maxwait 0", "fd 2", "hello 1"]
    lines = [f"    bridge_{option}\n" for option in options]
    head = SEED.partition("    bridge")[0]
    first = f"{head}    bridge_vlan_aware yes\n{''.join(lines)}    # mine\n{LOOPBACK}"
    assert files == {INTERFACES: first}


def test_aliases_of_a_port_and_lines_with_other_names_go_along() -> None:
    text = "auto lo br-xen eth0 eth0:1\niface eth0 inet dhcp\niface eth0:1 inet static\n"
    files = render(make_host({INTERFACES: text}), bridge={"br-xen": {"ports": ["eth0"]}})
    assert files[INTERFACES].startswith(
        "auto lo eth0 br-xen:1\niface eth0 inet manual\niface br-xen:1 inet static\n"
    )


def test_a_port_that_had_ipv6_alone_is_defined_once() -> None:
    text = "auto eth0\niface eth0 inet6 auto\niface eth0 inet6 static\n    address 2001:db8::2/64\n"
    files = render(make_host({INTERFACES: text}), bridge={"br-xen": {"ports": ["eth0"]}})
    assert files[INTERFACES].startswith("auto eth0\niface eth0 inet manual\n\nauto br-xen\n")
    assert files[INTERFACES].count("iface br-xen inet6") == 2


def test_guests_among_themselves_have_a_bridge_without_ports() -> None:
    files = render(make_host({}), bridge={"br0": {}})
    assert files[INTERFACES].startswith("auto br0\niface br0 inet manual\n    bridge_ports none\n")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({INTERFACES: "mapping eth*\n    script /usr/local/bin/where\n"}, "mapping"),
        ({INTERFACES: "source /srv/cards\n", "/srv/cards": STATIC}, "/srv/cards"),
    ],
)
def test_what_cannot_be_changed_safely_is_refused(files: dict[str, str], named: str) -> None:
    with pytest.raises(PipelineError, match=named):
        render(make_host(files), bridge={"br-xen": {"ports": ["eth0"]}})


word = st.text("abcdefgh0123456789./:-_$'\"éÿ", min_size=1, max_size=8)
blank = st.sampled_from([" ", "  ", "\t", " \\\n ", " \\\n\t"])
remark = st.one_of(
    st.sampled_from(["\n", "  \n", "#iface eth0\n"]), word.map(lambda text: f"  # {text} \\\n")
)
names = st.sampled_from(["up", "mtu", "address", "bridge_ports"])
option = st.tuples(names, blank, word, blank, word).map(lambda parts: f"{''.join(parts)}\n")
options = st.lists(st.one_of(option, remark), max_size=5)
other = st.sampled_from(["eth1", "eth0.5", "eth00", "xeth0", "lo"])
kind = st.sampled_from(["inet static", "inet6 auto"])
stanza = st.one_of(
    st.tuples(st.just("iface"), blank, other, blank, kind),
    st.tuples(st.sampled_from(["auto", "allow-hotplug", "no-scripts"]), blank, other),
    st.tuples(st.sampled_from(["source", "source-directory"]), blank, st.just("/nowhere/*.d")),
    st.tuples(st.just("mapping"), blank, st.sampled_from(["eth1\n script x", "eth0?\n script y"])),
)
block = st.tuples(stanza.map("".join), st.just("\n"), options.map("".join)).map("".join)
blocks = st.lists(st.one_of(block, remark), max_size=6).map("".join)


@given(before=blocks, after=blocks, end=st.sampled_from(["", "auto lo"]))
def test_all_but_the_port_s_stanza_stays_byte_for_byte(before: str, after: str, end: str) -> None:
    own = "auto eth0\niface eth0 inet static\n address 10.0.0.2/24\n# end\nauto eth2\n"
    text = f"{before}{own}{after}" + end * bool(after)
    files = render(make_host({INTERFACES: text}), bridge={"br-xen": {"ports": ["eth0"]}})
    expected = text.replace(own, own.replace("static\n address 10.0.0.2/24", "manual"))
    kept, mark, new = files[INTERFACES].rpartition("\nauto br-xen\n")
    assert mark and new.startswith("iface br-xen inet static\n address 10.0.0.2/24\n")
    assert kept == expected + "\n" * (not expected.endswith("\n"))
