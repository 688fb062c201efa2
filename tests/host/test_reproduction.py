"""A published version built again from what it carries: the same bytes, or where they part."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pipeline.files import digest_file
from pipeline.supply.reproduction import _describe_difference
from tests.conftest import ROOT
from tests.host.supply_bench import GUEST, SupplyBench
from tests.turns import in_turn
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]


def call(bench: SupplyBench) -> subprocess.CompletedProcess[str]:
    folders = {"DOMU_OUTPUT": str(bench.output), "DOMU_SITE": str(bench.site)}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "reproduce", f"name={GUEST}"],
        cwd=ROOT,
        env={**os.environ, **folders, "DOMU_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@in_turn("bytes", "cold, from a lock")
def test_a_version_is_built_again_cold_from_its_lock_bit_for_bit(
    workshop: Workshop, tmp_path: Path
) -> None:
    bench = SupplyBench.of(workshop, tmp_path)
    bench.publish({})
    done = call(bench)
    assert done.returncode == 2
    assert "has no lock.json" in done.stderr
    bench.publish(bench.describe())
    for name in ("cache", "locked", "identity"):
        (bench.output / name).symlink_to(bench.built / name)
    # the store is not there: nothing of it can be used, and no original be looked at
    assert not list((bench.output / "store").glob("[!.]*"))
    done = call(bench)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is reproduced" in done.stdout
    for file in ("base/base.tar", "image/golden.img", "kernel/vmlinuz", "volume/disk.img"):
        assert f"ok   {file}" in done.stdout, done.stdout
    assert "FAIL" not in done.stdout
    assert not list((bench.output / "scratch").glob("reproduce-*"))


def archive(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


def test_where_two_files_part_is_told(tmp_path: Path) -> None:
    first = archive(tmp_path / "a.tar", one=b"1" * 600, two=b"2" * 600)
    other = archive(tmp_path / "b.tar", one=b"1" * 600, two=b"2" * 599 + b"3")
    facts = {"sha256": digest_file(first)}
    text = _describe_difference(first, other, facts)
    assert text == "other bytes from byte 2647 on: two"
    more = archive(tmp_path / "c.tar", one=b"1" * 600, two=b"2" * 600, three=b"")
    assert _describe_difference(first, more, facts).endswith(": three")
    assert "no longer has" in _describe_difference(tmp_path / "gone", other, facts)
    assert "not made" in _describe_difference(first, tmp_path / "gone", facts)
