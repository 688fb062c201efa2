"""What is said of a published guest: SBOMs, provenance, test result; what each of them holds."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from pipeline.artifact.published import Version
from pipeline.lockfile import PUBLISHED_LOCK, installed_packages, kernel_packages
from pipeline.project import Project
from pipeline.report.night_report import write_report
from pipeline.report.outcome import GuestNight, Night
from pipeline.supply.bom import CYCLONEDX, SPDX
from pipeline.supply.keys import make_key, public_key
from pipeline.supply.statements import PROVENANCE_FILE, TEST_FILE
from pipeline.supply.verification import verify_version
from tests.conftest import ROOT
from tests.host.supply_bench import GUEST, SupplyBench, statement_in
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]
SCHEMA = json.loads((ROOT / "docs/statements.schema.json").read_text())


@pytest.fixture(scope="module")
def bench(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> SupplyBench:
    return SupplyBench.of(workshop, tmp_path_factory.mktemp("supply"))


@pytest.fixture(scope="module")
def said(bench: SupplyBench) -> Mapping[str, bytes]:
    return bench.describe()


@pytest.fixture(scope="module")
def version(bench: SupplyBench, said: Mapping[str, bytes]) -> Version:
    return bench.publish(said)


def packages_of(bom: bytes) -> dict[str, dict[str, Any]]:
    """The binary packages of a CycloneDX SBOM by purl."""
    components = json.loads(bom)["components"]
    return {one["purl"]: one for one in components if "arch=source" not in one["purl"]}


def test_the_bill_holds_what_dpkg_knows_and_the_kernel(
    bench: SupplyBench, said: Mapping[str, bytes]
) -> None:
    folder = bench.source.folder
    installed = {*installed_packages(folder / "manifest"), *kernel_packages(folder / "kernel.json")}
    packages = packages_of(said[CYCLONEDX])
    assert {(one["name"], one["version"]) for one in packages.values()} == installed
    assert all(one["hashes"][0]["alg"] == "SHA-256" for one in packages.values())
    sources = {one["name"] for one in json.loads(said[CYCLONEDX])["components"]}
    assert "linux" in sources, "what a scan of the kernel asks for"


def test_the_bills_are_valid(said: Mapping[str, bytes], tmp_path: Path) -> None:
    text = said[CYCLONEDX].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    (tmp_path / "a.spdx.json").write_bytes(said[SPDX])
    assert not validate_full_spdx_document(parse_file(str(tmp_path / "a.spdx.json")))


def test_the_same_image_has_the_same_statements(
    bench: SupplyBench, said: Mapping[str, bytes]
) -> None:
    assert bench.describe() == said


def test_the_provenance_is_what_its_schema_says(
    bench: SupplyBench, said: Mapping[str, bytes]
) -> None:
    for name in (PROVENANCE_FILE, TEST_FILE):
        jsonschema.validate(statement_in(said[name]), SCHEMA)
    build = statement_in(said[PROVENANCE_FILE])["predicate"]["buildDefinition"]
    named = {one["name"]: one for one in build["resolvedDependencies"]}
    urls = {one["uri"]: one["digest"]["sha256"] for one in named.values() if "uri" in one}
    in_bill = {
        url: one["hashes"][0]["content"] for url, one in packages_of(said[CYCLONEDX]).items()
    }
    assert urls == in_bill, "one name for a package, everywhere"
    assert {"InRelease-main", "keyring.gpg", "element domu"} <= named.keys()
    assert build["externalParameters"]["spec"] == bench.source.spec


def test_the_test_result_is_the_proof(said: Mapping[str, bytes]) -> None:
    told = statement_in(said[TEST_FILE])
    assert told["predicate"]["result"] == "PASSED"
    assert told["predicate"]["passedTests"] == ["it boots"], "what was not asked did not pass"
    assert [one["name"] for one in told["predicate"]["configuration"]] == ["proof/proof.json"]
    assert {one["name"] for one in told["subject"]} >= {"disk.img", f"{GUEST}.cfg", "vmlinuz"}


def test_a_version_is_verified_without_a_network(bench: SupplyBench, version: Version) -> None:
    key = bench.site / "keys/statements.pub"
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "pipeline"]
        + ["verify", str(version.folder), f"key={key}"],
        cwd=ROOT,
        env={**os.environ, "DOMU_OUTPUT": str(bench.output)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{GUEST} is what was published" in done.stdout
    assert "proof: proven, 1 checks" in done.stdout


def test_what_is_said_again_changes_nothing_and_what_is_said_anew_is_renewed(
    bench: SupplyBench, said: Mapping[str, bytes], version: Version
) -> None:
    before = version.folder.stat().st_ino
    assert bench.publish(said).folder.stat().st_ino == before
    old = public_key(bench.site / "keys", "statements")
    keys = bench.site / "keys"
    kept = {path: path.read_bytes() for path in keys.iterdir()}
    for path in kept:
        path.unlink()
    make_key(keys, "statements", None)
    try:
        again = bench.publish(bench.describe())
        assert again.name == version.name
        verify_version(again.folder, public_key(keys, "statements"))
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    bench.publish(said)
    assert verify_version(version.folder, old).has_lock
    assert json.loads((version.folder / PUBLISHED_LOCK).read_bytes())["packages"]


def test_without_keys_there_are_bills_and_nothing_signed(
    bench: SupplyBench, said: Mapping[str, bytes]
) -> None:
    (bench.site / "keys").rename(bench.site / "other")
    try:
        unsigned = bench.describe()
    finally:
        (bench.site / "other").rename(bench.site / "keys")
    assert unsigned.keys() == {PUBLISHED_LOCK, CYCLONEDX, SPDX}
    assert unsigned[CYCLONEDX] == said[CYCLONEDX]


TRACKER = {
    "linux": {
        "CVE-2026-0001": {
            "description": "a bad one\x1b[2J",
            "releases": {"bookworm": {"status": "open", "urgency": "high"}},
        },
        "CVE-2026-0002": {
            "releases": {
                "bookworm": {"status": "resolved", "fixed_version": "0", "urgency": "high"}
            }
        },
        "CVE-2026-0003": {"releases": {"trixie": {"status": "open", "urgency": "high"}}},
    },
    "glibc": {
        "CVE-2026-0004": {
            "releases": {
                "bookworm": {"status": "resolved", "fixed_version": "9:1", "urgency": "low"}
            }
        }
    },
    "no-such-package": {
        "CVE-2026-0005": {"releases": {"bookworm": {"status": "open", "urgency": "high"}}}
    },
}


def test_a_scan_finds_what_the_tracker_says_of_this_release(
    bench: SupplyBench, version: Version, tmp_path: Path
) -> None:
    tracker = tmp_path / "tracker.json"
    tracker.write_text(json.dumps(TRACKER))
    words = [sys.executable, "-m", "pipeline", "scan", f"name={GUEST}", f"db={tracker}"]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DOMU_OUTPUT": str(bench.output), "DOMU_SITE": str(bench.site)}
        return subprocess.run(
            [*words, *more], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    done = call()
    assert done.returncode == 0, done.stderr
    found = [line.split()[1] for line in done.stdout.splitlines() if "CVE" in line]
    assert found == ["CVE-2026-0001", "CVE-2026-0004"], done.stdout
    assert "\x1b" not in done.stdout
    assert call("fail=high").returncode == 5
    told = json.loads(call("json=yes").stdout)
    assert "linux-image" in " ".join(told["findings"][0]["others"])
    web = GuestNight(GUEST, "unchanged", version.name, version.name, version.folder, version.folder)
    project = Project(ROOT, bench.output, bench.site / "guests")
    night = Night("20261129T030000Z", 1e9, 1e9 + 60, "here", (web,), tracker=tracker)
    page = write_report(project, night)
    told = json.loads((page / "report.json").read_text())
    listed = told["guests"][0]["scan"]["listed"]
    assert [entry["cve"] for entry in listed] == ["CVE-2026-0001", "CVE-2026-0004"]
    assert "2 in the security tracker" in (page / "index.html").read_text()
    tracker.write_text("[1, 2]")
    done = call()
    assert done.returncode == 1
    assert "no file of Debian's security tracker" in done.stderr
