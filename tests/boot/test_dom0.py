"""The project runs in the test host's own dom0: what others build their end-to-end tests on."""

import json
import shlex
from pathlib import Path

import pytest

from pipeline.artifact.sums import measure_file
from tests.boot.conftest import Prover
from tests.conftest import ROOT
from tests.dom0 import CARRIED, EMPTY_DISK, running_dom0
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(1800)]


@in_turn("boot", "the project in a dom0")
def test_the_project_runs_in_a_real_dom0_with_its_own_volume_group(
    workshop: Workshop, tmp_path: Path
) -> None:
    with running_dom0(workshop, tmp_path) as dom0:
        assert "Domain-0" in dom0.demand("xl list")
        listed = dom0.doit("list")
        assert listed.status == 0, listed.output
        assert "boot under real Xen" in listed.output

        dom0.demand(f"vgcreate VG0 {EMPTY_DISK}")
        dom0.demand("lvcreate -y -L 64M -n test-drbd-disk VG0")
        dom0.demand("mke2fs -q -t ext4 /dev/VG0/test-drbd-disk")
        dom0.demand("lvcreate -y --type thin-pool -L 256M -n pool VG0")
        dom0.demand("lvcreate -y -V 1G -T VG0/pool -n thin")
        assert "thin" in dom0.demand("lvs --noheadings -o lv_name VG0")


@in_turn("boot", "a proof by xl in a dom0")
def test_a_guest_is_proven_by_the_xl_of_the_dom0_that_the_project_runs_in(
    prover: Prover, tmp_path: Path
) -> None:
    folder = prover.build("test-drbd")
    output = prover.workshop.output
    carry = [*(output / name for name in ("guests", "volumes", "identity")), prover.key.parent]
    with running_dom0(prover.workshop, tmp_path, carry=carry) as dom0:
        words = ["prove", "name=test-drbd", "prove_with=xl", f"authorized_keys={prover.key}.pub"]

        refused = dom0.doit(*words)
        assert refused.status == 3, refused.output
        assert "no bridge br-xen" in refused.output

        dom0.make_bridge()
        # /tmp is dom0's memory: too little for a disk's copy
        scratch = output / "scratch"
        dom0.demand(
            f"mkdir -p {CARRIED}/scratch {scratch} && mount --bind {CARRIED}/scratch {scratch}"
        )
        kernel = next(folder.glob("vmlinuz*"))
        busy = f'name="test-drbd"\nkernel="{kernel}"\nmemory=128\n'
        dom0.agent.write("/run/busy.cfg", busy.encode())
        dom0.demand("xl create -p /run/busy.cfg")
        refused = dom0.doit(*words)
        assert refused.status == 4, refused.output
        assert "a guest named test-drbd runs here" in refused.output
        dom0.demand("xl destroy test-drbd")
        assert dom0.run(f"test -e {folder}/proof").status, "a refusal is no proof"

        proven = dom0.doit(*words, f"prove_key={prover.key}", timeout_s=1800)
        assert proven.status == 0, proven.output + dom0.run(f"cat {folder}/proof/proof.json").output
        record = json.loads(dom0.demand(f"cat {folder}/proof/proof.json"))
        assert record["verdict"] == "proven"
        assert record["facts"]["proven with"] == "xl"
        held = {check["name"] for check in record["checks"] if check["ok"]}
        assert {"SSH with the key", "address by DHCP", "uname -r", "xl shutdown"} <= held
        unasked = {check["name"] for check in record["checks"] if check["ok"] is None}
        assert unasked == {"name service", "apt-get update"}
        assert dom0.demand("xl list | tail -n +2 | wc -l").strip() == "1", "a guest is left"
        assert dom0.demand("losetup -a") == ""
        assert "prove-" not in dom0.demand("cat /proc/mounts"), "a disk's copy is still mounted"
        assert dom0.demand(f"ls {scratch}").strip() == ""
        verdict = f"from pipeline.proof import seals; v = seals.read_verdict(Path('{folder}'))"
        script = f"from pathlib import Path; {verdict}; print(v.reason or 'proven')"
        told = dom0.demand(f"cd {ROOT} && .venv/bin/python -c {shlex.quote(script)}")
        assert told.strip() == "proven", "the proof changed the artifact"
        assert record["digests"]["disk.img"]["digest"] == measure_file(folder / "disk.img")
