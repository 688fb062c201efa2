"""Disks that several guests write to at once: what one of them has to know."""

from pydantic import Field

from pipeline.spec import values
from pipeline.spec.keys import Section
from pipeline.spec.replication import PartSize, ResourceName

SHARED_FS = "shared"


class SharedKeys(Section):
    """One shared disk of one guest. An appliance writes it for its members."""

    name: ResourceName = Field(
        description="The disk's name, the same in all guests that see it.", examples=["quorum"]
    )
    size: PartSize = Field(
        description="Its size, the same in all guests that see it.", examples=["64M"]
    )
    owner: values.GuestName = Field(
        description="The guest whose artifact holds it; it alone makes it, empty.",
        examples=["cluster-a"],
    )
