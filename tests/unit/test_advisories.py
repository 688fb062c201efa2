"""Xen's advisories by the versions of Debian's packages, and the reboot that waits."""

import gzip
from pathlib import Path

import pytest

from pipeline.dom0.doctor.advisories import (
    TABLE,
    Builds,
    find_advisory_trouble,
    read_builds,
    read_table,
)
from tests.xen_uploads import read_uploads

NEWEST = "4.17.7+13-g2445b30a44-0+deb12u1"
BEFORE = "4.17.7-0+deb12u1"
INFO = {
    "cc_compile_domain": "lists.alioth.debian.org",
    "cc_compile_date": "Sat Aug  1 13:23:03 UTC 2026",
}
CHANGELOG = """xen (4.17.7-0+deb12u1) bookworm-security; urgency=medium

  * Update to new upstream version 4.17.7, which also contains
    security fixes for the following issues:
     - x86: buffer overrun with shadow paging + tracing
       XSA-477 CVE-2025-58150
     - pygrub: security-supported only when run de-privileged
       XSA-508
   * Note that the following XSA are not listed, because...
     - XSA-478 applies to XAPI which is not included in Debian

 -- A Person <a@example.org>  Sat, 01 Aug 2026 15:23:03 +0200

xen (4.17.5-1) unstable; urgency=medium

  * Nothing of note.

 -- A Person <a@example.org>  Sat, 29 Nov 2025 14:52:25 +0100

xen (4.16.2-1) unstable; urgency=medium

  * Of another branch.
      XSA-400 CVE-2022-26358

 -- A Person <a@example.org>  Sat, 27 Aug 2022 14:52:25 +0100
"""


def host(root: Path, **packages: str) -> Path:
    """A host with these versions of hypervisors, and the file in /boot that goes with the last."""
    status = root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    for branch, version in packages.items():
        branch = branch.replace("_", ".").removeprefix("xen")
        with status.open("a") as stream:
            for name in (f"xen-hypervisor-{branch}-amd64", f"xen-utils-{branch}"):
                stream.write(
                    f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n"
                )
        (root / "boot").mkdir(exist_ok=True)
        content = b"\x7fELF...\0Wed Nov  4 16:52:28 UTC 2026\x0016:52:28\0Debian\0"
        (root / f"boot/xen-{branch}-amd64.gz").write_bytes(gzip.compress(content))
    return root


def say(builds: Builds) -> dict[str, str]:
    found = list(find_advisory_trouble(builds))
    assert all(finding.hint for finding in found)
    return {finding.code: f"{finding.level}: {finding.message}" for finding in found}


def test_a_changelog_says_what_each_upload_fixed() -> None:
    assert list(read_uploads(CHANGELOG)) == [
        "4.17.5-1 2025-11-29T13:52:25Z",
        "4.17.7-0+deb12u1 2026-08-01T13:23:03Z 477 508",
    ]


def test_the_table_is_in_order_and_has_the_branches_of_three_releases() -> None:
    assert list(read_table()) == ["4.14", "4.17", "4.20"]
    for uploads in read_table().values():
        dates = [upload.date for upload in uploads]
        assert dates == sorted(dates)
        assert any(upload.advisories for upload in uploads)
    assert 508 in {number for one in read_table()["4.17"] for number in one.advisories}
    assert TABLE.read_text().count("\n") == sum(map(len, read_table().values()))


def test_an_updated_host_that_runs_what_it_has_is_told_nothing(tmp_path: Path) -> None:
    info = {**INFO, "cc_compile_date": "Wed Nov  4 16:52:28 UTC 2026"}
    builds = read_builds(host(tmp_path, xen4_17=NEWEST), info)
    assert builds.running == builds.booted == "2026-11-04T16:52:28Z"
    assert say(builds) == {}
    assert say(read_builds(tmp_path / "elsewhere", {})) == {}


@pytest.mark.parametrize(
    ("version", "count", "oldest"),
    [
        (BEFORE, 10, "XSA-509"),
        ("4.17.5+72-g01140da4e8-1", 34, ""),
        ("4.17.3+10-g091466ba55-1~deb12u1", 54, ""),
        ("4.17.7+5-g0123456789-1~bpo", 10, "XSA-509"),
    ],
)
def test_an_older_package_is_told_what_it_lacks(version: str, count: int, oldest: str) -> None:
    builds = Builds(branch="4.17", installed={"xen-hypervisor-4.17-amd64": version})
    (said,) = say(builds).values()
    assert said.startswith(f"error: xen-hypervisor-4.17-amd64 {version} lacks what {NEWEST} fixes")
    left = f" and {count - 12} older ones" if count > 12 else ""
    assert said.endswith(f"XSA-523{left}")
    assert oldest in said


def test_the_oldest_of_the_packages_counts() -> None:
    both = {"xen-hypervisor-4.17-amd64": NEWEST, "xen-utils-4.17": BEFORE}
    assert "xen-utils-4.17 4.17.7-0" in say(Builds(branch="4.17", installed=both))["advisories"]


def test_an_update_that_apt_knows_and_the_table_does_not(tmp_path: Path) -> None:
    root = host(tmp_path, xen4_17=NEWEST)
    lists = root / "var/lib/apt/lists/example_dists_bookworm_main_binary-amd64_Packages"
    lists.parent.mkdir(parents=True)
    stanza = "Package: xen-hypervisor-4.17-amd64\nVersion: {}\n\n"
    lists.write_text("Package: a\n\n" + stanza.format(BEFORE) + stanza.format("4.17.8-0+deb12u1"))
    builds = read_builds(root, {})
    assert builds.offered == "4.17.8-0+deb12u1"
    assert say(builds)["advisories"].endswith(f"{NEWEST} lacks what 4.17.8-0+deb12u1 fixes")
    lists.write_text(stanza.format(NEWEST))
    assert say(read_builds(root, {})) == {}


def test_a_branch_that_debian_left() -> None:
    builds = Builds(branch="4.14", installed={"xen-hypervisor-4.14-amd64": "4.14.6-1"})
    assert "4.14 is of 21 September 2023" in say(builds)["support"]


def test_an_updated_host_that_was_not_rebooted(tmp_path: Path) -> None:
    root = host(tmp_path, xen4_14="4.14.6-1", xen4_17=NEWEST)
    said = say(read_builds(root, INFO))
    assert list(said) == ["reboot"]
    assert "built on 2026-08-01, the one in /boot on 2026-11-04" in said["reboot"]
    assert said["reboot"].startswith("error") and "XSA-509" in said["reboot"]
    assert "XSA-508" not in said["reboot"]
    own = {**INFO, "cc_compile_domain": "example.org"}
    assert say(read_builds(root, own)) == {}, "an administrator's own Xen was judged"
    (root / "boot/xen-4.17-amd64.gz").write_bytes(b"\x1f\x8b\x08 cut short")
    (root / "boot/xen-4.14-amd64.gz").write_bytes(gzip.compress(b"no date"))
    assert say(read_builds(root, INFO)) == {}
