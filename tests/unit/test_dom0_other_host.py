"""What another host answers before a guest moves there, judged without a host."""

from dataclasses import replace

import pytest

from pipeline.diagnosis import explained_ssh
from pipeline.dom0.migrate import find_bound
from pipeline.dom0.other_host import Needs, OtherHost, find_obstacles
from pipeline.errors import CommandFailed, EnvironmentFault
from pipeline.xen.capabilities import find_no_live, read_info
from pipeline.xen.domain import Card, Direct, Disk, Domain

INFO = """host                   : xenb
hw_caps                : 178bf3fd:80002001:20100800:00000007:00000000:00000000
virt_caps              : pv hvm hap gnttab-v1 gnttab-v2
free_memory            : 5312
xen_major              : 4
xen_minor              : 17
xen_version            : 4.17.7
xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64
xen_commandline        : dom0_mem=768M,max:768M console=com1 com1=115200,8n1
"""
LIST = """Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   768     2     r-----      21.4
"""
HERE = read_info(INFO)
GUEST = Domain(
    name="web1",
    type="pvh",
    memory_mib=512,
    vcpus=1,
    boot=Direct("/var/lib/xen/kernels/6.1/vmlinuz"),
    disks=(Disk(target="/dev/VGS/web1-disk", vdev="xvda1"),),
    cards=(Card(bridge="br-xen"), Card(bridge="br-xen"), Card()),
)
NEEDS = Needs(
    GUEST, 512, ("/dev/VGS/web1-disk",), ("/var/lib/xen/kernels/6.1/vmlinuz",), ("pygrub-web1",)
)


def judged(told: str, needs: Needs = NEEDS) -> dict[str, tuple[str, str, str]]:
    there = OtherHost.read("xenb", f"Welcome!\ndomu: this is\n{told}")
    return {
        finding.subject: (finding.level, finding.text, finding.hint)
        for finding in find_obstacles(needs, HERE, there)
    }


def test_a_host_that_has_all_of_it_is_fit() -> None:
    assert judged(LIST + INFO) == {}


def test_what_is_asked_for_names_each_thing_once() -> None:
    assert NEEDS.words == [
        "path=/dev/VGS/web1-disk",
        "path=/var/lib/xen/kernels/6.1/vmlinuz",
        "user=pygrub-web1",
        "bridge=br-xen",
        "bridge=xenbr0",
    ]


def test_all_that_is_missing_is_said_with_what_to_type() -> None:
    found = judged("".join(f"lacks {word}\n" for word in NEEDS.words) + LIST + INFO)
    assert {subject: level for subject, (level, _, _) in found.items()} == dict.fromkeys(
        ("disk", "file", "user", "bridge"), "error"
    )
    assert "shared storage" in found["disk"][2]
    path = "/var/lib/xen/kernels/6.1/vmlinuz"
    assert found["file"][2].endswith(f"scp -p {path} xenb:{path}")
    assert found["user"][2].endswith("/usr/sbin/nologin pygrub-web1")
    assert found["bridge"][1] == "xenbr0 is not there"


@pytest.mark.parametrize(
    ("old", "new", "subject", "level"),
    [
        ("xen_minor              : 17", "xen_minor              : 14", "xen", "error"),
        ("free_memory            : 5312", "free_memory            : 511", "memory", "error"),
        (" hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64", "", "type", "error"),
        ("178bf3fd:", "178bf3fc:", "processor", "warning"),
    ],
)
def test_a_host_that_is_less_than_this_one(old: str, new: str, subject: str, level: str) -> None:
    assert old in INFO
    found = judged(LIST + INFO.replace(old, new))
    assert [(name, found[name][0]) for name in found] == [(subject, level)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("xen_minor              : 17", "xen_minor              : 20"),
        # dom0 gives way: autoballoon
        ("5312\n", "5\n"),
        ("178bf3fd:", "178bf3ff:"),
    ],
)
def test_a_host_that_is_more_than_this_one(old: str, new: str) -> None:
    more = INFO.replace(old, new).replace("dom0_mem=768M,max:768M ", "")
    assert judged(LIST + more) == {}


def test_a_pv_guest_needs_no_hvm_there() -> None:
    pv = replace(NEEDS, domain=replace(GUEST, type="pv"))
    assert judged(LIST + INFO.replace(" hvm-3.0-x86_64", ""), pv) == {}
    assert "type" in judged(LIST + INFO.replace("xen-3.0-x86_64 ", ""), pv)


def test_an_xl_info_that_says_little_stops_nothing() -> None:
    assert judged(LIST + "xen_major : nine\nhw_caps : what\nfree_memory : some\n") == {}


def test_a_pv_guest_moves_live_where_xen_has_shadow_page_tables() -> None:
    def why(kind: str, words: str) -> list[str]:
        return [one.subject for one in find_no_live(kind, {"virt_caps": words})]

    assert why("pv", "pv hvm hap gnttab-v1") == ["type"]
    assert why("pvh", "pv hvm hap gnttab-v1") == []
    assert why("pv", "pv hvm hap shadow") == []
    # before 4.13 there was no word for them; nor in xm
    assert why("pv", "hvm hvm_directio") == why("pv", "") == []


def test_what_binds_a_guest_to_its_host() -> None:
    bound = {"pci": ["01:00.0"], "nomigrate": 1, "usbdev": [], "dtdev": ""}
    assert [finding.subject for finding in find_bound(bound)] == ["pci", "nomigrate"]
    assert list(find_bound({"nomigrate": "0"})) == []


SAID = {
    "Host key verification failed.": "accept it: ssh xenb",
    "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.": "-R xenb",
    "root@xenb: Permission denied (publickey).": "ssh-copy-id root@xenb",
    "ssh: connect to host xenb port 22: Connection refused": "by hand: ssh xenb",
}


@pytest.mark.parametrize(("said", "hint"), SAID.items())
def test_an_ssh_that_does_not_come_in_says_what_to_do(said: str, hint: str) -> None:
    with pytest.raises(EnvironmentFault) as caught, explained_ssh("xenb"):
        raise CommandFailed(["ssh"], status=255, output=said)
    assert caught.value.brief == f"xenb: {said.splitlines()[-1]}"
    assert hint in caught.value.hint


def test_a_command_that_fails_there_is_no_fault_of_ssh() -> None:
    with pytest.raises(CommandFailed, match="status 1"), explained_ssh("xenb"):
        raise CommandFailed(["ssh"], status=1, output="no xl")
