"""What apt is asked and what its answer means; which suites are left to mmdebstrap."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.bootstrap.bootstrap import make_base
from pipeline.bootstrap.order import Deb, Order, read_order
from pipeline.bootstrap.resolution import read_answer
from pipeline.errors import CommandFailed, PipelineError, UsageError, VerificationError
from pipeline.mirror.apt_lists import select_stanzas
from pipeline.mirror.snapshot import Snapshot
from pipeline.suites import SUITES
from pipeline.walls.errand import send
from tests.specs import make_spec

ONE, TWO, THREE = (digit * 64 for digit in "abc")
ANSWER = f"""Reading package lists...
The following additional packages will be installed:
  libc6 libssl3:amd64
  zlib1g
The following NEW packages will be installed:
  bash libc6 sshd libssl3 zlib1g
'http://mirror/pool/bash_5%7erc_amd64.deb' bash_5~rc_amd64.deb 1 SHA256:{ONE}
'http://mirror/pool/libc6_2_amd64.deb' libc6_2_amd64.deb 2 SHA256:{TWO}
'http://mirror/pool/libssl3_3_amd64.deb' libssl3_3_amd64.deb 3 SHA256:{THREE}
"""


def stanza(name: str, sha256: str = "", more: str = "") -> bytes:
    facts = "Version: 1\nArchitecture: amd64\nInstalled-Size: 7"
    return f"Package: {name}\n{facts}{more}\nSHA256: {sha256}".encode()


def test_an_answer_is_packages_in_waves_and_who_asked_for_them() -> None:
    stanzas = [
        stanza("bash", ONE, "\nEssential: yes\nPre-Depends: libc6"),
        stanza("libc6", TWO),
        stanza("libc6", "d" * 64),
        stanza("libssl3", THREE, "\nDepends: libc6"),
    ]
    found = read_answer(ANSWER, stanzas)
    assert [[deb.name for deb in wave] for wave in found.waves] == [["bash", "libc6"], ["libssl3"]]
    url = "http://mirror/pool/bash_5%7erc_amd64.deb"
    assert found.waves[0][0] == Deb("bash", url, 1, ONE, "1", "amd64", 7)
    assert found.automatic == ("libssl3", "zlib1g")


def test_an_answer_without_packages_is_an_error() -> None:
    with pytest.raises(PipelineError, match="no package to fetch"):
        read_answer("Reading package lists...\n", [stanza("bash", ONE)])


@pytest.mark.parametrize(
    ("line", "facts", "reason"),
    [
        # each of these was passed over, and the base made without the package
        ("'http://mirror/x_1.deb' x_1.deb 5 MD5Sum:0123", "", "without a SHA-256: 'http"),
        ("'http://mirror/x_1.deb' x_1.deb 5 ", "", "without a SHA-256"),
        (f"'http://mirror/x_1.deb' x_1.deb 5 SHA256:{'e' * 64}", "", "which no package index"),
        (f"'http://mirror/x_1.deb' x_1.deb 5 SHA256:{THREE}", "Version: a/b", "the version of"),
        (f"'http://mirror/x_1.deb' x_1.deb 5 SHA256:{THREE}", "Package: ../x", "the name of a p"),
        (f"'http://mirror/x_1.deb' x_1.deb 5 SHA256:{THREE}", "Installed-Size: -1", "not a number"),
        (f"'http://mirror/x_1.deb' x_1.deb 5 SHA256:{THREE}", "Installed-Size: 1536001", "1500"),
        (f"'http://mirror/x_1.deb' x_1.deb 5 SHA256:{THREE}", "SHA256 is it", "is no field"),
    ],
)
def test_a_package_that_apt_or_its_index_does_not_describe_is_an_error(
    line: str, facts: str, reason: str
) -> None:
    usual = stanza("x", THREE).decode().split("\n")
    other = [one for one in usual if one.partition(":")[0] != facts.partition(":")[0]]
    stanzas = [stanza("bash", ONE), "\n".join([*other, facts]).encode()]
    answer = f"'http://mirror/pool/bash_5.deb' bash_5.deb 1 SHA256:{ONE}\n{line}\n"
    with pytest.raises(PipelineError, match=reason):
        read_answer(answer, stanzas)


def names(parts: list[list[bytes]]) -> list[list[str]]:
    return [[one.split()[1].decode() for one in part] for part in parts]


def index(*stanzas: str) -> bytes:
    return "".join(f"{one}\nDescription: Package: no\n\n" for one in stanzas).encode()


def test_the_selection_holds_all_that_the_wanted_packages_can_lead_to() -> None:
    main = index(
        "Package: sshd\nPre-Depends: a (>= 1), b | virtual:any\nDepends: c [amd64]",
        "Package: a\nProvides: something",
        "Package: b\nRecommends: unwanted\nConflicts: unwanted",
        "Package: provider\nProvides: x, virtual (= 1)",
        "Package: unwanted",
        "Package: bash\nEssential: yes\nDepends: libc6",
        "Package: apt\nPriority: required",
        "Package: vim\nPriority: optional",
    )
    security = index(
        "Package: libc6\nVersion: 2", "Package: b\nVersion: 2\nDepends: d", "Package: d"
    )
    found = names(select_stanzas([main, security, b""], ["sshd"]))
    assert found[0] == ["sshd", "a", "b", "provider", "bash", "apt"]
    assert found[1:] == [["libc6", "b", "d"], []]


def test_the_first_stanza_of_a_list_counts_too() -> None:
    text = index("Package: bash\nEssential: yes", "Package: vim")
    assert names(select_stanzas([text], [])) == [["bash"]]


ORDER = Order(
    work="/w",
    tar="/t",
    delivery=3,
    arch="amd64",
    waves=((Deb("bash", "u", 1, ONE),), ()),
    automatic=("libc6",),
    sources=("deb http://mirror bookworm main",),
    links=("bin",),
)


def test_an_order_is_read_as_it_was_written() -> None:
    assert read_order(json.loads(json.dumps(asdict(ORDER)))) == ORDER


@pytest.mark.parametrize("suite", ["bookworm", "trixie", "noble", "bullseye"])
def test_suites_that_were_compared_are_supported(suite: str) -> None:
    assert SUITES[suite].default_bootstrap("amd64") == "parallel"
    assert SUITES[suite].default_bootstrap("i386") == "mmdebstrap"


@pytest.mark.parametrize("suite", ["jammy", "sid", "buster", "etch"])
def test_other_suites_are_refused_with_the_way_out(tmp_path: Path, suite: str) -> None:
    spec = make_spec(suite=suite, bootstrap="parallel")
    snapshot = Snapshot(tmp_path, (), {}, 0, "", ())
    with pytest.raises(UsageError, match=suite) as caught:
        make_base(
            spec, snapshot, scratch=tmp_path, tar=tmp_path / "t", cache=tmp_path, run=lambda: ""
        )
    assert "bootstrap=mmdebstrap" in caught.value.hint


@pytest.mark.parametrize(
    ("last", "kind", "brief"),
    [
        ({"exit_code": 5, "brief": "wrong bytes"}, VerificationError, "wrong bytes"),
        ({"exit_code": 1, "brief": "two files"}, PipelineError, "two files"),
        (None, CommandFailed, "unshare ended"),
    ],
)
def test_a_failure_inside_is_the_same_failure_outside(
    tmp_path: Path, last: dict[str, object] | None, kind: type[PipelineError], brief: str
) -> None:
    def fail(*_arguments: object, **_options: object) -> str:
        token = json.loads((tmp_path / "order.json").read_text())["token"]
        table = {"details": "", "hint": "", **(last or {})}
        output = f"Unpacking x\n{token}{json.dumps(table)}\n" if last else "Killed\n"
        raise CommandFailed(["unshare"], status=1, output=output)

    with pytest.raises(kind, match=brief):
        send("some.module", {}, file=tmp_path / "order.json", room=tmp_path, run=fail)


def test_a_line_of_a_script_is_no_failure_of_ours(tmp_path: Path) -> None:
    """e44a75a took `failed: {...}` and `note: ...` of a package script for its own."""
    table = {"exit_code": 3, "brief": "mine", "details": "", "hint": ""}

    def fail(*_arguments: object, **_options: object) -> str:
        raise CommandFailed(["x"], status=1, output=f"failed: {json.dumps(table)}\n")

    with pytest.raises(CommandFailed, match="x ended"):
        send("some.module", {}, file=tmp_path / "order.json", room=tmp_path, run=fail)
