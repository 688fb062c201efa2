"""What doit export takes."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool

from pipeline.commands.options import Guest, NamedPath, Printed, read_path
from pipeline.errors import WrongValueError

Form = Literal["xva", "ova", "vhd", "vmdk", "qcow2", "raw", "tar"]
STDOUT = "-"
# written from the first byte to the last; the others have places that are filled at the end
STREAMED = ("raw", "vmdk", "xva", "tar")


def _read_target(text: str) -> Path | str:
    return text if text == STDOUT else read_path(text)


class Export(Guest, Printed):
    """doit export."""

    form: Form = Field(
        alias="format",
        title="in which format?",
        description="Machine in one file (xva, ova), disks (vhd, vmdk, qcow2, raw), tree (tar).",
        examples=["qcow2"],
    )
    to: Annotated[Path | str, BeforeValidator(_read_target)] = Field(
        title="where to?",
        description="File, or a folder that is there; - is standard output (raw, vmdk, xva, tar).",
        examples=["/srv/web1.qcow2", "/srv/images", "-"],
    )
    source: Annotated[
        Literal["published"] | NamedPath | None, Field(union_mode="left_to_right")
    ] = Field(
        None,
        alias="from",
        description="`published`, or an artifact folder. Default: what was built here.",
        examples=["published"],
    )
    replace: StrictBool = Field(False, description="Replace what is there by that name.")

    def require_sense(self) -> None:
        """What cannot be written into a pipe, is not."""
        super().require_sense()
        if self.to == STDOUT and (self.form not in STREAMED or self.json_form):
            what = "json=yes" if self.json_form else f"format={self.form}"
            raise WrongValueError(
                f"{what} and to=- do not go together", f"to=FILE; to=- is for {', '.join(STREAMED)}"
            )
