"""What the commands about mirrors and releases take."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt

from pipeline.commands.options import Listing, NamedPath, Options
from pipeline.spec import values


class Releases(Listing):
    """doit suites."""

    suites: tuple[values.SuiteName, ...] = Field(
        (), description="Which releases.", examples=["lenny,bookworm"]
    )


class Mirrors(Releases):
    """doit mirrors."""

    mirrors: tuple[values.Mirror, ...] = Field(
        (),
        description="Which mirrors. Default: the host's, those in mirrors/, a running proxy.",
        examples=["host,monmiroir:9999"],
    )


class MirrorProxy(Options):
    """doit mirror-proxy. What is not given is as mirrors/proxy.toml says."""

    alternatives = ("stay", "stop", "status", "units")

    proxy: Literal["approx", "apt-cacher-ng"] | None = Field(None, description="The program.")
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = Field(
        None, description="Where it listens.", examples=[9999]
    )
    upstream: values.Mirror | None = Field(
        None, description="The mirror behind it, in any form of mirror=.", examples=["host"]
    )
    stay: StrictBool = Field(False, description="Let it run on when the command has ended.")
    stop: StrictBool = Field(False, description="Stop the one that runs.")
    status: StrictBool = Field(False, description="Say whether it runs, and how much it holds.")
    units: NamedPath | None = Field(
        None,
        description="Folder that gets systemd units for a machine that serves a lab.",
        examples=["lab"],
    )
