"""A night's report: what changed between two versions, and a page that any browser shows."""

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.project import Project
from pipeline.report.night_report import write_report
from pipeline.report.outcome import Fault, GuestNight, Night
from tests.browser import Browser, browser
from tests.conftest import require
from tests.host.night_versions import EPOCH, Kept, changelog, make_version

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
CVE = "CVE-2026-33333"
V1, V2 = "20261128T030000Z-aaaaaaaa", "20261129T030000Z-bbbbbbbb"
EVIL = "<script>document.title='evil'</script><img src=http://127.0.0.1:9/x>\u202e"
BOMB = gzip.compress(bytes(40 << 20))
TONIGHT = 1_795_900_000.0


def packages_before() -> list[Kept]:
    return [
        Kept("tool", "1.0-1", files={"/usr/bin/tool": b"1" * 5000, "/usr/bin/old": b"x"}),
        Kept("libtool0", "1.0-1", "tool", {"/lib/libtool.so": b"1" * 900}),
        Kept("rebuilt", "2-1+b1", "rebuilt (2-1)"),
        Kept("gone", "1", files={"/usr/bin/gone": b"g"}),
        *(Kept(name, "1") for name in ("bomb", "nodeb", "steered", "missing", "nodocs")),
        Kept("evil", "1"),
    ]


def packages_after() -> list[Kept]:
    fixed = changelog(
        ("1.0-3", "CVE-2026-11111: reads too far."),
        ("1.0-2", "CVE-2026-22222 and CVE-2026-22222 again."),
        ("1.0-1", "CVE-2020-1000: long ago."),
        source="tool",
    )
    docs = {"changelog.Debian.gz": fixed}
    return [
        Kept("tool", "1.0-3", files={"/usr/bin/tool": b"2" * 7000}, docs=docs),
        Kept("libtool0", "1.0-3", "tool", {"/lib/libtool.so": b"2" * 900}, docs_at="tool"),
        Kept(
            "rebuilt",
            "2-1+b2",
            "rebuilt (2-1)",
            docs={
                "changelog.Debian.gz": changelog(("2-1", "as before")),
                "changelog.Debian.amd64.gz": changelog(("2-1+b2", "built against new libtool")),
            },
        ),
        Kept("new", "1", files={"/usr/bin/new": b"n" * 3000}),
        Kept("bomb", "2", docs={"changelog.gz": BOMB}),
        Kept("nodeb", "2", deb=b"!<arch>\nnothing"),
        Kept("steered", "2", docs_at="../../../etc"),
        Kept("missing", "2"),
        Kept("nodocs", "2"),
        Kept("evil", "2", docs={"changelog.gz": changelog(("2", f"{EVIL} \x1b[2J {CVE}"))}),
    ]


class Ground:
    """A project with two versions of web1, of which the newer one was built tonight."""

    def __init__(self, root: Path) -> None:
        self.project = Project(root, root / "output", root / "guests")
        published = self.project.published / "web1"
        same = {"/etc/same": b"s" * 40, "/etc/hostname": b"one\n", "/etc/turned": b"t"}
        after = packages_after()
        self.before = make_version(
            self.project, published / V1, "web1", packages_before(), files=same
        )
        self.after = make_version(
            *(self.project, published / V2, "web1", after),
            files={**same, "/etc/hostname": b"two\n"},
            change=self._change,
        )
        for kept in (one for one in after if one.name == "missing"):
            digest = hashlib.sha256(kept.content).hexdigest()
            (self.project.cache.debs / digest).unlink()

    @staticmethod
    def _change(tree: Path) -> None:
        """What no size and no time tells of."""
        (tree / "etc/turned").chmod(0o4755)
        (tree / "usr/bin/link").symlink_to("tool")
        os.utime(tree / "etc/hostname", (EPOCH, EPOCH))

    def night(self, *guests: GuestNight, name: str = "2026-11-29") -> Night:
        return Night(name, TONIGHT, TONIGHT + 600, "build1", guests, {"bookworm": "yesterday"})

    def published(self, **other: Any) -> GuestNight:
        usual: dict[str, Any] = {
            **{"guest": "web1", "verdict": "published", "version": V2, "before": V1},
            **{"folder": self.after, "folder_before": self.before, "built": self.after},
            **{"channels": {"nightly": V2, "stable": V1}, "seconds": {"build": 12.5}},
        }
        return GuestNight(**{**usual, **other})

    def report(self, *guests: GuestNight, name: str = "2026-11-29") -> tuple[Path, dict[str, Any]]:
        folder = write_report(self.project, self.night(*guests, name=name))
        told: dict[str, Any] = json.loads((folder / "report.json").read_text())
        schema = json.loads((ROOT / "docs/reference/night-report.schema.json").read_text())
        jsonschema.validate(told, schema)
        return folder, told

    def write_proof(self, folder: Path, **other: object) -> None:
        proof = folder / "proof"
        proof.mkdir(exist_ok=True)
        checks = [{"name": "login", "ok": False}, {"name": "sshd", "ok": True}, {"ok": None}]
        record = {"form": 2, "proven_at": TONIGHT + 60, "verdict": "failed", "checks": checks}
        seconds = {"boot to login": 21.5}
        (proof / "proof.json").write_text(json.dumps({**record, "seconds": seconds, **other}))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def reported(ground: Ground) -> tuple[Path, dict[str, Any]]:
    return ground.report(ground.published())


def test_packages_come_with_what_their_changelogs_say_in_between(
    reported: tuple[Path, dict[str, Any]],
) -> None:
    folder, told = reported
    page = (folder / "index.html").read_text()
    (guest,) = told["guests"]
    changes = {change["source"]: change for change in guest["packages"]}
    assert {source: change["kind"] for source, change in changes.items()} == {
        **{"tool": "upgraded", "rebuilt": "rebuilt", "gone": "removed", "new": "added"},
        **dict.fromkeys(("bomb", "nodeb", "steered", "missing", "nodocs", "evil"), "upgraded"),
    }
    tool = changes["tool"]
    assert [entry["version"] for entry in tool["entries"]] == ["1.0-3", "1.0-2"]
    assert tool["packages"] == ["libtool0", "tool"]
    assert tool["cves"] == ["CVE-2026-11111", "CVE-2026-22222"]
    assert "reads too far" in tool["entries"][0]["text"]
    (entry,) = changes["rebuilt"]["entries"]
    assert (entry["version"], changes["rebuilt"]["cves"]) == ("2-1+b2", [])
    assert guest["cves"] == ["CVE-2026-11111", "CVE-2026-22222", CVE]
    assert guest["pending_cves"] == guest["cves"]
    assert "reads too far" in page and "CVE-2026-22222" in page
    assert "doit promote name=web1" in page


def test_what_is_no_changelog_is_said_and_spoils_no_other(
    ground: Ground, reported: tuple[Path, dict[str, Any]]
) -> None:
    _, told = reported
    notes = {change["source"]: change["note"] for change in told["guests"][0]["packages"]}
    assert "more than 16 MiB" in notes["bomb"]
    assert "nodeb: not a package" in notes["nodeb"]
    assert "a link to elsewhere" in notes["steered"]
    assert notes["missing"] == "no changelog: its .deb is not in output/cache/debs"
    assert notes["nodocs"] == "no changelog: its package holds none"
    assert list((ground.project.output / "scratch").glob("changelogs-*")) == []


def test_without_a_snapshot_a_versions_own_record_tells_its_packages(ground: Ground) -> None:
    store = ground.project.store
    store.rename(store.with_name("aside"))
    _, told = ground.report(ground.published())
    store.with_name("aside").rename(store)
    changes = {change["source"]: change for change in told["guests"][0]["packages"]}
    assert [entry["version"] for entry in changes["tool"]["entries"]] == ["1.0-3", "1.0-2"]
    assert changes["evil"]["note"] == "no changelog: no index here has its version"


def test_files_are_compared_by_what_they_hold(reported: tuple[Path, dict[str, Any]]) -> None:
    _, told = reported
    files = told["guests"][0]["files"]
    listed = {change["path"]: (change["kind"], change["owner"]) for change in files["listed"]}
    records = {path for path, (_, owner) in listed.items() if owner == "dpkg's records"}
    assert {path: fact for path, fact in listed.items() if path not in records} == {
        "/etc/hostname": ("changed", ""),
        "/etc/turned": ("changed", ""),
        "/usr/bin/gone": ("removed", "gone"),
        "/usr/bin/link": ("added", ""),
        "/usr/bin/new": ("added", "new"),
        "/usr/bin/old": ("removed", "tool"),
        "/usr/bin/tool": ("changed", "tool"),
        "/usr/lib/libtool.so": ("changed", "libtool0"),
    }
    group = next(group for group in files["groups"] if group["owner"] == "tool")
    assert (group["changed"], group["removed"], group["growth_bytes"]) == (1, 1, 1999)
    sizes = {row["name"]: (row["size_bytes"], row["change"]) for row in told["guests"][0]["sizes"]}
    assert sizes["tool"] == (7000, "changed") and sizes["new"] == (3000, "added")


def test_a_guest_that_failed_is_told_with_its_console_and_the_likely_cause(ground: Ground) -> None:
    built = ground.project.artifacts / "web1"
    shutil.copytree(ground.after, built)
    ground.write_proof(built, causes=["root= names nothing"], reason=EVIL)
    console = built / "proof/console.log"
    console.write_text("early\n" * 50 + f"\x1b[31mKernel panic\x1b[0m {EVIL}\n\n")
    log = ground.project.output / "logs/web1/prove.log"
    log.parent.mkdir(parents=True)
    log.write_text("x")
    fault = Fault("prove", "no login prompt", "look", "words", "logs/web1/prove.log")
    guest = ground.published(
        verdict="failed", version=V1, folder=ground.before, built=built, fault=fault
    )
    folder, told = ground.report(guest)
    failure = told["guests"][0]["failure"]
    assert failure["causes"] == ["root= names nothing"]
    assert failure["console"].splitlines()[-1].startswith("Kernel panic <script>")
    assert len(failure["console"].splitlines()) == 40
    assert (folder / failure["log"]).resolve() == log
    assert told["decisions"][0]["level"] == "error"
    assert "root= names nothing" in told["decisions"][0]["text"]
    assert told["guests"][0]["metrics"] == {"boot_s": 21.5}
    assert told["guests"][0]["proof"]["failed"] == ["login"]
    assert "tool" in {change["source"] for change in told["guests"][0]["packages"]}
    text = (folder / "report.txt").read_text()
    assert "web1: FAILED" in text and "likely cause: root= names nothing" in text

    console.unlink()
    console.symlink_to("/etc/passwd")
    outside = Fault("prove", "no login prompt", log="../../../../etc/passwd")
    _, told = ground.report(ground.published(verdict="failed", built=built, fault=outside))
    assert told["guests"][0]["failure"]["console"] == told["guests"][0]["failure"]["log"] == ""
    shutil.rmtree(built)


def test_a_disk_that_cannot_be_compared_is_said_so(ground: Ground, tmp_path: Path) -> None:
    for what in ("no file system", "no disk", "another pipeline's"):
        older = shutil.copytree(ground.before, tmp_path / what)
        if what == "another pipeline's":
            spec = {**json.loads((older / "spec.json").read_text()), "suite": "unheard-of"}
            (older / "spec.json").write_text(json.dumps(spec))
        else:
            (older / "disk.img").unlink()
        if what == "no file system":
            (older / "disk.img").write_bytes(b"x" * 9999)
        _, told = ground.report(ground.published(folder_before=older))
        assert told["guests"][0]["files"]["note"].startswith("the version before: ")
        assert told["guests"][0]["sizes"]
        shutil.rmtree(older)


def test_a_guest_without_a_bill_of_materials_is_not_scanned_and_the_report_says_so(
    ground: Ground, tmp_path: Path
) -> None:
    (tmp_path / "tracker.json").write_text("{}")
    night = replace(ground.night(ground.published()), tracker=tmp_path / "tracker.json")
    folder = write_report(ground.project, night)
    told = json.loads((folder / "report.json").read_text())
    assert told["guests"][0]["scan"]["note"].endswith("has no sbom.cdx.json")
    assert "Not scanned: " in (folder / "index.html").read_text()


def test_what_is_unusual_for_this_guest_is_found_by_earlier_nights(ground: Ground) -> None:
    ground.write_proof(ground.after, verdict="proven", work={"boot to login": 60.0})
    for day in range(10, 17):
        folder = ground.project.output / f"reports/2026-11-{day}"
        folder.mkdir()
        metrics = {"boot_s": 10 + day / 10, "build_s": 12.0, "image_bytes": 1e6}
        row = {"guest": "web1", "version": f"202611{day}T000000Z-x", "metrics": metrics}
        (folder / "report.json").write_text(json.dumps({"form": 1, "guests": [row]}))
    folder, told = ground.report(ground.published())
    assert [one["metric"] for one in told["guests"][0]["outliers"]] == ["boot_s"]
    assert any("boot time 60.0 s" in decision["text"] for decision in told["decisions"])
    page = (folder / "index.html").read_text()
    assert page.count('class="outlier"') == 1
    assert "8 nights" in page


def test_a_report_is_for_its_user_alone_and_made_again_in_its_place(ground: Ground) -> None:
    folder, first = ground.report(ground.published())
    again, second = ground.report(ground.published())
    assert folder == again and first == second
    assert {path.name for path in folder.iterdir()} == {"index.html", "report.json", "report.txt"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require(shutil.which("chromium") is not None, "chromium")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def nights(ground: Ground) -> Iterator[tuple[str, tuple[GuestNight, ...]]]:
    long = "a-guest-with-a-name-that-is-as-long-as-names-of-guests-may-be-63"
    fault = Fault("mirror", f"https://{'deb.' * 40}example.org: 503", EVIL, "words\n" * 9)
    unchanged = GuestNight("app", "unchanged", V1, V1, ground.before, ground.before)
    yield "none", ()
    yield "one", (unchanged,)
    yield (
        "all",
        (
            ground.published(notes=(EVIL,), removed=(V1,)),
            GuestNight(long, "broken", fault=fault),
            ground.published(guest="first", before="", folder_before=None),
            *(GuestNight(f"app{number}", "not begun", V1, V1) for number in range(7)),
        ),
    )


def test_a_browser_shows_it_at_every_width_in_both_themes_and_asks_for_nothing(
    ground: Ground, chromium: Browser
) -> None:
    for name, guests in nights(ground):
        folder, _ = ground.report(*guests, name=f"2026-12-01-{name}")
        page = folder / "index.html"
        for width in (360, 800, 1400):
            for theme in ("light", "dark"):
                chromium.open(page, width=width, theme=theme)
                chromium.open_details()
                where = f"{name}, {width}, {theme}"
                assert chromium.requests == [page.as_uri()], where
                assert chromium.complaints == [], where
                assert chromium.too_wide == [], where
                assert chromium.least_contrast[0] >= 4.5, (where, chromium.least_contrast)
        assert chromium.evaluate("document.title") == f"Night 2026-12-01-{name} on build1"
        chromium.open(page, width=800, theme="dark", media="print")
        assert chromium.least_contrast[0] >= 4.5, chromium.least_contrast
        assert chromium.print().startswith(b"%PDF")
