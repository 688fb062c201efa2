"""What a shared store says of an artifact: a signed statement, and how its files are packed.

`STAGE/FINGERPRINT/statement.json` is what counts: the signer's certificate and the DSSE envelope of
an in-toto statement about the artifact's files. The packed files lie beside it under the name of
the upload that brought them, so that two uploads never mix.
"""

import base64
import json
import re
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    TypeAdapter,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from pipeline.errors import VerificationError
from pipeline.files import fingerprint as fingerprint_of
from pipeline.store.store import BUILDINFO, BuildInfo
from pipeline.supply.envelope import digests_of, make_statement, open_envelope, sign
from pipeline.walls.certificates import Party, check_certificate, name_of

MARKER = "domu-store.json"  # what says that this is a store
STATEMENT, PACKED = "statement.json", ".zst"
MOST_STATEMENT = 4 << 20
PREDICATE = "https://domu-pipeline.example/shared-artifact/v1"
_MOST_FILES = 1000
_MOST_BYTES = 1 << 40  # of all files of an artifact, holes counted
_HINT = "it is dropped and built again where this machine may write there"
UPLOAD = re.compile(r"[0-9a-f]{32}")


def _check_name(name: str) -> str:
    path = PurePosixPath(name)
    is_plain = name.isprintable() and name == str(path) and not path.is_absolute()
    if not is_plain or ".." in path.parts or name in (".", BUILDINFO) or "\\" in name:
        raise ValueError("no name of a file below a folder")
    return name


Name = Annotated[StrictStr, AfterValidator(_check_name)]
Digest = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(BaseModel):
    """A file of the artifact as it lies in the store: packed; `mode` is what it gets here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    size: Annotated[StrictInt, Field(ge=0, le=_MOST_BYTES)]
    sha256: Digest
    packed_size: Annotated[StrictInt, Field(ge=0, le=_MOST_BYTES)]
    packed_sha256: Digest
    data_bytes: Annotated[StrictInt, Field(ge=0, le=_MOST_BYTES)]
    mode: Annotated[StrictInt, Field(ge=0, le=0o777)]


class Content(BaseModel):
    """What a statement says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upload: Annotated[StrictStr, Field(pattern=rf"^{UPLOAD.pattern}$")]
    parts: Annotated[list[Part], Field(max_length=_MOST_FILES)]
    buildinfo: dict[str, Any]

    @property
    def packed_bytes(self) -> int:
        """What comes over the network."""
        return sum(part.packed_size for part in self.parts)

    @property
    def data_bytes(self) -> int:
        """What the files take on a disk."""
        return sum(part.data_bytes for part in self.parts)


class Entry:
    """A statement that was verified: of which artifact, by whom; `signed` is its bytes."""

    def __init__(self, content: Content, signer: str, signed: bytes) -> None:
        self.content, self.signer, self.signed = content, signer, signed
        self.buildinfo = TypeAdapter(BuildInfo).validate_python(content.buildinfo)


def new_upload() -> str:
    """The name of an upload, which no other has."""
    return uuid.uuid4().hex


def folder_of(stage: str, fingerprint: str) -> str:
    """Where in a store the artifact of this fingerprint is, or would be."""
    return f"{stage}/{fingerprint[:32]}"


def part_name(folder: str, upload: str, number: int) -> str:
    """The name of a packed file."""
    return f"{folder}/{upload}-{number}{PACKED}"


def render_statement(
    buildinfo: BuildInfo, upload: str, parts: list[Part], party: Party, now: datetime
) -> bytes:
    """Signed by a party of the fleet, whose certificate travels with it."""
    content = Content(upload=upload, parts=parts, buildinfo=asdict(buildinfo))
    predicate = {"signed_at": now.astimezone(UTC).isoformat(timespec="seconds")}
    statement = make_statement(
        {part.name: part.sha256 for part in parts}, PREDICATE, {**predicate, **content.model_dump()}
    )
    envelope = sign(statement, CryptoSigner(party.load_key()))
    certificate = party.certificate.read_text()
    return json.dumps({"certificate": certificate, "envelope": envelope.decode()}).encode()


def read_statement(
    content: bytes, authority: bytes, stage: str, fingerprint: str, where: str
) -> Entry:
    """The entry; VerificationError for all that a party of this authority has not signed for it.

    A certificate has to have been valid when it signed, not today: what was good stays good. Whose
    word is no longer taken is answered by a new authority.
    """
    try:
        outer = json.loads(content)
        signer = load_pem_x509_certificate(str(outer["certificate"]).encode())
        key = signer.public_key()
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("no ed25519 key")
        envelope = str(outer["envelope"]).encode()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _refusal(where, "this is no statement") from error
    try:
        statement = open_envelope(envelope, SSlibKey.from_crypto(key), PREDICATE, "its envelope")
        predicate = dict(statement["predicate"])
        signed_at = datetime.fromisoformat(str(predicate.pop("signed_at", "")))
        check_certificate(signer.public_bytes(Encoding.PEM), authority, signed_at)
        entry = Entry(Content.model_validate(predicate), name_of(signer), content)
    except VerificationError as error:
        raise _refusal(where, error.brief) from error
    except (ValueError, TypeError) as error:
        said = " ".join(str(error).split()[:20])
        raise _refusal(where, f"its form is not known ({said})") from error
    _require_same(entry, digests_of(statement["subject"]), stage, fingerprint, where)
    return entry


def read_upload(content: bytes) -> str:
    """The upload that a statement names, verified or not; "" for none: what it names may stay."""
    try:
        payload = json.loads(json.loads(content)["envelope"])["payload"]
        upload = str(json.loads(base64.b64decode(payload))["predicate"]["upload"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return upload if UPLOAD.fullmatch(upload) else ""


def _require_same(
    entry: Entry, subject: dict[str, str], stage: str, fingerprint: str, where: str
) -> None:
    """That it is about this artifact, and that its parts do not contradict one another."""
    built, parts = entry.buildinfo, entry.content.parts
    if (built.stage, built.fingerprint) != (stage, fingerprint):
        raise _refusal(where, f"it is about {built.stage} {built.fingerprint[:12]}")
    made_of = {"inputs": built.inputs, "upstream": built.upstream}
    if fingerprint_of({"stage": stage, "revision": built.revision, **made_of}) != fingerprint:
        raise _refusal(where, "what it says it was made of has another fingerprint")
    recorded = {
        name: (facts.get("size"), facts.get("sha256")) for name, facts in built.files.items()
    }
    told = {part.name: (part.size, part.sha256) for part in parts}
    names = [part.name for part in parts]
    if told != recorded or len(set(names)) < len(names):
        raise _refusal(where, "its files are not those of its build")
    if subject != {part.name: part.sha256 for part in parts}:
        raise _refusal(where, "its files are not those that were signed")
    if entry.content.data_bytes > _MOST_BYTES or sum(part.size for part in parts) > _MOST_BYTES:
        raise _refusal(where, "it has more bytes than any artifact")


def _refusal(where: str, why: str) -> VerificationError:
    return VerificationError(f"{where}: {why}", hint=_HINT)
