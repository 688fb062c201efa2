"""What the targets of an image repository say: which guests, versions and channels, and of what.

All of it is signed, and is checked nonetheless: what is read here becomes paths and sizes.
"""

import json
import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import VerificationError
from pipeline.spec import values

INDEX = "index.json"
FORM = 1
_VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE = re.compile(r"golden(-[a-zA-Z0-9_.-]{1,200})?\.img")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,100}")
_CHANNEL = re.compile(r"[a-z][a-z0-9-]{0,30}")
_MOST_BYTES = 1 << 44


def _only(pattern: re.Pattern[str]) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text) or ".." in text:
            raise ValueError("not a name that can be")
        return text

    return AfterValidator(check)


GuestName = Annotated[str, AfterValidator(values.check_guest_name)]
VersionName = Annotated[str, _only(_VERSION)]
ChannelName = Annotated[str, _only(_CHANNEL)]
Digest = Annotated[str, _only(_DIGEST)]
FileName = Annotated[str, _only(_FILE)]
ImageName = Annotated[str, _only(_IMAGE)]
Size = Annotated[int, Field(ge=0, le=_MOST_BYTES)]


class _Signed(BaseModel):
    """What a later release may have added is passed over."""

    model_config = ConfigDict(frozen=True, strict=True, defer_build=True)

    def to_bytes(self) -> bytes:
        """The same content is the same bytes."""
        return f"{json.dumps(self.model_dump(), indent=1, sort_keys=True)}\n".encode()


class Image(_Signed):
    """A golden image: its size in bytes, its fs-verity digest, and those it can be made from."""

    size: Size
    digest: Digest
    deltas: dict[Digest, Size] = {}


class Manifest(_Signed):
    """A version of a guest. `files` are sha256 digests, `packed` bytes of a first download.

    `origin` is what it was made from: stage to fingerprint.
    """

    form: int = FORM
    guest: GuestName
    version: VersionName
    proof: str
    epoch: int
    spec: dict[str, Any]
    origin: dict[str, str]
    images: dict[ImageName, Image]
    files: dict[FileName, Digest]
    packed: Size


class VersionEntry(_Signed):
    """What a list shows of a version."""

    proof: str
    suite: str
    packed: Size


class GuestEntry(_Signed):
    """A guest: where each channel leads, and all versions."""

    channels: dict[ChannelName, VersionName]
    versions: dict[VersionName, VersionEntry]


class Index(_Signed):
    """All guests of a repository."""

    form: int = FORM
    guests: dict[GuestName, GuestEntry]


Kind = TypeVar("Kind", Index, Manifest)


def read(kind: type[Kind], content: bytes, *, source: str) -> Kind:
    """Raises VerificationError for what is none of ours, or of a form that is not known here."""
    try:
        signed = kind.model_validate_json(content)
        if signed.form != FORM:
            raise ValueError(f"form {signed.form}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        why = f"{where}: {first['msg']}" if where else first["msg"]
        raise _unknown(source, why) from None
    except ValueError as error:
        raise _unknown(source, str(error)) from None
    return signed


def _unknown(source: str, why: str) -> VerificationError:
    return VerificationError(
        f"{source}: signed, but nothing that is understood here ({why[:200]})",
        hint="is this pipeline older than the one that published? Take a newer one",
    )


def manifest_path(guest: str, version: str) -> str:
    """The target that describes a version."""
    return f"guests/{guest}/{version}.json"


def image_path(digest: str) -> str:
    """The target that holds an image."""
    return f"images/{_hex(digest)}.blocks"


def delta_path(digest: str, older: str) -> str:
    """The target that holds what an image has and an older one has not."""
    return f"deltas/{_hex(digest)}-{_hex(older)}.blocks"


def file_path(digest: str) -> str:
    """The target that holds a small file."""
    return f"files/{_hex(digest)}"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
