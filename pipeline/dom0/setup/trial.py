"""A network on trial: brought up at once under the watchdog, kept when somebody can answer over it.

Whoever started it over SSH has confirmed it when his side acknowledges what is sent after the
change; from a console, `doit dom0 confirm=yes` does.
"""

import time
from collections.abc import Callable
from pathlib import Path

from pipeline.console.progress import print_line
from pipeline.dom0.layout import Layout
from pipeline.dom0.setup.connection import Connection, find_connection
from pipeline.dom0.setup.host_change import changing_host, list_changes, named_parts
from pipeline.dom0.setup.watchdog import (
    Watch,
    is_on_trial,
    keep_change,
    run_switch,
    start_watchdog,
    take_back,
)
from pipeline.errors import PipelineError, VerificationError

_SETTLED_S, _POLL_S, _PROOFS, _GRACE_S = 2.0, 0.3, 3, 60.0


def try_change(layout: Layout, watch: Watch, change: Callable[[], object], *, log: Path) -> None:
    """Leave one network, change the files, enter the other; `changing_host` is held.

    A command that fails takes all of it back. Raises PipelineError with what it said.
    """
    if not any(part.works_at_once for part in named_parts(watch.parts)):
        change()
        return
    start_watchdog(layout, watch, log=log)
    try:
        run_switch(layout, watch, "deactivate")
        change()
        run_switch(layout, watch, "activate")
    except PipelineError as error:
        take_back(layout)
        raise PipelineError(
            f"the change was taken back: {error.brief}", details=error.details, hint=error.hint
        ) from error


def await_answer(layout: Layout, watch: Watch) -> None:
    """Keep the change once this command's own connection is seen to live, or somebody confirms it.

    Raises VerificationError where the watchdog has taken it back meanwhile.
    """
    if not is_on_trial(layout):
        return
    connection = find_connection()
    if connection is None:
        print_line(f"  the network is on trial for {watch.seconds_left:.0f} s; keep it:")
        print_line("    doit dom0 confirm=yes")
        return
    time.sleep(_SETTLED_S)
    if all(_answers(layout, connection, watch, number) for number in range(1, _PROOFS + 1)):
        with changing_host(layout):
            keep_change(layout)
        print_line("  it does: the change stays")
    elif not _was_kept(layout, watch):
        raise VerificationError(
            "the change was taken back: this connection did not answer over the new network",
            hint="look at the addresses, ports and gateway in dom0.toml, then again",
        )


def _answers(layout: Layout, connection: Connection, watch: Watch, number: int) -> bool:
    """Whether what is printed now is acknowledged while the trial lasts."""
    before = connection.acked_bytes
    print_line(f"  does {connection.peer} still answer? ({number} of {_PROOFS})")
    if before is None:
        print_line("  this cannot be seen here; in time: doit dom0 confirm=yes")
    while is_on_trial(layout):
        now = connection.acked_bytes
        if before is not None and now is not None and now > before:
            return True
        if watch.seconds_left < -_GRACE_S:  # the watchdog was killed
            with changing_host(layout):
                take_back(layout)
        time.sleep(_POLL_S)
    return False


def _was_kept(layout: Layout, watch: Watch) -> bool:
    is_in_force = watch.change in [change.number for change in list_changes(layout)]
    return is_in_force == (watch.back_to == "old")
