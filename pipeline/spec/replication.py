"""Disks that DRBD replicates between two guests: what one of them has to know."""

import ipaddress
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, StrictStr

from pipeline.spec import values
from pipeline.spec.keys import Section
from pipeline.xen.values import check_range, matching

ELEMENT = "drbd-service"
DRBD_FS = "drbd"

# drbdsetup(8), `new-resource`: a name is a folder in /sys and debugfs, and a word of shell scripts
check_resource = matching(
    "[a-z0-9][a-z0-9_-]{0,31}",
    "is not a resource's name",
    "lower case, digits, '_' and '-', as in r0",
)


def _check_pair(text: str) -> str:
    return values.check_guest_name(text) if text else text


ResourceName = Annotated[StrictStr, AfterValidator(check_resource)]
PartSize = Annotated[str, BeforeValidator(values.check_part_size)]
Port = Annotated[StrictInt, AfterValidator(partial(check_range, least=1, most=65535))]
Minor = Annotated[StrictInt, AfterValidator(partial(check_range, least=0, most=255))]
Protocol = Literal["A", "B", "C"]
AfterZero = Literal["disconnect", "discard-zero-changes", "discard-least-changes"]
AfterOne = Literal["disconnect", "consensus", "discard-secondary"]
AfterTwo = Literal["disconnect"]


class ReplicatedKeys(Section):
    """One replicated disk of one guest, a node: the resource, this node, its peer."""

    name: ResourceName = Field(
        description="The resource's name, the same on both nodes; the end of its volume's name.",
        examples=["r0"],
    )
    size: PartSize = Field(
        description="Size of the disk below it, the same on both nodes; DRBD's own notes take a "
        "little of that.",
        examples=["64M", "20G"],
    )
    address: values.IpAddress = Field(
        description="This node's own address, one of its cards'.", examples=["10.77.0.1"]
    )
    peer: values.HostName = Field(
        description="Host name of the other node, as `uname -n` says there.", examples=["db-b"]
    )
    peer_address: values.IpAddress = Field(
        description="The other node's address.", examples=["10.77.0.2"]
    )
    port: Port = Field(7788, description="TCP port of both nodes.")
    minor: Minor = Field(0, description="Number of the device: /dev/drbdN.")
    protocol: Protocol = Field(
        "C",
        description="When a write is done: A in this node's send buffer, B in the other's memory, "
        "C on both disks.",
    )
    pair: Annotated[StrictStr, AfterValidator(_check_pair)] = Field(
        "",
        description="A name that both nodes give; their common secret is made once, and kept in "
        "output/identity/PAIR/. An appliance's members have its name here.",
        examples=["db"],
    )
    secret_file: values.FilePath = Field(
        "",
        description="Instead of pair: a file of yours that holds the nodes' common secret, one "
        "line of 8 to 63 letters.",
        examples=["secrets/db"],
    )
    after_0pri: AfterZero = Field(
        "discard-zero-changes",
        description="After a split brain without a primary: drbd.conf(5), after-sb-0pri.",
    )
    after_1pri: AfterOne = Field(
        "consensus", description="The same with one primary: after-sb-1pri."
    )
    after_2pri: AfterTwo = Field("disconnect", description="The same with two: after-sb-2pri.")

    @property
    def is_first(self) -> bool:
        """Whether this node is the one of the two that begins what one alone may begin."""
        own, other = map(ipaddress.ip_address, (self.address, self.peer_address))
        return (own.version, int(own)) < (other.version, int(other))
