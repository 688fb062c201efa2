"""What `doit fleet` takes: a word for what is meant, and the variables that go with it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool

from pipeline.commands.options import NamedPath, Options
from pipeline.errors import WrongValueError
from pipeline.walls.certificates import PARTY_NAME

What = Literal["certificates"]


def _check_party(text: str) -> str:
    name, *places = text.split("@")
    if not PARTY_NAME.fullmatch(name) or not all(places):
        raise WrongValueError(f"{text!r} is no party", "as build1, or build1@10.0.0.5@build1.lan")
    return text


Parties = tuple[Annotated[str, AfterValidator(_check_party)], ...]


class Fleet(Options):
    """doit fleet."""

    what: What = Field(title="what of the fleet?", description="What.", examples=["certificates"])
    certificates: NamedPath | None = Field(
        None,
        description="Folder of the fleet's certificates. Default: the site's fleet/.",
        examples=["/srv/site/fleet"],
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
