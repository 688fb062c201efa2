"""The parts of a night's report that need no disk: words, tiles, outliers, decisions, the mail."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pipeline.mirror.versions import is_newer
from pipeline.report.changelogs import find_cves
from pipeline.report.decisions import find_decisions
from pipeline.report.disk_contents import Installed
from pipeline.report.night_model import (
    Failure,
    GuestReport,
    NightReport,
    Outlier,
    PackageChange,
    documents,
)
from pipeline.report.night_page import Sheet, render_night
from pipeline.report.night_text import WIDTH, render_text
from pipeline.report.outcome import GuestNight, Night
from pipeline.report.package_changes import compare_packages
from pipeline.report.treemap import lay_out
from pipeline.report.trend import HEIGHT, NIGHTS, draw_plot, is_far, read_earlier
from pipeline.report.trend import WIDTH as PLOT_WIDTH
from pipeline.report.words import growth, name_cves, seconds, short_version, size

ROOT = Path(__file__).resolve().parents[2]
V1, V2 = "20261128T030000Z-aaaaaaaa", "20261129T030000Z-bbbbbbbb"


def night(*guests: GuestNight, is_complete: bool = True) -> Night:
    return Night("2026-11-29", 1e9, 1e9 + 60, "host", guests, is_complete=is_complete)


def told(*guests: GuestReport) -> NightReport:
    decisions = find_decisions(night(), guests)
    return NightReport("2026-11-29", 1e9, 1e9 + 60, "host", True, decisions, guests)


def package(name: str, version: str, source: str = "") -> Installed:
    return Installed(name, version, source or name, version.partition("+b")[0])


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60))
def test_tiles_fill_the_whole_and_nothing_else(sizes: list[int]) -> None:
    ordered = sorted(sizes, reverse=True)
    tiles = lay_out(ordered, 960, 380)
    assert len(tiles) == len(sizes)
    for tile, count in zip(tiles, ordered, strict=True):
        area = count * 960 * 380 / sum(sizes)
        assert tile.width * tile.height == pytest.approx(area, rel=1e-3, abs=1e-3)
        assert -0.01 <= tile.x <= tile.x + tile.width <= 960.01
        assert -0.01 <= tile.y <= tile.y + tile.height <= 380.01


def test_no_sizes_are_no_tiles() -> None:
    assert lay_out([], 960, 380) == []


def test_a_value_is_far_only_from_enough_others_and_by_what_one_notices() -> None:
    usual = [10.0, 10.2, 9.9, 10.1, 10.0]
    assert is_far("boot_s", 20, usual)
    assert not is_far("boot_s", 20, usual[:4])
    assert not is_far("boot_s", 11.9, usual)  # less than two seconds
    assert not is_far("boot_s", 20, [5, 30, 10, 18, 12])  # as noisy as ever
    assert is_far("image_bytes", 300e6, [200e6] * 6)
    assert not is_far("image_bytes", 203e6, [200e6] * 6)


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=NIGHTS))
def test_every_dot_is_in_its_plot(values: list[float]) -> None:
    plot = draw_plot("boot_s", [(str(at), value) for at, value in enumerate(values)])
    assert all(0 <= dot.x <= PLOT_WIDTH and 0 <= dot.y <= HEIGHT for dot in plot.dots)


def test_earlier_reports_are_read_whatever_they_hold(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(text)

    guest = {"guest": "a", "version": V1, "metrics": {"boot_s": 3, "build_s": "x"}, "cves": ["C"]}
    write("2026-11-01", json.dumps({"form": 1, "guests": [guest, None, {"guest": "b"}]}))
    write("2026-11-02", json.dumps({"form": 1, "guests": "none"}))
    write("2026-11-03", "no JSON")
    write("2026-11-04", json.dumps({"form": 99, "guests": [guest]}))
    write("2026-11-05", json.dumps([1]))
    write("2026-11-09", json.dumps({"form": 1, "guests": [guest]}))
    (tmp_path / "a").mkdir()  # of `doit report`
    (tmp_path / "2026-11-06").mkdir()
    (tmp_path / "2026-11-06/report.json").symlink_to("/dev/zero")
    earlier = read_earlier(tmp_path, before="2026-11-09")
    assert {name: [one.night for one in nights] for name, nights in earlier.items()} == {
        "a": ["2026-11-01"],
        "b": ["2026-11-01"],
    }
    assert earlier["a"][0].metrics == {"boot_s": 3}


def test_only_the_last_nights_are_read(tmp_path: Path) -> None:
    for number in range(NIGHTS + 5):
        (tmp_path / f"2026-10-{number:03}").mkdir()
        row = {"form": 1, "guests": [{"guest": "a", "metrics": {"boot_s": number}}]}
        (tmp_path / f"2026-10-{number:03}/report.json").write_text(json.dumps(row))
    kept = read_earlier(tmp_path, before="2026-11-01")["a"]
    assert [one.metrics["boot_s"] for one in kept] == list(range(6, NIGHTS + 5))


def test_packages_are_told_by_their_source() -> None:
    before = [
        *(package("libpam0g", "1", "pam"), package("libpam-runtime", "1", "pam")),
        *(package("gone", "3"), package("libbrotli1", "1.0-2+b6", "brotli")),
        *(
            package("linux-image-6.1.0-1", "6.1.1", "linux"),
            package("back", "2"),
            package("x", "1"),
        ),
    ]
    after = [
        *(package("libpam0g", "2", "pam"), package("libpam-runtime", "2", "pam")),
        *(package("new", "1"), package("libbrotli1", "1.0-2+b7", "brotli")),
        *(
            package("linux-image-6.1.0-2", "6.1.2", "linux"),
            package("back", "1"),
            package("x", "1"),
        ),
    ]
    changes = compare_packages({one.name: one for one in before}, {one.name: one for one in after})
    assert {change.source: change.kind for change in changes} == {
        "back": "downgraded",
        "brotli": "rebuilt",
        "gone": "removed",
        "linux": "upgraded",
        "new": "added",
        "pam": "upgraded",
    }
    pam = next(change for change in changes if change.source == "pam")
    assert [new.name for _, new in pam.upgraded] == ["libpam-runtime", "libpam0g"]


def test_versions_are_ordered_as_dpkg_does() -> None:
    assert is_newer("1:1.0", "2.0") and is_newer("1.0", "1.0~rc1") and not is_newer("1", "1")


def test_cves_are_found_once_and_in_order() -> None:
    text = "CVE-2026-99999 XCVE-2026-1111 CVE-2026-1234, CVE-2026-99999; CVE-2025-123456 CVE-26-1"
    assert find_cves(text) == ("CVE-2025-123456", "CVE-2026-1234", "CVE-2026-99999")


def test_what_is_said_of_sizes_times_versions_and_many_numbers() -> None:
    assert [size(0), size(2048), size(5 << 30)] == ["0 B", "2 KiB", "5.00 GiB"]
    assert [growth(1024), growth(-1024), growth(0)] == ["+1 KiB", "−1 KiB", "±0 B"]
    assert [seconds(1.25), seconds(125), seconds(9000)] == ["1.2 s", "2 min 05 s", "2.5 h"]
    assert short_version(V1) == "2026-11-28 03:00 aaaaaaaa"
    assert short_version("other") == "other"
    many = tuple(f"CVE-2026-{number}" for number in range(1000, 1010))
    assert name_cves(many) == "10 CVEs, the latest CVE-2026-1009, CVE-2026-1008, CVE-2026-1007"


def test_failures_come_first_and_a_promotion_says_what_it_brings() -> None:
    failed = GuestReport(
        "b", "failed", version=V1, failure=Failure("prove", "no login", causes=("root= is wrong",))
    )
    grown = GuestReport(
        "a",
        "published",
        version=V2,
        channels={"nightly": V2, "stable": V1},
        metrics={"image_bytes": 300e6},
        bytes_before=200_000_000,
        pending_cves=("CVE-2026-1",),
        outliers=(Outlier("boot_s", 20, 10, 9), Outlier("build_s", 200, 10, 9)),
    )
    decisions = find_decisions(night(is_complete=False), (grown, failed))
    assert [decision.level for decision in decisions] == ["error", *["warning"] * 4]
    assert decisions[0].text == (
        "prove: no login (root= is wrong); 2026-11-28 03:00 aaaaaaaa stays"
    )
    assert [decision.text for decision in decisions[1:]] == [
        "the night ended early",
        "boot time 20.0 s, usually 10.0 s (median of 9 nights)",
        "the image grew from 191 MiB to 286 MiB",
        "stable is older than nightly: nightly has fixes for CVE-2026-1",
    ]
    assert decisions[-1].command == "doit promote name=a"
    assert find_decisions(night(), (GuestReport("a", "unchanged", version=V1),)) == ()


def test_a_mail_has_76_columns_whatever_names_and_texts_are_like() -> None:
    long = "x" * 200
    guest = GuestReport(
        long,
        "failed",
        version=V1,
        failure=Failure("prove", f"{long} {long}", hint=long, console=f"{long}\n\x1b[2J"),
        packages=(PackageChange("upgraded", long, (long,), "1", "2"),),
        notes=(long,),
    )
    text = render_text(told(guest))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text


def test_a_night_in_which_nothing_was_to_be_done_says_so() -> None:
    assert "Every guest is as it should be" in render_night(told(GuestReport("a", "unchanged")), ())
    assert "No guest is named" in render_night(told(), ())
    assert "Nothing to decide." in render_text(told())


def test_strangers_texts_stay_texts() -> None:
    evil = "<script>alert(1)</script>\u202e\x1b[2J"
    guest = GuestReport(
        evil,
        "published",
        version=evil,
        channels={evil: evil},
        packages=(PackageChange("upgraded", evil, (evil,), evil, evil, note=evil),),
        failure=Failure(evil, evil, evil, evil, causes=(evil,), console=evil),
        notes=(evil,),
    )
    page = render_night(told(guest), (Sheet(guest, (), ""),))
    assert "<script" not in page and not {"\u202e", "\x1b"} & set(page)
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_schema_is_that_of_the_classes(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == documents()[name], "python -m pipeline.report.night_model --write"
    assert TypeAdapter(NightReport).validate_json(TypeAdapter(NightReport).dump_json(told()))
