"""What the commands about nights and channels take."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool

from pipeline.commands.options import Guest, Signing, Unproven
from pipeline.errors import WrongValueError


def _check_version(text: str) -> str:
    if not re.fullmatch(r"2\d{7}T\d{6}Z-[0-9a-f]{8}", text):
        raise WrongValueError(f"{text!r} is not a version", "as in output/published/NAME/")
    return text


class Promote(Guest, Unproven, Signing):
    """doit promote."""

    alternatives = ("version", "rollback")

    version: Annotated[str, BeforeValidator(_check_version)] = Field(
        "",
        description="To which version. Default: that of the channel nightly.",
        examples=["20261124T193000Z-1f2e3d4c"],
    )
    channel: Literal["nightly", "stable"] = Field("stable", description="Which channel moves.")
    rollback: StrictBool = Field(False, description="To the version before the one it is at.")
