"""What the commands that xen-tools had too take, once their lines are read (xen_tools.py)."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, StrictBool, StrictInt

from pipeline.commands.options import Create, GuestNames, NamedPath, Options
from pipeline.errors import WrongValueError


def _check_extension(text: str) -> str:
    if not re.fullmatch("[a-z0-9_.-]*", text):
        raise WrongValueError(f"{text!r} ends no file's name", "for example: .cfg")
    return text


Extension = Annotated[str, BeforeValidator(_check_extension)]


class CreateImage(Create):
    """doit xen-create-image."""

    start: StrictBool = Field(False, description="Start it once it is installed (--boot).")
    genpass: StrictBool = Field(
        True, description="Make up root's password where none is given; it is kept in a file."
    )
    genpass_len: Annotated[StrictInt, Field(ge=1, le=512)] = Field(
        23, description="How long it is.", examples=[23]
    )


class ListImages(Options):
    """doit xen-list-images."""

    folder: NamedPath | None = Field(
        None,
        description="Where the configurations are (--test). Default: /etc/xen.",
        examples=["/etc/xen"],
    )
    extension: Extension = Field(".cfg", description="How their names end.", examples=[".cfg"])


class NamedImages(Options):
    """doit xen-update-image."""

    names: GuestNames = Field(
        alias="name", title="which guests?", description="Which guests.", examples=["web1,web2"]
    )


class DeleteImages(NamedImages):
    """doit xen-delete-image."""

    dry: StrictBool = Field(False, description="Only say what would go (--dry-run).")
