"""What `doit fleet` takes, a word for what is meant, and what takes a guest to a pool."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt

from pipeline.commands.options import Guest, NamedPath, Options, Printed
from pipeline.errors import WrongValueError
from pipeline.fleet.address import check_address
from pipeline.shared.fleet_file import StoreUrl
from pipeline.walls.party_names import PARTY_NAME
from pipeline.xen.values import matching

What = Literal["certificates", "scheduler", "worker", "status", "stop", "units"]
Slots = Annotated[StrictInt, Field(ge=0, le=256)]


def _check_party(text: str) -> str:
    name, *places = text.split("@")
    if not PARTY_NAME.fullmatch(name) or not all(places):
        raise WrongValueError(f"{text!r} is no party", "as build1, or build1@10.0.0.5@build1.lan")
    return text


Address = Annotated[str, AfterValidator(check_address)]
Parties = tuple[Annotated[str, AfterValidator(_check_party)], ...]
PartyName = Annotated[str, AfterValidator(matching(PARTY_NAME.pattern, "is no name", "as build1"))]


class Fleet(Options, Printed):
    """doit fleet."""

    what: What = Field(title="what of the fleet?", description="What.", examples=["status"])
    certificates: NamedPath | None = Field(
        None,
        description="Folder of the fleet's certificates. Default: the site's fleet/.",
        examples=["/srv/site/fleet"],
    )
    party: PartyName | None = Field(
        None,
        description="Whose certificate is shown. Default: the only one there, or this host's.",
        examples=["build1"],
    )
    parties: Parties = Field(
        (),
        description="For certificates: the machines, each with its addresses after @. Default: "
        "this one.",
        examples=["build1@10.0.0.5,build2@10.0.0.6"],
    )
    renew: StrictBool = Field(
        False, description="For certificates: anew where there are some, with new keys."
    )
    listen: Address | None = Field(
        None,
        description="For the scheduler: where it listens. Default: tls://0.0.0.0:8786, without "
        "certificates tcp://127.0.0.1:8786.",
        examples=["tls://10.0.0.5:8786"],
    )
    scheduler: Address | None = Field(
        None,
        description="Which scheduler. Default: that of fleet.toml, or the one on this machine.",
        examples=["tls://build1:8786"],
    )
    worker: PartyName | None = Field(
        None,
        description="For a worker: what it is called. Default: its certificate's name.",
        examples=["build1"],
    )
    build: Slots | None = Field(
        None,
        description="For a worker: how many stages at once. Default: half of the processors.",
        examples=[2],
    )
    prove: Slots | None = Field(
        None,
        description="For a worker: how many proofs at once. Default: 1 where QEMU is, else 0.",
        examples=[1],
    )
    store: StoreUrl | None = Field(
        None,
        description="For a worker: the shared store as it reaches it. Default: as whoever asks.",
        examples=["s3://bucket/store"],
    )
    units: NamedPath | None = Field(
        None, description="For units: folder that gets systemd services.", examples=["units"]
    )


_check_host = matching(
    "[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})(:[1-9][0-9]{0,4})?",
    "is no host",
    "its name or IPv4 address: xcp1, xcp1:8443",
)
_check_user = matching(r"[A-Za-z0-9._@\\-]{1,64}", "is no user")


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
