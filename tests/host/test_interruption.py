"""Interrupted in any stage: nothing mounted, looped or running, and the next run is right."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifact.sums import measure_file, read_sums
from pipeline.stages import STAGES
from tests.turns import spread

ROOT = Path(__file__).resolve().parents[2]
GUEST = "test-drbd"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
SMALL = ["size=1G", "swap=64M"]
PATIENCE_S = 240

pytestmark = [pytest.mark.integration, pytest.mark.build]


class Build:
    """`doit build` as a user starts it, in an output folder of its own."""

    def __init__(self, output: Path) -> None:
        self.output = output
        argv = [sys.executable, "-m", "pipeline", "build", f"name={GUEST}", *SMALL]
        self.process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env={**os.environ, "DOMU_OUTPUT": str(output)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, stage: str) -> None:
        """Until the stage works in its scratch folder."""
        while not list((self.output / "scratch").glob(f"{stage}-*/*")):
            assert self.process.poll() is None, f"ended before {stage}: {self.finish()}"
            time.sleep(0.005)

    def finish(self) -> str:
        """All it said, once it has ended."""
        return self.process.communicate(timeout=PATIENCE_S)[0]


@pytest.mark.parametrize("number", spread(SIGNALS, 3, {one: one.name for one in SIGNALS}))
def test_an_interruption_in_any_stage_is_harmless(tmp_path: Path, number: signal.Signals) -> None:
    for stage in STAGES:
        # made beside the stage before it, and finished before the signal came
        shutil.rmtree(tmp_path / "store" / stage.name, ignore_errors=True)
        build = Build(tmp_path)
        build.wait_for(stage.name)
        build.process.send_signal(number)
        said = build.finish()
        print(f"{number.name} in {stage.name}", flush=True)
        if number == signal.SIGKILL:
            assert build.process.returncode == -signal.SIGKILL
        else:
            assert build.process.returncode == 130, said
            assert "interrupted" in said
            assert "Traceback" not in said
            assert not list((tmp_path / "scratch").iterdir())
    last = Build(tmp_path)
    said = last.finish()
    assert last.process.returncode == 0, said
    assert not list((tmp_path / "scratch").iterdir())
    folder = tmp_path / "guests" / GUEST
    check = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True
    )
    assert check.returncode == 0, check.stdout
    disks = read_sums((folder / "FSVERITY").read_text())
    assert disks == {name: measure_file(folder / name) for name in ("disk.img", "swap.img")}
    again = Build(tmp_path)
    assert " built " not in again.finish()
