"""Signed Release files: the suite's names, dates, Valid-Until, the indexes' digests.

Facts: the Debian repository format page (wiki: DebianRepository/Format).
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from pipeline import process
from pipeline.errors import VerificationError
from pipeline.files import fingerprint
from pipeline.mirror.stanzas import read_fields
from pipeline.suites import SUITES, Suite

_VERDICTS = frozenset({"GOODSIG", "BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG"})
_WEAK_HASHES = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160"}
_CLEARSIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_NEWER_KEYRING = "install a newer keyring package, or give keyring=/path"


@dataclass
class _Signature:
    """One signature as gpgv saw it; fingerprint and hash only where the key was there."""

    verdict: str
    key: str
    fingerprint: str = ""
    hash_number: str = ""

    def is_accepted(self, *, is_archived: bool) -> bool:
        """Good, with a hash that still means something; archives outlived both key and hash."""
        if not self.fingerprint:
            return False
        if is_archived:
            return self.verdict in ("GOODSIG", "EXPKEYSIG")
        return self.verdict == "GOODSIG" and self.hash_number not in _WEAK_HASHES


def verify_signature(
    path: Path, keyring: Path, *, where: str, is_archived: bool, log: Path | None
) -> tuple[str, tuple[str, ...]]:
    """The signed text of an InRelease file and the fingerprints that signed it.

    Where PATH.gpg lies beside it, that is the signature of the whole file: Release, Release.gpg.
    An archived suite's expired key and SHA-1 are accepted. Raises VerificationError, one reason
    each: not signed, damaged, tampered, unknown, expired or revoked key, expired or weak signature.
    """
    text = path.with_name(f"{path.name}.text")
    detached = path.with_name(f"{path.name}.gpg")
    argv: list[object] = ["gpgv", "--status-fd", "1", "--keyring", keyring]
    if detached.is_file():
        shutil.copyfile(path, text)
        argv += [detached, path]
    elif not _is_clearsigned(path):
        # gpgv would unpack whatever OpenPGP has for packing, before it looks for a signature
        raise _not_signed(where)
    else:
        argv += ["--output", text, path]
    output = process.run(argv, log=log, accept=(0, 1, 2))
    found = _read_status(output)
    try:
        signers = tuple(
            one.fingerprint for one in found if one.is_accepted(is_archived=is_archived)
        )
        if not signers or any(one.verdict == "BADSIG" for one in found):
            raise _refusal(found, path, where=where, output=output)
        return text.read_text(encoding="utf-8", errors="replace"), signers
    finally:
        text.unlink(missing_ok=True)


def _read_status(output: str) -> list[_Signature]:
    found: list[_Signature] = []
    for line in output.splitlines():
        words = line.split()
        if len(words) < 3 or words[0] != "[GNUPG:]":
            continue
        if words[1] in _VERDICTS:
            found.append(_Signature(words[1], words[2]))
        elif words[1] == "VALIDSIG" and found and len(words) > 9:
            found[-1].fingerprint, found[-1].hash_number = words[2], words[9]
    return found


def _refusal(found: list[_Signature], path: Path, *, where: str, output: str) -> VerificationError:
    by_verdict = {one.verdict: one for one in reversed(found)}
    if "BADSIG" in by_verdict:
        return VerificationError(
            f"{where}: the signature does not match: the file was tampered with",
            hint="choose another mirror=; if a proxy is in between, purge its copy",
        )
    for verdict, reason in (
        ("REVKEYSIG", "the key that signed it was revoked"),
        ("EXPKEYSIG", "the key that signed it has expired"),
        ("EXPSIG", "its signature has expired"),
    ):
        if verdict in by_verdict:
            key = by_verdict[verdict].key
            return VerificationError(f"{where}: {reason} ({key})", hint=_NEWER_KEYRING)
    if "GOODSIG" in by_verdict:
        weak = _WEAK_HASHES.get(by_verdict["GOODSIG"].hash_number, "a weak hash")
        return VerificationError(
            f"{where}: signed with {weak}, which anybody can forge today",
            hint="the archive has to sign with SHA-256 or better; choose another mirror=",
        )
    return _no_verdict(found, path, where=where, output=output)


def _no_verdict(
    found: list[_Signature], path: Path, *, where: str, output: str
) -> VerificationError:
    if "NO_PUBKEY" in output:
        keys = ", ".join(sorted({one.key for one in found}))
        return VerificationError(
            f"{where}: signed by the unknown key {keys}",
            hint="give the keyring of that archive: keyring=/path/to/keyring.gpg",
        )
    if found:
        return VerificationError(
            f"{where}: gpgv cannot check the signature", details=output, hint=_NEWER_KEYRING
        )
    if _is_clearsigned(path):
        return VerificationError(
            f"{where}: its signature is damaged: the file was tampered with or cut short",
            hint="choose another mirror=; if a proxy is in between, purge its copy",
        )
    return _not_signed(where)


def _is_clearsigned(path: Path) -> bool:
    return path.read_bytes().lstrip().startswith(_CLEARSIGNED)


def _not_signed(where: str) -> VerificationError:
    return VerificationError(
        f"{where}: not signed",
        hint="only signed archives are used; sign it, or choose another mirror=",
    )


CLOCK_SLACK = timedelta(hours=12)
MAX_LAG_S = 3 * 86400
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


@dataclass(frozen=True)
class Terms:
    """How a Release file is judged.

    `is_archived`: an expired key and SHA-1 are accepted. `grace_s`: seconds after Valid-Until in
    which it is still accepted, infinite for "ignore". `max_lag_s`: how many seconds older than the
    newest state seen of the same suite, through whatever mirror, it may be.
    """

    is_archived: bool = False
    grace_s: float = 0
    max_lag_s: float = MAX_LAG_S

    @classmethod
    def for_suite(cls, suite: Suite) -> Terms:
        """What a suite's age alone asks for."""
        if suite.is_archived:
            return cls(is_archived=True, grace_s=math.inf, max_lag_s=math.inf)
        return cls()

    def combined(self, suite: Terms) -> Terms:
        """A mirror's own terms, and what the suite's age forgives."""
        return suite if suite.is_archived else self

    @property
    def checks_valid_until(self) -> bool:
        """Whether Valid-Until counts at all."""
        return not math.isinf(self.grace_s)


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
        fields = read_fields(text)
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
