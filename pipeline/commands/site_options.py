"""What the commands about a site take."""

from pathlib import Path

from pydantic import Field, StrictBool

from pipeline.commands.options import NamedPath, Options


class Init(Options):
    """doit init."""

    folder: NamedPath | None = Field(
        None, description="Which folder. Default: where you stand.", examples=["/srv/site"]
    )


class ImportXenTools(Options):
    """doit import-xen-tools."""

    file: NamedPath = Field(
        Path("/etc/xen-tools/xen-tools.conf"),
        description="xen-tools' configuration.",
        examples=["/etc/xen-tools/xen-tools.conf"],
    )
    replace: StrictBool = Field(False, description="Replace the values that are there.")
    dry: StrictBool = Field(False, description="Only show what would be written.")
