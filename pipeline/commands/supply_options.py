"""What the commands take that verify, scan and reproduce a published version."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pipeline.artifact.channels import LINKS
from pipeline.commands.options import Guest, NamedPath, Options, Printed
from pipeline.errors import WrongValueError
from pipeline.spec import values


def _check_version(text: str) -> str:
    if text not in LINKS and not re.fullmatch(r"2\d{7}T\d{6}Z-[0-9a-f]{8}", text):
        raise WrongValueError(
            f"{text!r} is neither a version nor a channel", "as in output/published/NAME/, stable"
        )
    return text


def _read_place(text: str) -> str:
    """A folder may be named as a URL; what a web server has comes by the image repository."""
    place = text.removeprefix("file://")
    if "://" in place:
        raise WrongValueError(
            f"{text!r} is not a folder",
            "copy it here; or from=URL of list-images and install, which verify what they fetch",
        )
    return place


Folder = Annotated[NamedPath, BeforeValidator(_read_place)]
Version = Annotated[str, BeforeValidator(_check_version)]


class Verify(Options, Printed):
    """doit verify."""

    alternatives = ("name", "folder")

    folder: Folder | None = Field(
        None, description="Folder of a published version.", examples=["/srv/images/web1/current"]
    )
    name: values.GuestName | None = Field(
        None, description="Guest whose published version is meant.", examples=["test-drbd"]
    )
    version: Version | None = Field(
        None,
        description="Which of its versions, or a channel's: stable. Default: the current one.",
        examples=["20261124T193000Z-1f2e3d4c"],
    )
    key: NamedPath | None = Field(
        None,
        description="Public key of who signed. Default: this site's own, keys/statements.pub.",
        examples=["statements.pub"],
    )


class Scan(Guest, Printed):
    """doit scan."""

    version: Version | None = Field(
        None,
        description="Which of its versions, or a channel's: stable. Default: the current one.",
        examples=["20261124T193000Z-1f2e3d4c"],
    )
    db: NamedPath = Field(
        title="against which file?",
        description="The JSON of Debian's security tracker, as it was downloaded.",
        examples=["security-tracker.json"],
    )
    fail: Literal["low", "medium", "high"] | None = Field(
        None,
        description="From which urgency on it is an error (exit code 5). Default: never.",
        examples=["high"],
    )


class Reproduce(Guest, Printed):
    """doit reproduce."""

    version: Version | None = Field(
        None,
        description="Which of its versions, or a channel's: stable. Default: the current one.",
        examples=["20261124T193000Z-1f2e3d4c"],
    )
