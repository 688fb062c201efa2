"""What doit gc takes."""

from typing import Annotated

from pydantic import BeforeValidator, Field, StrictBool

from pipeline.commands.options import Options, Printed
from pipeline.shared.fleet_file import StoreUrl
from pipeline.spec import values


class Collect(Options, Printed):
    """doit gc."""

    keep: Annotated[str, BeforeValidator(values.check_bound)] = Field(
        "20G",
        description="How much may stay besides what is needed; 0: nothing.",
        examples=["5G", "0"],
    )
    dry: StrictBool = Field(False, description="Only say what would go.")
    store: StoreUrl | None = Field(
        None,
        description="Instead of what is kept here: the store that machines share.",
        examples=["s3://builds/store"],
    )

    @property
    def keep_mib(self) -> int:
        """The bound in MiB."""
        return 0 if self.keep == "0" else values.parse_size(self.keep)
