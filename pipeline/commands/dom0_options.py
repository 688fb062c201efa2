"""What doit dom0 takes."""

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from pipeline.commands.options import Options
from pipeline.errors import WrongValueError


class Dom0(Options):
    """doit dom0."""

    alternatives = ("create", "undo", "confirm")

    create: StrictBool = Field(False, description="Write dom0.toml of what this host has now.")
    dry: StrictBool = Field(False, description="Only show what would change, as diff -u does.")
    now: StrictBool = Field(
        False, description="Bring the network up at once, under a watchdog that takes it back."
    )
    watch: Annotated[StrictInt, Field(ge=1, le=3600)] = Field(
        60,
        description="With now: seconds until it is taken back, unless confirmed.",
        examples=[120],
    )
    confirm: StrictBool = Field(False, description="Keep what the watchdog would take back.")
    undo: StrictBool = Field(False, description="Take back the last change, every file as it was.")
    replace: StrictBool = Field(
        False, description="With undo: files too that somebody changed since; a copy is kept."
    )

    def require_sense(self) -> None:
        """Words that change nothing here would be a wish that nobody hears."""
        super().require_sense()
        if (self.create or self.confirm) and (self.dry or self.now):
            word = "create" if self.create else "confirm"
            raise WrongValueError(f"{word}= stands alone", "leave dry= and now= out")
