"""What a guest lives through, and what is seen of it on its console and its screen."""

import struct
from pathlib import Path

import pytest

from pipeline.errors import Finding
from pipeline.proof.evidence import Evidence
from pipeline.proof.names import FOLDER, SCREENSHOT
from pipeline.proof.session import Asked
from tests.boot.conftest import Prover
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(6000)]
SPEC = 'suite = "bookworm"\nvnc = true\n'


def by_name(evidence: Evidence) -> dict[str, Finding]:
    return {check.subject: check for check in evidence.checks}


@pytest.fixture
def screened(prover: Prover, tmp_path: Path) -> Prover:
    """A prover with guests that have a screen and a password: one display fixed, one free."""
    guests = tmp_path / "guests"
    guests.mkdir()
    (guests / "free.toml").write_text(SPEC)
    (guests / "fixed.toml").write_text(f"{SPEC}vncdisplay = 3\n")
    return Prover(Workshop(prover.workshop.output, guests), prover.key)


@in_turn("boot", "the screen and the console")
@pytest.mark.parametrize(("name", "port"), [("fixed", "port 5903"), ("free", "port 5900")])
def test_the_screen_is_seen_and_root_enters_on_the_console(
    screened: Prover, tmp_path: Path, name: str, port: str
) -> None:
    secret = tmp_path / "password"
    secret.write_text("sesame-42\n")
    folder = screened.build(name, root_password_file=str(secret))
    spec = screened.spec(name, root_password_file=str(secret))

    evidence = screened.prove(spec, Asked(screened.key, password=secret))

    assert evidence.verdict == "proven"
    seen = by_name(evidence)
    assert seen["root's login on hvc0"].seen == "a shell"
    assert seen["VNC display"].seen == port
    assert seen["VNC shows the screen"].level == "ok"
    picture = (folder / FOLDER / SCREENSHOT).read_bytes()
    assert struct.unpack(">II", picture[16:24]) == (800, 600)
    assert "sesame-42" not in (folder / FOLDER / "proof.json").read_text()
    assert "sesame-42" not in evidence.console


@in_turn("boot", "saved, restored, rebooted")
def test_a_guest_is_saved_restored_and_rebooted(prover: Prover) -> None:
    prover.build("test-drbd")

    evidence = prover.prove(prover.spec("test-drbd"), Asked(prover.key, thorough=True))

    assert evidence.verdict == "proven"
    seen = by_name(evidence)
    assert {name for name, check in seen.items() if check.level == "ok"} >= {
        "save and restore",
        "the SSH connection survives",
        "reboot",
        "xl shutdown",
    }
    assert "package lists" in seen["apt-get update"].expected


@in_turn("boot", "the kernel that a guest installed")
def test_a_pygrub_guest_boots_the_kernel_that_was_installed_in_it(prover: Prover) -> None:
    prover.build("pygrub")

    evidence = prover.prove(prover.spec("pygrub"), Asked(prover.key, thorough=True))

    assert evidence.verdict == "proven"
    seen = by_name(evidence)
    assert seen["live migration"].level == "skipped"
    assert seen["save and restore"].level == "ok"
    installed = seen["apt-get install linux-image-cloud-amd64"]
    assert installed.level == "ok", installed.seen
    assert seen["uname -r after the reboot"].seen == installed.seen != seen["uname -r"].seen
