"""What the commands take that bring along what others have made."""

from typing import Annotated

from pydantic import BeforeValidator, Field, StrictBool

from pipeline.commands.options import NamedPath, Options, Printed
from pipeline.errors import WrongValueError
from pipeline.spec import values


def _split(given: object) -> object:
    files = given.split(",") if isinstance(given, str) else given
    if not files:
        raise WrongValueError("no file is named", "write it as /etc/xen/web1.cfg")
    return files


class Import(Options, Printed):
    """doit import."""

    file: Annotated[tuple[NamedPath, ...], BeforeValidator(_split)] = Field(
        title="which configuration?",
        description="Configurations of xl or xm, libvirt's XML, xen-tools.conf; or a folder of "
        "them. What each is, its content says.",
        examples=["/etc/xen/web1.cfg", "/etc/xen"],
    )
    name: values.GuestName | None = Field(
        None, description="Another name for the guest.", examples=["web1"]
    )
    suite: values.SuiteName | None = Field(
        None,
        description="The release that the guest is. Default: a guess by the kernel's name.",
        examples=["bookworm"],
    )
    replace: StrictBool = Field(False, description="Write over the spec that is there.")
    dry: StrictBool = Field(False, description="Only show what would be written.")
