"""What doit push takes."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.commands.options import Guest, NamedPath
from pipeline.errors import WrongValueError

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})(:[1-9][0-9]{0,4})?")
_WORD = re.compile(r"[A-Za-z0-9._@\\-]{1,64}")


def _check_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise WrongValueError(f"{text!r} is no host", "its name or IPv4 address: xcp1, xcp1:8443")
    return text


def _check_user(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise WrongValueError(f"{text!r} is no user")
    return text


def _check_storage(text: str) -> str:
    if not text.isprintable() or len(text) > 255:
        raise WrongValueError(f"{text!r} is no name of a storage repository")
    return text


def _check_fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if text and not re.fullmatch("[0-9a-f]{64}", digits):
        raise WrongValueError(f"{text!r} is no SHA-256", "64 digits, with or without colons")
    return digits


class Push(Guest):
    """doit push."""

    alternatives = ("certificate", "fingerprint")

    host: Annotated[str, AfterValidator(_check_host)] = Field(
        title="to which host?",
        description="Master of the pool, XCP-ng or XenServer, or a member.",
        examples=["xcp1", "192.0.2.10"],
    )
    user: Annotated[str, AfterValidator(_check_user)] = Field(
        "root", description="Who may import machines there.", examples=["root"]
    )
    password: NamedPath | None = Field(
        None,
        description="File whose first line is the password. Default: what DOMU_XAPI_PASSWORD has.",
        examples=["/root/secrets/xcp1"],
    )
    sr: Annotated[str, AfterValidator(_check_storage)] = Field(
        "",
        description="Storage repository, its UUID or name. Default: the pool's own default.",
        examples=["Local storage"],
    )
    certificate: NamedPath | None = Field(
        None,
        description="Certificate of the host, or of its authority. Default: this machine's own.",
        examples=["/root/xcp1.pem"],
    )
    fingerprint: Annotated[str, AfterValidator(_check_fingerprint)] = Field(
        "",
        description="SHA-256 of the host's certificate, in the place of an authority.",
        examples=["5f" * 32],
    )
    source: Annotated[
        Literal["published"] | NamedPath | None, Field(union_mode="left_to_right")
    ] = Field(
        None,
        alias="from",
        description="`published`, or an XVA file. Default: what was built here.",
        examples=["published"],
    )
