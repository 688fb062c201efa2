"""What doit modernize takes."""

from typing import Literal

from pydantic import Field, StrictBool

from pipeline.commands.options import ProveCfg, Undoable, Unproven
from pipeline.errors import WrongValueError
from pipeline.spec import values


class Modernize(ProveCfg, Unproven, Undoable):
    """doit modernize."""

    dry: StrictBool = Field(False, description="Only say what is wrong and what would change.")
    boot: Literal["grub", "direct"] | None = Field(
        None,
        description="Who loads the kernel: GRUB in the guest (the kernel inside it), or dom0. "
        "Default: as now, GRUB in pygrub's place.",
    )

    @property
    def name(self) -> str:
        """The guest's, as its file is called."""
        return self.cfg.name.removesuffix(".cfg")

    def require_sense(self) -> None:
        """A file of /etc/xen is called as its guest."""
        super().require_sense()
        try:
            values.check_guest_name(self.name)
        except WrongValueError as error:
            raise WrongValueError(
                f"cfg={self.cfg}: {error.message}",
                "a configuration is called as its guest, NAME.cfg",
            ) from None
