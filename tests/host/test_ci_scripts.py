"""ci/build: what it asks of doit, what it leaves, and that nothing of yesterday stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration

# builds and proves a guest of one file; web-bad cannot be built, web-sick is not what it should be
DOIT = """#!/bin/sh
echo "$PWD: $*" >>"${0%/*}/calls"
guest=${2#name=}
case $1 in
build) mkdir -p "${0%/*}/output/guests/$guest" && echo a >"${0%/*}/output/guests/$guest/disk.img"
       [ "$guest" != web-bad ] || exit 1 ;;
prove) echo '{}' && [ "$guest" != web-sick ] || exit 5 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    (folder / "ci").mkdir(parents=True)
    shutil.copy(ROOT / "ci/build", folder / "ci")
    (folder / "doit").write_text(DOIT)
    (folder / "doit").chmod(0o755)
    (folder / "ci-output").mkdir()
    return folder


def build(checkout: Path, *words: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [checkout / "ci/build", *words],
        cwd=checkout.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def left(checkout: Path) -> set[str]:
    return {path.name for path in (checkout / "ci-output").iterdir()}


def test_a_red_build_leaves_nothing_of_the_one_before(checkout: Path) -> None:
    for name in ("web-bad.tar", "web-bad-logs.tar.gz", "web-bad-proof.json", "events.jsonl"):
        (checkout / "ci-output" / name).write_text("yesterday's")
    assert build(checkout, "web-bad")[0] == 1
    assert left(checkout) == set()


def test_a_green_build_leaves_the_artifact_and_is_about_the_callers_folder(checkout: Path) -> None:
    code, said = build(checkout, "web1", "authorized_keys=k.pub")
    assert code == 0, said
    with tarfile.open(checkout / "ci-output/web1.tar") as archive:
        assert "web1/disk.img" in archive.getnames()
    calls = (checkout / "calls").read_text()
    assert calls.startswith(f"{checkout.parent}: build name=web1 events={checkout}/ci-output/")
    assert calls.endswith(" authorized_keys=k.pub\n")


def test_with_a_proof_a_guest_that_fails_it_is_no_artifact(checkout: Path) -> None:
    assert build(checkout, "web1", CI_PROVE="yes")[0] == 0
    assert left(checkout) == {"web1.tar", "web1-proof.json"}
    assert build(checkout, "web-sick", "size=8G", CI_PROVE="yes")[0] == 5
    assert left(checkout) == {"web1.tar", "web1-proof.json", "web-sick-proof.json"}
    assert "prove name=web-sick prove_as_is=yes json=yes" in (checkout / "calls").read_text()


@pytest.mark.parametrize("words", [(), ("",), ("../web1",), ("--help",), ("name=web1",)])
def test_without_a_guest_it_says_how_it_is_used(checkout: Path, words: tuple[str, ...]) -> None:
    (checkout / "web1.tar").write_text("")
    code, said = build(checkout, *words)
    assert code == 2
    assert said.startswith("usage: ci/build GUEST")
    assert (checkout / "web1.tar").exists()
    assert not (checkout / "calls").exists()
