"""What the commands about nights and channels take."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool

from pipeline.commands.options import (
    ByFleet,
    Guest,
    GuestNames,
    Judged,
    NamedPath,
    Options,
    Printed,
    Signing,
    Unproven,
)
from pipeline.spec import values

_check_time = values.matching(
    re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]"), "is not a time of the day", "as 03:30"
)


_check_version = values.matching(
    re.compile(r"2\d{7}T\d{6}Z-[0-9a-f]{8}"), "is not a version", "as in output/published/NAME/"
)


class Nightly(Options, ByFleet, Printed, Judged):
    """doit nightly."""

    name: GuestNames | None = Field(
        None,
        description="Which guests of nightly.toml, by comma; all of them without it.",
        examples=["test-drbd"],
    )
    limit: values.Duration | None = Field(
        None,
        description="Nothing is begun after this time; 0: any. Default: as nightly.toml says.",
        examples=["6h"],
    )
    quiet: StrictBool = Field(False, description="Say something only where something went wrong.")
    units: NamedPath | None = Field(
        None,
        description="Folder that gets a systemd service and timer for it; no night is begun.",
        examples=["units"],
    )
    at: Annotated[str, BeforeValidator(_check_time)] = Field(
        "03:30", description="With units: when the timer begins a night.", examples=["03:30"]
    )


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
