"""Signed Release files: the suite's names, dates, Valid-Until, the indexes' digests.

Facts: the Debian repository format page (wiki: DebianRepository/Format).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.archive.signature import verify_signature
from pipeline.archive.terms import Terms
from pipeline.canonical import fingerprint
from pipeline.errors import VerificationError
from pipeline.suites import SUITES

CLOCK_SLACK = timedelta(hours=12)
_MOST_WORD = 200
_FIRST_YEAR, _LAST_YEAR = 1993, 2199  # the archive's first; Valid-Until of one that is for ever
_FILE = re.compile(
    r"(?P<sha256>[0-9a-fA-F]{64})\s+(?P<size>[0-9]{1,13})\s+"
    r"(?P<name>(?!/)(?!(?:\S*/)?\.\.(?:/|$))[\x21-\x7e]{1,500})"
)


@dataclass(frozen=True)
class IndexFile:
    """One file that a Release file vouches for: name below dists/<suite>/, bytes, sha256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """A Release file whose signature was verified."""

    suite: str
    codename: str
    date: datetime
    valid_until: datetime | None
    signed_by: tuple[str, ...]
    has_by_hash: bool
    files: dict[str, IndexFile]
    origin: str = ""


def read_release(
    path: Path, keyring: Path, suite: str, *, where: str, terms: Terms, log: Path | None
) -> Release:
    """An InRelease file (or a Release with its .gpg beside it) that is signed, of that suite and
    of our time as the terms say; else VerificationError.
    """
    text, signers = verify_signature(
        path, keyring, where=where, is_archived=terms.is_archived, log=log
    )
    release = parse_release(text, signers, where=where)
    check_release(release, suite, now=present_time(), terms=terms, where=where)
    return release


def parse_release(text: str, signed_by: tuple[str, ...], *, where: str) -> Release:
    """The fields of a verified Release text; raises VerificationError when they make no sense."""
    try:
        fields = _read_fields(text)
        valid_until = fields.get("valid-until")
        return Release(
            suite=_read_word(fields, "suite"),
            codename=_read_word(fields, "codename"),
            date=_read_date(fields["date"]),
            valid_until=_read_date(valid_until) if valid_until else None,
            signed_by=signed_by,
            has_by_hash=fields.get("acquire-by-hash", "no") == "yes",
            files=_read_files(fields["sha256"]),
            origin=" ".join(_read_word(fields, key) for key in ("origin", "label")).strip(),
        )
    except KeyError as error:
        reason = f"it has no {error.args[0]}"
    except ValueError as error:
        reason = str(error)
    raise VerificationError(
        f"{where}: not a Release file that can be used ({reason})",
        hint="is the mirror's URL the root of a Debian archive, with dists/ below it?",
    )


def _read_fields(text: str) -> dict[str, str]:
    """Names in lower case -> values, further lines as they are (deb822(5))."""
    fields: dict[str, list[str]] = {}
    further: list[str] = []
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            further.append(line.strip())
        elif line and line[0] != "#":
            name, found, value = line.partition(":")
            name = name.strip().lower()
            if not found or name in fields:
                raise ValueError(f"line {line[:40]!r}")
            further = fields[name] = [value.strip()]
    return {name: "\n".join(lines) for name, lines in fields.items()}


def _read_word(fields: Mapping[str, str], key: str) -> str:
    text = fields.get(key, "")
    if len(text) > _MOST_WORD or not text.isprintable():
        raise ValueError(f"{key} {text[:40]!r}")
    return text


def _read_files(text: str) -> dict[str, IndexFile]:
    found: dict[str, IndexFile] = {}
    for line in filter(None, text.split("\n")):
        match = _FILE.fullmatch(line)
        if match is None:
            raise ValueError(f"SHA256 {line[:100]!r}")
        entry = IndexFile(match["name"], int(match["size"]), match["sha256"].lower())
        if found.setdefault(entry.name, entry) != entry:
            raise ValueError(f"SHA256 of {entry.name[:100]} twice")
    return found


def check_release(release: Release, suite: str, *, now: datetime, terms: Terms, where: str) -> None:
    """Refuse a Release of another suite, from the future, or past its Valid-Until."""
    if not _is_of(release, suite):
        raise VerificationError(
            f"{where}: this is {release.codename or release.suite}, not {suite}",
            hint="the mirror serves another suite under this name; choose another mirror=",
        )
    if release.date > now + CLOCK_SLACK:
        raise VerificationError(
            f"{where}: dated {release.date:%Y-%m-%d %H:%M}, which is in the future",
            hint="is this machine's clock right?",
        )
    if not terms.checks_valid_until or not release.valid_until:
        return
    if (now - release.valid_until).total_seconds() > terms.grace_s:
        raise VerificationError(
            f"{where}: expired, Valid-Until was {release.valid_until:%Y-%m-%d %H:%M} UTC",
            hint=f"{explain_age(suite, now)}{way_out(suite, where)}",
        )


def explain_age(suite: str, now: datetime) -> str:
    """Why a suite's Release may have expired at that time, from its dates; ends in a space."""
    facts = SUITES.get(suite.partition("/")[0].partition("-")[0])
    end = facts.supported_until if facts else ""
    if end and now.date().isoformat() > end:
        return f"support of {facts.name if facts else suite} ended on {end}: "
    return "the mirror is frozen: "


def way_out(suite: str, where: str) -> str:
    """What to do about a suite whose Release has expired."""
    part = next((role for role in ("security", "updates", "backports") if role in suite), "")
    leave = f"leave it out ({part}=no), " if part in ("security", "updates") else ""
    url = "the mirror's url" if part else f'url = "{where.partition("/dists/")[0]}"'
    return (
        f"choose another mirror=, {leave}or take it knowingly: a file mirrors/frozen.toml with "
        f'{url} and valid_until = "ignore", then mirror=frozen'
    )


def _is_of(release: Release, suite: str) -> bool:
    """Whether the names fit: buster for buster/updates, but not noble-updates for noble.

    Ubuntu's noble-updates and noble share their Codename; Debian's bookworm is Suite: stable.
    """
    wanted = suite.partition("/")[0]
    if release.suite == wanted:
        return True
    is_same_pocket = not release.suite or _pocket(release.suite) == _pocket(wanted)
    return release.codename in (suite, wanted) and is_same_pocket


def _pocket(suite: str) -> str:
    return suite.partition("-")[2]


def _read_date(text: str) -> datetime:
    """RFC 5322 date; "-0000" and a missing zone mean UTC, as the repository format says."""
    from email.utils import parsedate_to_datetime  # 15 ms, only where a Release is read

    try:
        found = parsedate_to_datetime(text)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        raise ValueError(f"date {text[:40]!r}") from None
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        raise ValueError(f"date {text[:40]!r}")
    return found


def present_time() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def identity_of(digests: dict[str, str]) -> str:
    """One id for a set of InRelease digests."""
    return fingerprint(digests)
