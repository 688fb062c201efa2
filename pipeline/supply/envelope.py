"""What is said of files and signed: an in-toto Statement v1 in a DSSE envelope.

https://github.com/in-toto/attestation/tree/main/spec/v1, https://github.com/secure-systems-lab/dsse
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError as NotVerified
from securesystemslib.signer import CryptoSigner, Key

from pipeline.errors import VerificationError
from pipeline.files import canonical_json

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
VERITY = "fsverity_sha256"
_NONE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def describe_file(name: str, recorded: str) -> dict[str, Any]:
    """A file as a statement names it; `recorded` is its digest as the artifact's sums have it."""
    kind, _, digest = recorded.rpartition(":")
    return {"name": name, "digest": {VERITY if kind else "sha256": digest}}


def digests_of(descriptors: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The files that descriptors name, with their digests as sums have them; KeyError for none."""
    digests = {}
    for entry in descriptors:
        digest = entry["digest"]
        digests[str(entry["name"])] = (
            f"sha256:{digest[VERITY]}" if VERITY in digest else str(digest["sha256"])
        )
    return digests


def make_statement(
    files: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]
) -> dict[str, Any]:
    """What is said of files, which are given by name and digest."""
    return {
        "_type": STATEMENT,
        "subject": [describe_file(name, files[name]) for name in sorted(files)],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def sign(statement: Mapping[str, Any], signer: CryptoSigner) -> bytes:
    """The envelope of a statement; the same bytes for the same statement and key."""
    envelope = Envelope(canonical_json(statement), PAYLOAD, {})
    envelope.sign(signer)
    return _render(envelope)


def _render(envelope: Envelope) -> bytes:
    return f"{json.dumps(envelope.to_dict(), indent=1, sort_keys=True)}\n".encode()


def open_envelope(content: bytes, key: Key, predicate_type: str, where: str) -> dict[str, Any]:
    """The statement in an envelope that this key signed; raises VerificationError.

    It has to be written as `sign` writes: no byte of it may be another one.
    """
    hint = "it is damaged, or somebody has changed it: take this version from where it was made"
    try:
        envelope = Envelope.from_dict(json.loads(content))
        is_ours = _render(envelope) == content
    except _NONE as error:
        raise VerificationError(f"{where}: this is no DSSE envelope", hint=hint) from error
    try:
        envelope.verify([key], 1)
    except NotVerified as error:
        signers = ", ".join(sorted(str(name)[:12] for name in envelope.signatures)) or "nobody"
        raise VerificationError(
            f"{where}: the key {key.keyid[:12]} did not sign this, {signers} did"
            if key.keyid not in envelope.signatures
            else f"{where}: its signature is not of what it says",
            hint=hint if key.keyid in envelope.signatures else "key=FILE: the key of who signed it",
        ) from error
    try:
        statement = json.loads(envelope.payload)
        if not is_ours or envelope.payload_type != PAYLOAD or statement["_type"] != STATEMENT:
            raise ValueError(where)
        if statement["predicateType"] != predicate_type:
            raise VerificationError(
                f"{where}: it is about something else ({statement['predicateType']!r:.80})",
                hint=hint,
            )
        digests_of(statement["subject"])
        dict(statement["predicate"])
    except _NONE as error:
        raise VerificationError(f"{where}: this is no in-toto statement of ours", hint=hint) from (
            error
        )
    return dict(statement)
