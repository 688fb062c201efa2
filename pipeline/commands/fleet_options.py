"""What `doit fleet` takes: a word for what is meant, and the variables that go with it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt

from pipeline.commands.options import NamedPath, Options, Printed
from pipeline.errors import WrongValueError
from pipeline.fleet.address import check_address
from pipeline.shared.fleet_file import StoreUrl
from pipeline.walls.party_names import PARTY_NAME

What = Literal["certificates", "scheduler", "worker", "status", "stop", "units"]
Slots = Annotated[StrictInt, Field(ge=0, le=256)]


def _check_party(text: str) -> str:
    name, *places = text.split("@")
    if not PARTY_NAME.fullmatch(name) or not all(places):
        raise WrongValueError(f"{text!r} is no party", "as build1, or build1@10.0.0.5@build1.lan")
    return text


def _check_name(text: str) -> str:
    if not PARTY_NAME.fullmatch(text):
        raise WrongValueError(f"{text!r} is no name", "as build1")
    return text


Address = Annotated[str, AfterValidator(check_address)]
Parties = tuple[Annotated[str, AfterValidator(_check_party)], ...]
PartyName = Annotated[str, AfterValidator(_check_name)]


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
