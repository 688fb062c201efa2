"""What the commands for CI systems take."""

from typing import Literal

from pydantic import Field

from pipeline.commands.options import Guests, NamedPath


class CiMatrix(Guests):
    """doit ci-matrix."""

    format: Literal["gitlab", "github"] = Field(
        title="for which CI system?",
        description="A child pipeline (gitlab), or a matrix (github; Forgejo and Gitea read it).",
        examples=["gitlab"],
    )
    to: NamedPath | None = Field(
        None, description="File to write it to. Default: standard output.", examples=["guests.yml"]
    )
