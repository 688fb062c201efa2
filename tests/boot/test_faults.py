"""Each image is built wrong on purpose and booted: the person is told what is wrong with it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import Broken, GuestFailed
from pipeline.proof.names import FOLDER, PROOF
from pipeline.proof.session import Session
from pipeline.proof.testhost import ensure_host
from tests.boot.conftest import Prover
from tests.boot.faults import Faulty, copy_artifact
from tests.conftest import ROOT, require
from tests.leaks import take_stock
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(3000)]


def spoil(prover: Prover, tmp_path: Path, name: str = "test-drbd") -> Faulty:
    return copy_artifact(prover.build(name), tmp_path / name)


def diagnose(prover: Prover, faulty: Faulty) -> GuestFailed:
    """Prove it, see it fail, and that everything a person needs is told and recorded."""
    with pytest.raises(GuestFailed) as caught:
        prover.prove_foreign(faulty.configuration)
    record = json.loads(
        (prover.workshop.output / "proofs" / faulty.name / FOLDER / PROOF).read_bytes()
    )
    assert record["verdict"] == "failed"
    assert record["causes"], record["reason"]
    assert caught.value.hint == f"likely cause: {'; '.join(record['causes'])}"
    print(f"{caught.value}\n{caught.value.details}\n{caught.value.hint}\n{record['seconds']}")
    return caught.value


@in_turn("fault", "no PVH note")
def test_a_kernel_without_the_pvh_note(prover: Prover, tmp_path: Path) -> None:
    faulty = spoil(prover, tmp_path).without_pvh_note()

    told = diagnose(prover, faulty)

    assert "the kernel has no PVH note" in told.hint
    assert "xl create ended with status" in told.brief


@in_turn("fault", "root= names no disk")
def test_a_root_that_names_no_disk(prover: Prover, tmp_path: Path) -> None:
    faulty = spoil(prover, tmp_path).rewrite('"/dev/xvda1 ro"', '"/dev/xvdz9 ro rootdelay=5"')

    told = diagnose(prover, faulty)

    assert "root= does not name the disk's vdev: it says /dev/xvdz9" in told.hint
    assert "xvda1" in told.hint
    assert "  | initrd: root device /dev/xvdz9 did not appear" in told.details


@in_turn("fault", "no disk driver")
def test_an_initrd_without_the_disk_driver(prover: Prover, tmp_path: Path) -> None:
    faulty = spoil(prover, tmp_path).without_disk_driver()
    faulty.rewrite('"/dev/xvda1 ro"', '"/dev/xvda1 ro rootdelay=5"')

    told = diagnose(prover, faulty)

    assert "the initrd holds no xen-blkfront" in told.hint


@in_turn("fault", "LZ4 and PV GRUB")
def test_an_lz4_kernel_with_pv_grub(prover: Prover, tmp_path: Path) -> None:
    cloud = prover.build("test-drbd") / "vmlinuz"
    kinds = Workshop(prover.workshop.output, ROOT / "tests/boot/guests")
    faulty = spoil(replace(prover, workshop=kinds), tmp_path, "pv-grub")
    (kernel,) = [name for name in faulty.list_boot() if name.startswith("vmlinuz-")]
    faulty.debugfs(f"rm /boot/{kernel}", f'write "{cloud}" /boot/{kernel}')

    told = diagnose(prover, faulty)

    assert "GRUB for Xen cannot unpack this kernel (LZ4" in told.hint


@in_turn("fault", "a renamed card")
def test_a_card_that_was_renamed(prover: Prover, tmp_path: Path) -> None:
    network = tmp_path / "network"
    network.write_text("[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n")
    path = "/etc/systemd/network/10-card0.network"
    faulty = spoil(prover, tmp_path).debugfs(f"rm {path}", f'write "{network}" {path}')

    told = diagnose(prover, faulty)

    assert "the card was renamed: udev calls it enX0" in told.hint
    assert re.search(r"FAIL address by DHCP +nothing", told.details)


@in_turn("fault", "no getty")
def test_no_getty_on_the_console(prover: Prover, tmp_path: Path) -> None:
    unit = "/etc/systemd/system/serial-getty@hvc0.service"
    faulty = spoil(prover, tmp_path).debugfs(f'symlink "{unit}" /dev/null')

    told = diagnose(prover, faulty)

    assert "no getty runs on hvc0" in told.hint


@in_turn("fault", "a dead test host")
def test_a_test_host_that_dies_is_broken_and_says_nothing_about_the_guest(prover: Prover) -> None:
    folder = prover.build("test-drbd")
    before = take_stock().processes
    ended = threading.Event()
    killer = threading.Thread(target=_kill_qemu, args=(prover, before, ended))
    killer.start()

    with pytest.raises(Broken) as caught:
        prover.prove(prover.spec("test-drbd"))

    ended.set()
    killer.join()
    assert caught.value.exit_code == 3
    assert "QEMU ended" in caught.value.brief
    assert json.loads((folder / FOLDER / PROOF).read_bytes())["verdict"] == "broken"


def _kill_qemu(prover: Prover, before: frozenset[str], ended: threading.Event) -> None:
    """The QEMU that this proof started, once it has created the guest's disks."""
    scratch = prover.workshop.output / "scratch"
    while not ended.wait(0.2):
        new = [entry.split() for entry in take_stock().processes - before]
        qemu = [int(pid) for pid, name in new if name.startswith("qemu-system")]
        if qemu and any(scratch.glob("prove-*/disk0.qcow2")):
            os.kill(qemu[0], signal.SIGKILL)
            return


@in_turn("fault", "an agent that stands still")
def test_an_agent_that_stands_still_is_broken(
    prover: Prover, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Session.create

    def create_and_stop_the_agent(session: Session) -> None:
        create(session)
        session.host.agent.run(["sh", "-c", "(sleep 1; kill -STOP $PPID) >/dev/null 2>&1 &"])

    monkeypatch.setattr(Session, "create", create_and_stop_the_agent)
    prover.build("test-drbd")

    with pytest.raises(Broken) as caught:
        prover.prove(prover.spec("test-drbd"))

    assert "the test host did not answer within" in str(caught.value), caught.value.details


@in_turn("fault", "a full disk")
def test_a_full_disk_is_the_machines_fault(prover: Prover) -> None:
    require(os.geteuid() == 0, "a small file system for the test is mounted as root")
    prover.build("test-drbd")
    ensure_host(prover.recipe, prover.spec("test-drbd"))
    scratch = prover.workshop.output / "scratch"
    words = [sys.executable, "-m", "doit", "prove", "name=test-drbd"]
    words += [f"authorized_keys={prover.key}.pub"]
    script = 'mount -t tmpfs -o size=12M tmpfs "$1" && shift && exec "$@"'
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*private, scratch, *words],
        cwd=ROOT,
        env=prover.workshop.environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 3, done.stdout + done.stderr
    assert "no space left" in (done.stdout + done.stderr).lower(), done.stdout + done.stderr
    assert "likely cause" not in done.stdout + done.stderr
