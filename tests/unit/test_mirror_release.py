"""Release files: which fields count, which names and dates are accepted."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import VerificationError
from pipeline.mirror.release import (
    CLOCK_SLACK,
    Release,
    Terms,
    check_release,
    explain_age,
    identity_of,
    parse_release,
    way_out,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DIGEST = "a" * 64
TEXT = f"""Suite: oldstable
Codename: bookworm
Date: Sat, 28 Feb 2026 10:00:00 UTC
Valid-Until: Sat, 07 Mar 2026 10:00:00 UTC
Acquire-By-Hash: yes
SHA256:
 {DIGEST} 1234 main/binary-amd64/Packages.xz
"""


def release(suite: str, codename: str, **changes: datetime | None) -> Release:
    moments = {"date": NOW, "valid_until": None, **changes}
    return Release(suite, codename, moments["date"] or NOW, moments["valid_until"], (), True, {})


def check(found: Release, suite: str, *, grace_s: float = 0) -> None:
    check_release(found, suite, now=NOW, terms=Terms(grace_s=grace_s), where="mirror")


def test_the_fields_of_a_release_are_read() -> None:
    found = parse_release(TEXT, ("KEY",), where="mirror")
    assert (found.suite, found.codename, found.has_by_hash) == ("oldstable", "bookworm", True)
    assert found.date == datetime(2026, 2, 28, 10, 0, tzinfo=UTC)
    assert found.valid_until == datetime(2026, 3, 7, 10, 0, tzinfo=UTC)
    entry = found.files["main/binary-amd64/Packages.xz"]
    assert (entry.size, entry.sha256) == (1234, DIGEST)


@pytest.mark.parametrize("zone", ["UTC", "+0000", "-0000", "GMT"])
def test_every_way_to_write_utc_gives_the_same_moment(zone: str) -> None:
    text = TEXT.replace("10:00:00 UTC", f"10:00:00 {zone}")
    assert parse_release(text, (), where="m").date == datetime(2026, 2, 28, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("suite", "codename", "wanted"),
    [
        ("oldstable", "bookworm", "bookworm"),
        ("stable-security", "bookworm-security", "bookworm-security"),
        ("oldstable-updates", "bookworm-updates", "bookworm-updates"),
        ("unstable", "sid", "sid"),
        ("noble", "noble", "noble"),
        ("noble-updates", "noble", "noble-updates"),
        ("oldoldstable", "buster", "buster/updates"),
        ("", "lab", "lab"),
        ("", "bookworm-security", "bookworm-security"),
    ],
)
def test_a_suite_is_known_by_its_code_name_or_suite(suite: str, codename: str, wanted: str) -> None:
    check(release(suite, codename), wanted)


@pytest.mark.parametrize(
    ("suite", "codename", "wanted"),
    [
        ("testing", "forky", "bookworm"),
        ("noble-updates", "noble", "noble"),
        ("noble-updates", "noble", "noble-security"),
        ("stable-updates", "bookworm-updates", "bookworm"),
        ("oldoldstable", "buster/updates", "buster"),
    ],
)
def test_another_suite_or_pocket_is_refused(suite: str, codename: str, wanted: str) -> None:
    with pytest.raises(VerificationError, match=f"not {wanted}"):
        check(release(suite, codename), wanted)


def test_a_clock_that_is_a_little_slow_is_forgiven() -> None:
    check(release("", "bookworm", date=NOW + CLOCK_SLACK - timedelta(minutes=1)), "bookworm")
    with pytest.raises(VerificationError, match="in the future"):
        check(release("", "bookworm", date=NOW + CLOCK_SLACK + timedelta(minutes=1)), "bookworm")


def test_valid_until_counts_unless_the_terms_forgive_it() -> None:
    expired = release("", "bookworm", valid_until=NOW - timedelta(seconds=1))
    check(expired, "bookworm", grace_s=math.inf)
    check(expired, "bookworm", grace_s=60)
    with pytest.raises(VerificationError, match="expired, Valid-Until was 2026-03-01 11:59 UTC"):
        check(expired, "bookworm")


def test_an_expired_suite_whose_support_ended_is_told_so() -> None:
    late = datetime(2031, 1, 1, tzinfo=UTC)
    assert "support of bookworm ended on 2028-06-30" in explain_age("bookworm-security", late)
    assert "frozen" in explain_age("sid", late) and "frozen" in explain_age("lab", late)


def test_the_identity_is_the_same_for_the_same_digests_in_any_order() -> None:
    assert identity_of({"a": "1", "b": "2"}) == identity_of({"b": "2", "a": "1"})
    assert identity_of({"a": "1"}) != identity_of({"a": "2"})


def test_the_way_out_of_an_expired_suite_is_what_can_be_typed() -> None:
    main = way_out("sid", "http://m/debian/dists/sid/InRelease")
    assert 'url = "http://m/debian" and valid_until = "ignore"' in main and "=no" not in main
    security = way_out("bookworm-security", "http://m/debian-security/dists/x/InRelease")
    assert "leave it out (security=no)" in security and "debian-security" not in security
