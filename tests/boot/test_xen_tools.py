"""The line that everybody knows, with a suite of today: built by bin/xen-create-image, proven."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.boot.conftest import Prover
from tests.conftest import ROOT
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.build,
    in_turn("boot", "the line of 2009"),
    pytest.mark.timeout(3000),
]

LINE = """\
xen-create-image --hostname seed --kernel {boot}/vmlinuz-{abi}
  --initrd {boot}/initrd.img-{abi} --modules {boot}/lib/modules/{abi}
  --dist bookworm
  --dhcp  --dir /srv/xen --size 4G
  --role udev"""


@pytest.fixture
def boot(prover: Prover, tmp_path: Path) -> tuple[Path, str]:
    """A dom0's /boot and modules, and the kernel's version."""
    prover.build("test-drbd")
    for told in prover.workshop.output.glob("store/kernel/*/kernel.json"):
        facts = json.loads(told.read_text())
        if facts["source"] == "linux-image-cloud-amd64" and facts["abi"].startswith("6.1."):
            for name in ("vmlinuz", "initrd.img"):
                (tmp_path / f"{name}-{facts['abi']}").write_bytes((told.parent / name).read_bytes())
            unpack: list[str | Path] = ["tar", "-C", tmp_path, "-xf", told.parent / "modules.tar"]
            subprocess.run(unpack, check=True)
            return tmp_path, facts["abi"]
    raise AssertionError("no kernel of bookworm in the store")


def test_the_line_of_2009_makes_a_bookworm_guest_that_is_pvh_and_boots(
    prover: Prover, boot: tuple[Path, str], tmp_path: Path
) -> None:
    folder, abi = boot
    guests = tmp_path / "guests"
    guests.mkdir()
    shop = Workshop(prover.workshop.output, guests)
    program, *words = LINE.format(boot=folder, abi=abi).split()
    made = subprocess.run(
        [ROOT / "bin" / program, *words],
        env=shop.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "can be entered as PVH" in made.stdout
    assert 'type = "pvh"' in (guests / "seed.toml").read_text()
    proven = shop.doit("prove", "name=seed")
    assert proven.code == 0, proven.said
    assert "seed is proven" in proven.said
