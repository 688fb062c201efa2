"""Why a test host stopped working in the middle of a proof: told apart from a guest that fails."""

from __future__ import annotations

from pipeline.errors import PipelineError
from pipeline.proof.errors import Broken
from pipeline.proof.machine import Machine

ANSWER_S = 10.0


def explain_fault(machine: Machine, error: PipelineError) -> Broken:
    """What went wrong around the guest, as Broken: QEMU itself is asked what state it is in."""
    state = _ask_state(machine)
    if state == "io-error":
        # QEMU's werror=enospc stops the whole machine rather than lose a write
        return Broken(
            "the test host stands still: there is no space left for what it writes",
            details=error.brief,
            hint="free space where output/scratch is, then prove again",
        )
    if state == "ended":
        return Broken("the test host's QEMU ended", details=error.brief, hint=error.hint)
    if isinstance(error, Broken):
        return error
    return Broken(error.brief, details=error.details, hint=error.hint)


def _ask_state(machine: Machine) -> str:
    try:
        machine.monitor.limit_patience(ANSWER_S)
        return str(machine.monitor.ask("query-status")["status"])
    except Broken as gone:
        return "silent" if "does not answer" in gone.brief else "ended"
