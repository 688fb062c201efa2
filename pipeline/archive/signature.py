"""Signatures of Release files: gpgv's verdict, with one reason for each refusal.

Facts: gpgv(1); GnuPG's doc/DETAILS for the status lines; RFC 4880, 9.4, for the hashes' numbers.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline import command
from pipeline.errors import VerificationError

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
    output = command.run(argv, log=log, accept=(0, 1, 2))
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
