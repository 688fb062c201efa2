"""ci/build: what it asks of doit, what it leaves, and that nothing of yesterday stays."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration

# builds and judges a guest of one file; web-bad cannot be built, web-odd fails a check, web-sick
# its proof
DOIT = """#!/bin/sh
echo "$PWD: $*" >>"${0%/*}/calls"
guest=${2#name=}
for word; do case $word in junit=*) report=${word#junit=} ;; esac; done
judge() {
    echo "{}"
    case $guest in $1) failed='<failure message="a | b">x</failure>' ;; *) failed='' ;; esac
    echo "<testsuites><testsuite name='$guest' tests='2' failures='0' skipped='0'>
        <testcase classname='$guest.check' name='fine'/>
        <testcase classname='$guest.check' name='&lt;b&gt;'>$failed</testcase>
        </testsuite></testsuites>" >"$report"
    [ -z "$failed" ] || exit 5
}
case $1 in
build) mkdir -p "${0%/*}/output/guests/$guest" && echo a >"${0%/*}/output/guests/$guest/disk.img"
       [ "$guest" != web-bad ] || exit 1 ;;
check) judge web-odd ;;
prove) judge web-sick ;;
publish) [ "$guest" != web-full ] || exit 3
         cd "${0%/*}/output" && mkdir -p "published/$guest/1"
         cp "guests/$guest"/* "published/$guest/1"
         ln -sfn 1 "published/$guest/current" && echo '{}' >"published/$guest/1/sbom.cdx.json" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    (folder / "ci").mkdir(parents=True)
    for name in ("build", "summary"):
        shutil.copy(ROOT / "ci" / name, folder / "ci")
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
    old = ("web-bad.tar", "web-bad-logs.tar.gz", "web-bad-proof.xml", "web-bad-sbom.cdx.json")
    for name in (*old, "web-bad-check.xml", "events.jsonl"):
        (checkout / "ci-output" / name).write_text("yesterday's")
    assert build(checkout, "web-bad")[0] == 1
    assert left(checkout) == set()


def test_a_green_build_leaves_the_artifact_and_is_about_the_callers_folder(checkout: Path) -> None:
    code, said = build(checkout, "web1", "authorized_keys=k.pub", "replace=yes", "size=8 G")
    assert code == 0, said
    with tarfile.open(checkout / "ci-output/web1.tar") as archive:
        assert {"web1/disk.img", "web1/sbom.cdx.json"} <= set(archive.getnames())
    built, checked, published = (checkout / "calls").read_text().splitlines()
    assert built.startswith(f"{checkout.parent}: build name=web1 events={checkout}/ci-output/")
    assert built.endswith(" authorized_keys=k.pub replace=yes size=8 G")
    assert checked.startswith(f"{checkout.parent}: check name=web1 json=yes junit={checkout}/")
    assert checked.endswith(" authorized_keys=k.pub size=8 G")
    assert published.endswith(" unproven=yes")


def test_a_guest_that_fails_a_check_or_its_proof_is_no_artifact(checkout: Path) -> None:
    checked = {"web1.tar", "web1-sbom.cdx.json", "web1-check.json", "web1-check.xml"}
    proven = {*checked, "web1-proof.json", "web1-proof.xml"}
    assert build(checkout, "web1")[0] == 0
    assert left(checkout) == checked
    assert build(checkout, "web1", CI_PROVE="yes", CI_PASSPHRASE_FILE="a word")[0] == 0
    assert left(checkout) == proven
    assert (checkout / "calls").read_text().endswith("/events.jsonl passphrase=a word\n")
    assert build(checkout, "web-odd", CI_PROVE="yes")[0] == 5
    odd = {"web-odd-check.json", "web-odd-check.xml"}
    assert left(checkout) == proven | odd
    assert build(checkout, "web-sick", "size=8G", CI_PROVE="yes")[0] == 5
    assert "web-sick.tar" not in left(checkout)
    assert "prove name=web-sick json=yes junit=" in (checkout / "calls").read_text()


def test_what_cannot_be_published_is_no_artifact(checkout: Path) -> None:
    assert build(checkout, "web-full")[0] == 3
    assert left(checkout) == {"web-full-check.json", "web-full-check.xml"}


def test_a_summary_shows_what_failed_first_and_nothing_as_markup(checkout: Path) -> None:
    assert build(checkout, "web-odd")[0] == 5
    summary = [checkout / "ci/summary"]
    done = subprocess.run(summary, capture_output=True, text=True, check=True)
    title, _, _, _, first, second, _ = done.stdout.splitlines()
    assert title.startswith("### web-odd: web-odd.check, 2 tests, ")
    assert first == "| **failed** | &#60;b&#62; | a &#124; b |"
    assert second == "| ok | fine |  |"
    (checkout / "ci-output/web-odd-check.xml").unlink()
    assert subprocess.run(summary, capture_output=True, check=True).stdout == b""


@pytest.mark.parametrize("words", [(), ("",), ("../web1",), ("--help",), ("name=web1",)])
def test_without_a_guest_it_says_how_it_is_used(checkout: Path, words: tuple[str, ...]) -> None:
    (checkout / "web1.tar").write_text("")
    code, said = build(checkout, *words)
    assert code == 2
    assert said.startswith("usage: ci/build GUEST")
    assert (checkout / "web1.tar").exists()
    assert not (checkout / "calls").exists()
