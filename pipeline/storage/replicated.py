"""A disk that DRBD will replicate: zeros, and DRBD's own notes at its end."""

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import CommandFailed, EnvironmentFault
from pipeline.process import require_tools
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.devices import Part
from pipeline.storage.disks import MIB
from pipeline.walls.cage import caged_reader
from pipeline.walls.privacy import make_private

TOOLS = {"drbdmeta": "drbd-utils", "drbdadm": "drbd-utils"}


def require_drbd(spec: Spec, _project: Project) -> None:
    """Raises EnvironmentFault where a guest has replicated disks and this machine no drbdmeta."""
    if spec.replicated:
        require_tools(TOOLS)


def require_primary(run: Callable[..., str], resource: str) -> None:
    """Raises EnvironmentFault for a DRBD resource that cannot be written on this machine."""
    require_tools(TOOLS)
    try:
        role = run(["drbdadm", "role", resource]).partition("/")[0].strip()
    except CommandFailed as error:
        raise EnvironmentFault(
            f"this machine knows no DRBD resource {resource}, or it is not up",
            details=error.details,
            hint=f"drbdadm up {resource}; resources stand in /etc/drbd.d",
        ) from error
    if role != "Primary":
        raise EnvironmentFault(
            f"the DRBD resource {resource} is {role} here: nothing can be written to it",
            hint=f"drbdadm primary {resource}; afterwards drbdadm secondary {resource}",
        )


def make_replicated(run: Callable[..., str], image: Path, part: Part) -> None:
    """A sparse file of zeros with notes that say "just created", by drbd-utils' own drbdmeta.

    Not "up to date", with a data generation that both nodes are given: a node that is built again
    alone would come back with its zeros under the generation that its peer's data began with, and
    DRBD would take the two for the same. As it is, it gets all of the peer's data, and two new
    disks are declared the same when the nodes first meet (guest/replication_files.py).
    """
    os.truncate(make_private(image), part.size_mib * MIB)
    # `-`: no device of this machine is meant, which may use DRBD itself
    make = ["drbdmeta", "--force", "-", "v08", image, "internal", "create-md"]
    run(caged_reader(make, writable=[image]))
