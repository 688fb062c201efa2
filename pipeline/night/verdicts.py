"""A night in words, and as an exit code."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from pipeline.errors import PipelineError
from pipeline.report.outcome import Fault, GuestNight, Night, Verdict

_MOST_LINES = 8
_JUDGED = ("check", "prove")


class NightTrouble(PipelineError):
    """A night that did not bring every guest to its end; docs/reference/exit-codes.md."""

    def __init__(self, night: Night, exit_code: int, *, details: str, hint: str) -> None:
        super().__init__(describe_night(night), details=details, hint=hint)
        self.exit_code = exit_code


def describe_guest(guest: GuestNight) -> str:
    """One line: what became of it, and why or in which time."""
    line = f"{guest.guest:<15} {guest.verdict:<10}"
    if guest.fault:
        return f"{line} {guest.fault.stage}: {guest.fault.brief}"
    times = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in guest.seconds.items())
    shown = f"{line} {guest.version}" + (f"  ({times})" if times else "")
    return "\n".join([shown, *(f"    {note}" for note in guest.notes)])


def describe_night(night: Night) -> str:
    """The night in one line."""
    counts = Counter(guest.verdict for guest in night.guests)
    told = [f"{counts[verdict]} {verdict}" for verdict in get_args(Verdict) if counts[verdict]]
    return f"night {night.name}: {', '.join(told)}; {night.ended_at - night.began_at:.0f} s"


def find_trouble(
    night: Night, report: str, faults: Sequence[PipelineError] = ()
) -> NightTrouble | None:
    """What a night ends with that was not good throughout, None for a good one.

    `faults` are no guest's. Its exit code is the highest of 5 (check or proof said no), 3 (the
    machine, a mirror, a fault), 1.
    """
    bad = [guest for guest in night.guests if guest.verdict not in ("published", "unchanged")]
    if not bad and not faults:
        return None
    causes: dict[str, list[str]] = {}
    for guest in bad:
        causes.setdefault(_describe_cause(guest.fault), []).append(guest.guest)
    lines = [f"{', '.join(names)}: {cause}" for cause, names in causes.items()]
    for fault in faults:
        lines.append(_describe_cause(Fault("", fault.brief, fault.hint, fault.details)))
    code = max([*map(_code_of, bad), *[3 for _fault in faults]])
    return NightTrouble(night, code, details="\n".join(lines), hint=f"the report: {report}")


def _describe_cause(fault: Fault | None) -> str:
    """Where and why, the end of what was seen, the way out."""
    if fault is None:
        return "the time limit was reached"
    seen = (*fault.details.splitlines()[:_MOST_LINES], fault.hint)
    stage = f"{fault.stage}: " if fault.stage else ""
    return f"{stage}{fault.brief}" + "".join(f"\n    {line}" for line in seen if line)


def _code_of(guest: GuestNight) -> int:
    if guest.verdict == "broken":
        return 3
    return 5 if guest.fault and guest.fault.stage in _JUDGED else 1
