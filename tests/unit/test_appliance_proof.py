"""What an appliance's proof decides before anything boots, and what it leaves."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.appliance.appliance_evidence import ApplianceEvidence
from pipeline.appliance.appliance_proof import refuse_misfit
from pipeline.appliance.running_member import link_local
from pipeline.errors import UsageError
from pipeline.proof.artifact import Artifact
from pipeline.proof.checks import equal, holds
from pipeline.proof.evidence import Evidence
from pipeline.proof.handover import bridge_addresses, count_slots
from pipeline.proof.matrix import read_proofs
from pipeline.proof.seals import read_verdict
from pipeline.xen import xl
from pipeline.xen.boot import Direct
from tests.specs import make_spec

CONFIGURATION = """
name = "{name}"
memory = {memory}
kernel = "/k"
vif = [ "bridge=br-xen", "bridge=br-link" ]
disk = [ {disks} ]
"""


def member(name: str, memory: int = 256, disks: int = 2, **keys: object) -> Artifact:
    listed = ", ".join(
        f'"format=raw, vdev=xvda{n + 1}, access=rw, target=/{name}/{n}.img"' for n in range(disks)
    )
    text = CONFIGURATION.format(name=name, memory=memory, disks=listed)
    folder = Path("/", name)
    domain = xl.parse(text, strict=False)
    spec = make_spec(name=name, bridge="br-xen", **keys)
    return Artifact(folder, folder / f"{name}.cfg", folder / "proof", domain, spec)


def test_what_does_not_fit_into_the_test_host_is_refused_with_the_figures() -> None:
    fits = {"a": member("a", 2048), "b": member("b", 2048)}
    refuse_misfit("pair", fits)
    with pytest.raises(UsageError, match=r"a 2048 \+ b 4096 = 6144 MiB of memory.* has \d+ MiB"):
        refuse_misfit("pair", {**fits, "b": member("b", 4096)})
    with pytest.raises(UsageError, match="have 8 disks, the test host has slots for 7"):
        refuse_misfit("pair", {"a": member("a", disks=4), "b": member("b", disks=4)})
    with pytest.raises(UsageError, match=r"for Xen 4\.17 and 4\.20, a test host has one"):
        refuse_misfit("pair", {"a": member("a"), "b": member("b", xen="4.20")})


def test_a_disk_that_two_members_name_takes_one_slot() -> None:
    first, second = member("a", disks=3), member("b", disks=3)
    shared = first.domain.disks[2]
    second = replace(
        second, domain=replace(second.domain, disks=(*second.domain.disks[:2], shared))
    )
    assert count_slots([first, second]) == 6


def test_the_test_hosts_networks_are_none_of_those_between_the_guests() -> None:
    link = [{"bridge": "br-link", "address": ["10.77.0.1/29"]}]
    members = [member("a", interfaces=link), member("b")]
    assert bridge_addresses(members, {"br-link"}) == {"br-xen": "10.77.1.1"}
    assert bridge_addresses(members[1:], {"br-link"}) == {"br-xen": "10.77.0.1"}
    assert bridge_addresses(members, ()) == {"br-xen": "10.77.0.1", "br-link": "10.77.1.1"}


def test_a_card_has_an_address_of_its_own() -> None:
    # as networkctl shows it of this card
    assert link_local("00:16:3E:71:23:72") == "fe80::216:3eff:fe71:2372"


def test_one_proof_has_the_checks_of_all_and_the_console_of_each(tmp_path: Path) -> None:
    a, b = Evidence("pair-a", console="up"), Evidence("pair-b", console="panic")
    a.add(equal("hostname -f", "pair-a", "pair-a"))
    b.add(holds("login prompt on hvc0", "login:", "", ok=False))
    whole = ApplianceEvidence("pair", members={"a": a, "b": b})
    whole.add(equal("r0: healed", "Connected", "Connected"))

    whole.take_over()
    whole.write(tmp_path)

    record = whole.to_json()
    names = [check["name"] for check in record["checks"]]
    assert names == ["r0: healed", "a: hostname -f", "b: login prompt on hvc0"]
    assert [check.subject for check in whole.failed] == ["b: login prompt on hvc0"]
    assert whole.console == "panic"
    assert set(record["members"]["b"]) == {"guest", "facts", "seconds", "injected"}
    assert (tmp_path / "console-a.log").read_text() == "up"


def test_a_members_own_proof_has_the_verdict_of_the_whole(tmp_path: Path) -> None:
    folder = tmp_path / "guests/pair-a"
    folder.mkdir(parents=True)
    configuration = folder / "pair-a.cfg"
    configuration.write_text("name = 'pair-a'")
    (folder / "vmlinuz").touch()
    artifact = member("pair-a", disks=0)
    domain = replace(artifact.domain, boot=Direct(str(folder / "vmlinuz")))
    artifact = Artifact(folder, configuration, folder / "proof", domain, artifact.spec)
    whole = ApplianceEvidence("pair", members={"a": Evidence("pair-a")})
    home = tmp_path / "appliances/pair"
    home.mkdir(parents=True)

    whole.digests = whole.seal_members(home, {"a": artifact})
    whole.verdict, whole.seconds["total"] = "proven", 60.0
    whole.write(home / "proof")
    whole.write_members({"a": artifact})

    assert "../../guests/pair-a/pair-a.cfg" in whole.digests
    assert read_verdict(home).is_proven and read_verdict(folder).is_proven
    whole.verdict, whole.reason = "failed", "1 of 9 checks do not hold"
    whole.write_members({"a": artifact})
    assert read_verdict(folder).reason.endswith("appliance pair: 1 of 9 checks do not hold")
    assert read_proofs([tmp_path / "guests"]) == []
    configuration.write_text("changed")
    assert "is not what was booted" in read_verdict(home).reason
