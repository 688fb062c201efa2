"""Signed Release files: gpgv's verdict, the suite's names, Valid-Until, the indexes' digests.

Facts: gpgv(1) and GnuPG's doc/DETAILS for the status lines; the Debian repository format page for
the fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from pipeline import command
from pipeline.canonical import fingerprint
from pipeline.errors import VerificationError

CLOCK_SLACK = timedelta(hours=12)


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


def verify_signature(
    path: Path, keyring: Path, *, where: str, accepts_expired_keys: bool, log: Path | None
) -> tuple[str, tuple[str, ...]]:
    """The signed text of an InRelease file and the fingerprints that signed it.

    Raises VerificationError, one reason each: no signature, unknown key, expired key, tampered.
    """
    text = path.with_name(path.name + ".text")
    text.unlink(missing_ok=True)
    argv = ["gpgv", "--status-fd", "1", "--keyring", keyring, "--output", text, path]
    output = command.run(argv, log=log, accept=(0, 1, 2))
    status = [line.split()[1:] for line in output.splitlines() if line.startswith("[GNUPG:] ")]
    words = {line[0] for line in status if line}
    signers = tuple(line[1] for line in status if line[0] == "VALIDSIG")
    if "BADSIG" in words:
        raise VerificationError(
            f"{where}: the signature does not match: the file was tampered with or cut short",
            hint="choose another mirror=; if a proxy is in between, purge its copy",
        )
    expired = bool(words & {"EXPKEYSIG", "REVKEYSIG"}) and "GOODSIG" not in words
    if expired and not ("REVKEYSIG" not in words and accepts_expired_keys):
        raise VerificationError(
            f"{where}: the key that signed it has expired or was revoked",
            hint="install a newer keyring package, or give keyring=/path",
        )
    if not signers:
        raise _unsigned(where, keyring, status)
    return text.read_text(encoding="utf-8", errors="replace"), signers


def _unsigned(where: str, keyring: Path, status: list[list[str]]) -> VerificationError:
    missing = sorted({line[1] for line in status if line[0] == "NO_PUBKEY"})
    if missing:
        return VerificationError(
            f"{where}: signed by the unknown key {', '.join(missing)} (keyring {keyring})",
            hint="give the keyring of that archive: keyring=/path/to/keyring.gpg",
        )
    return VerificationError(
        f"{where}: not signed",
        hint="only signed archives are used; sign it, or choose another mirror=",
    )


def parse_release(text: str, signed_by: tuple[str, ...], *, where: str) -> Release:
    """The fields of a verified Release text; raises VerificationError when they make no sense."""
    from debian.deb822 import Release as Fields

    fields = Fields(text)
    try:
        files = {
            entry["name"]: IndexFile(entry["name"], int(entry["size"]), entry["sha256"])
            for entry in fields["SHA256"]
        }
        valid_until = fields.get("Valid-Until")
        return Release(
            suite=fields.get("Suite", ""),
            codename=fields.get("Codename", ""),
            date=parsedate_to_datetime(fields["Date"]),
            valid_until=parsedate_to_datetime(valid_until) if valid_until else None,
            signed_by=signed_by,
            has_by_hash=fields.get("Acquire-By-Hash", "no") == "yes",
            files=files,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise VerificationError(
            f"{where}: not a Release file that can be used ({error})",
            hint="is the mirror's URL the root of a Debian archive, with dists/ below it?",
        ) from error


def check_release(
    release: Release, suite: str, *, now: datetime, checks_valid_until: bool, where: str
) -> None:
    """Refuse a Release of another suite, from the future, or past its Valid-Until."""
    wanted = suite.partition("/")[0] if "/" in suite else suite
    names = {release.suite, release.codename, *_prefixes(release)}
    if suite not in names and wanted not in names:
        raise VerificationError(
            f"{where}: this is {release.codename or release.suite}, not {suite}",
            hint="the mirror serves another suite under this name; choose another mirror=",
        )
    if release.date > now + CLOCK_SLACK:
        raise VerificationError(
            f"{where}: dated {release.date:%Y-%m-%d %H:%M}, which is in the future",
            hint="is this machine's clock right?",
        )
    if checks_valid_until and release.valid_until and now > release.valid_until:
        raise VerificationError(
            f"{where}: expired, Valid-Until was {release.valid_until:%Y-%m-%d %H:%M} UTC",
            hint="the mirror is frozen or the suite's support has ended: choose another mirror=, "
            "or leave that part out (security=no, updates=no)",
        )


def _prefixes(release: Release) -> set[str]:
    """Names such as stable-security next to bookworm-security."""
    return {release.codename.partition("/")[0], release.suite.partition("/")[0]}


def present_time() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def identity_of(digests: dict[str, str]) -> str:
    """One id for a set of InRelease digests."""
    return fingerprint(digests)
