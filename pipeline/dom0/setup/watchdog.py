"""The watchdog of a network that is changed under those who use it.

`watch.json` says what is tried and until when; removing it keeps the change. A process of its own,
in a session of its own, waits for that and takes the change back otherwise: files and network,
whatever has become of the command that started it. Times are CLOCK_BOOTTIME's.
"""

import json
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline import process
from pipeline.console.progress import print_line
from pipeline.dom0.layout import Layout
from pipeline.dom0.setup.host_change import (
    HOST,
    Side,
    changing_host,
    forget_undone,
    list_changes,
    named_parts,
    redo_change,
    undo_change,
)
from pipeline.dom0.setup.host_file import Command
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.errors import EnvironmentFault, InUseError, PipelineError
from pipeline.files import damaged, read_table, take, write_durably
from pipeline.locks import is_locked, try_locked

_WHAT = "what the watchdog of doit dom0 waits for"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_S, _POLL_S = 30.0, 0.2
_BACK_S = 300  # DHCP takes a minute and more where nobody answers


@dataclass(frozen=True)
class Watch:
    """A change on trial: `left` are the settings of before, `entered` those that are tried.

    `back_to` are the files that it goes back to, the change's old ones or, of an undo, its new
    ones. `boot` is the kernel's name for this run of the machine.
    """

    change: int
    back_to: Side
    parts: tuple[str, ...]
    left: HostSettings
    entered: HostSettings
    ends_at: float
    boot: str

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the machine was not started since."""
        return self.boot == _BOOT_ID.read_text().strip()

    @property
    def seconds_left(self) -> float:
        """Until it is taken back."""
        return self.ends_at - time.clock_gettime(time.CLOCK_BOOTTIME)


def begin_watch(
    change: int,
    back_to: Side,
    parts: Iterable[str],
    *,
    left: HostSettings,
    entered: HostSettings,
    seconds: int,
) -> Watch:
    """A watch that ends after so many seconds from now."""
    ends_at = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
    boot = _BOOT_ID.read_text().strip()
    return Watch(change, back_to, tuple(parts), left, entered, ends_at, boot)


def read_watch(layout: Layout) -> Watch | None:
    """What is on trial; None for nothing. Raises Damaged for what we never wrote."""
    path = _path(layout)
    try:
        table = read_table(path, _WHAT)
        sides: dict[str, Side] = {"old": "old", "new": "new"}
        return Watch(
            change=take(table, "change", int),
            back_to=sides[take(table, "back_to", str)],
            parts=tuple(map(str, take(table, "parts", list))),
            left=HostSettings.model_validate(take(table, "left", dict)),
            entered=HostSettings.model_validate(take(table, "entered", dict)),
            ends_at=take(table, "ends_at", float),
            boot=take(table, "boot", str),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise damaged(path, _WHAT, error) from error


def start_watchdog(layout: Layout, watch: Watch, *, log: Path) -> None:
    """Have the change taken back in time; raises EnvironmentFault where nobody would."""
    table = asdict(watch)
    table["left"] = watch.left.model_dump(mode="json", exclude_defaults=True)
    table["entered"] = watch.entered.model_dump(mode="json", exclude_defaults=True)
    write_durably(_path(layout), json.dumps(table).encode(), mode=0o600)
    started = process.start_daemon(
        [sys.executable, "-m", "pipeline.dom0.setup.watchdog", layout.root],
        log=log,
        is_tethered=False,
    )
    end = time.monotonic() + _START_S
    while not is_watched(layout):
        if started.poll() is not None or time.monotonic() > end:
            _path(layout).unlink(missing_ok=True)
            raise EnvironmentFault(
                "nothing was changed: the watchdog did not start", hint=f"look at {log}"
            )
        time.sleep(_POLL_S)


def is_on_trial(layout: Layout) -> bool:
    """Whether a change waits for somebody to keep it."""
    return _path(layout).exists()


def is_watched(layout: Layout) -> bool:
    """Whether the watchdog lives."""
    return is_locked(_lock(layout))


def keep_change(layout: Layout) -> bool:
    """End the trial, the change stays; says whether there was one. `changing_host` is held."""
    is_there = is_on_trial(layout)
    _path(layout).unlink(missing_ok=True)
    forget_undone(layout)
    return is_there


def take_back(layout: Layout) -> bool:
    """Files and network as before the trial; says whether there was one. `changing_host` is held.

    What a command says that fails is told; the others are run all the same.
    """
    watch = read_watch(layout)
    if watch is None:
        return False
    if watch.is_of_this_boot:
        run_switch(layout, watch, "deactivate", back=True)
    for change in list_changes(layout, undone=True):
        if change.number == watch.change and change.is_undone != (watch.back_to == "old"):
            try:
                if watch.back_to == "old":
                    undo_change(layout, change, replaces=True)
                else:
                    redo_change(layout, change)
            except PipelineError as error:
                print_line(f"  {error.brief}")
    if watch.is_of_this_boot:
        run_switch(layout, watch, "activate", back=True)
    _path(layout).unlink(missing_ok=True)
    return True


def run_switch(layout: Layout, watch: Watch, what: str, *, back: bool = False) -> None:
    """Leave one network, or enter the other. Raises PipelineError where a command fails, or does
    not end while the trial lasts; on the way `back` that is told, and the next one is run."""
    for command in switch_commands(layout, watch, what, back=back):
        limit_s = _BACK_S if back else max(1, int(watch.seconds_left))
        try:
            process.run(["timeout", "-k", 5, limit_s, *command], is_cleanup=back)
        except PipelineError as error:
            if not back:
                raise
            print_line(f"  {shlex.join(command)}: {error.brief}")


def switch_commands(
    layout: Layout, watch: Watch, what: str, *, back: bool = False
) -> list[Command]:
    """What is run to `deactivate` one network, or `activate` the other."""
    settings = (watch.entered, watch.left) if back else (watch.left, watch.entered)
    view = HostView.of(layout.root)
    parts = named_parts(watch.parts)
    made = [command for part in parts for command in getattr(part, what)(*settings, view)]
    return list(dict.fromkeys(made))


def refuse_while_watched(layout: Layout) -> None:
    """Raises InUseError while a change is on trial; one whose watchdog was killed is taken back."""
    watch = read_watch(layout)
    if watch is None:
        return
    if watch.is_of_this_boot and not is_watched(layout):
        take_back(layout)
        print_line("  a change was taken back that nobody confirmed: its watchdog was killed")
        return
    since = f"for {watch.seconds_left:.0f} s more" if watch.is_of_this_boot else "since a restart"
    raise InUseError(
        f"a change of the network is on trial, {since}",
        hint="doit dom0 confirm=yes keeps it, doit dom0 undo=yes takes it back",
    )


def _path(layout: Layout) -> Path:
    return layout.state / HOST / "watch.json"


def _lock(layout: Layout) -> Path:
    return layout.state / HOST / "watch.lock"


def main() -> int:
    """The watchdog itself, with the host's root as its argument."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    layout = Layout(Path(sys.argv[1]))
    watch = read_watch(layout)  # before the lock, by which it is known to live
    with try_locked(_lock(layout)) as is_ours:
        if watch is None or not is_ours:
            return 0
        while watch.is_of_this_boot and watch.seconds_left > 0 and is_on_trial(layout):
            time.sleep(_POLL_S)
        while is_on_trial(layout):
            # a command that stands still has the lock
            with suppress(InUseError), changing_host(layout):
                take_back(layout)
        _lock(layout).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
