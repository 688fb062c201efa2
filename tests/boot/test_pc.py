"""A full PC's screen, and what its firmware starts besides its own disk: the network, a CD."""

from pathlib import Path

import pytest

from pipeline.errors import Finding, GuestFailed
from pipeline.proof.evidence import Evidence
from pipeline.proof.names import FOLDER, SCREENSHOT
from pipeline.proof.session import Asked
from tests.boot.bootable_cd import make_cd
from tests.boot.conftest import Prover
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.build,
    pytest.mark.timeout(3000),
    in_turn("boot", "a screen, the network and a CD of an HVM"),
]
PC = 'suite = "bookworm"\ntype = "hvm"\nboot = "firmware"\nvnc = true\nmemory = "384M"\n'
LINE = "this line is written by the boot sector of a CD"


@pytest.fixture
def pcs(prover: Prover, tmp_path: Path) -> Prover:
    """A prover of PCs that differ in what they start from; one CD is blank."""
    guests = tmp_path / "guests"
    guests.mkdir()
    cd, blank = make_cd(tmp_path / "system.iso", LINE), make_cd(tmp_path / "blank.iso")
    keys = {
        "hvm-screen": f'boot_order = "cd"\ncdrom = "{cd}"\n',
        "hvm-net": 'boot_order = "n"\n',
        "hvm-cd": f'boot_order = "d"\ncdrom = "{cd}"\n',
        "hvm-blank": f'boot_order = "dc"\ncdrom = "{blank}"\n',
    }
    for name, text in keys.items():
        (guests / f"{name}.toml").write_text(PC + text)
    return Prover(Workshop(prover.workshop.output, guests), prover.key)


def prove(pcs: Prover, name: str) -> dict[str, Finding]:
    pcs.build(name)
    return by_name(pcs.prove(pcs.spec(name), Asked()))


def by_name(evidence: Evidence) -> dict[str, Finding]:
    assert evidence.verdict == "proven"
    return {check.subject: check for check in evidence.checks}


def test_the_screen_of_a_pc_that_boots_from_its_disk_is_seen(pcs: Prover) -> None:
    seen = prove(pcs, "hvm-screen")

    assert seen["VNC shows the screen"].level == "ok"
    assert {"login prompt on hvc0", "SSH with the key", "xl shutdown"} <= set(seen)


def test_a_pc_starts_from_the_network(pcs: Prover) -> None:
    seen = prove(pcs, "hvm-net")

    assert seen["address by DHCP"].seen.startswith("10.77.0.")
    assert seen["TFTP"].seen == "netboot.ipxe"
    screen = seen["VNC shows that it starts from the network"]
    mac = pcs.spec("hvm-net").cards[0].mac.lower()
    assert f"domu: 10.77.0.1 gave this script to {mac}" in screen.seen
    assert seen["xl shutdown"].level == "skipped"


def test_a_pc_starts_from_its_cd(pcs: Prover) -> None:
    seen = prove(pcs, "hvm-cd")

    screen = seen["VNC shows that it starts from the CD"]
    assert LINE in screen.seen
    assert (pcs.workshop.output / "guests/hvm-cd" / FOLDER / SCREENSHOT).is_file()
    assert seen["SSH with the key"].level == "skipped"


def test_a_cd_that_nothing_starts_from_fails_the_proof(pcs: Prover) -> None:
    pcs.build("hvm-blank")

    with pytest.raises(GuestFailed, match="do not hold") as failure:
        pcs.prove(pcs.spec("hvm-blank"), Asked())

    assert "Boot failed" in failure.value.details
