"""Where the shared disks of guests are that are installed together: each at one place."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.dom0.install import DiskPlan, Plan
from pipeline.errors import VerificationError


def join_shared(plans: Sequence[Plan]) -> list[Plan]:
    """The plans of guests that are installed together, with each shared disk at one place.

    It lies with the one whose artifact has it. Raises VerificationError where none has.
    """
    places = {
        disk.target: planned.disk.target
        for plan in plans
        for disk, planned in zip(plan.source.domain.hard_disks, plan.disks, strict=True)
        if disk.is_shared and planned.disk.is_owned
    }
    return [replace(plan, disks=_join_disks(plan, places)) for plan in plans]


def _join_disks(plan: Plan, places: Mapping[str, str]) -> tuple[DiskPlan, ...]:
    joined = []
    for disk, planned in zip(plan.source.domain.hard_disks, plan.disks, strict=True):
        if not disk.is_shared or planned.disk.is_owned:
            joined.append(planned)
            continue
        if disk.target not in places:
            raise VerificationError(
                f"{plan.name}: its disk {disk.target} is in no other's artifact",
                hint="build all of them again, in one folder: doit build appliance=NAME",
            )
        place = places[disk.target]
        kind = "block" if place.startswith("/dev/") else "file"
        joined.append(DiskPlan(replace(planned.disk, target=place, kind=kind)))
    return tuple(joined)
