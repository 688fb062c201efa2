"""How a run ends early, and the gate that nothing passes from then on.

Whoever makes, renames or removes what others see holds the gate while it does so. An interruption
closes the gate first: what is half-way through is finished, what comes later raises Interrupted.
Then commands are ended, changes undone, scratch removed; the process leaves without waiting for its
threads. Only the standard library is imported here: the first lines of the program need it.
"""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

Watcher = Callable[[str, Path], None]

_watcher: Watcher | None = None


def watch(watcher: Watcher | None) -> None:
    """From now on `watcher` is called at each checkpoint, in its thread; None ends that."""
    global _watcher
    _watcher = watcher


def checkpoint(point: str, path: Path) -> None:
    """Say that `point` is reached for `path`; nothing happens unless somebody watches."""
    if _watcher is not None:
        _watcher(point, path)


INTERRUPTED = 130
READER_GONE = 141  # what a shell shows for a program that SIGPIPE ended
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 30.0
# in this order: programs, then changes that are under way, then what was half made, then a word
PROGRAMS, CHANGES, SCRATCH, WORDS = range(4)

Step = Callable[[], Iterable[str] | None]


class Interrupted(KeyboardInterrupt):
    """The run's end has begun: this thread publishes, starts and removes nothing any more.

    No PipelineError, so that nothing that handles those takes it for a failure to go on from.
    """


@dataclass(frozen=True)
class Ending:
    """Why a run ends early, and its exit code; a quiet one says nothing."""

    exit_code: int
    cause: str
    is_quiet: bool = False


_gate = threading.RLock()
_first = threading.RLock()  # a signal's handler may come while its own thread holds it
_inside = threading.local()
_passing: set[Path] = set()
_swept: set[Path] = set()
_steps: list[tuple[int, Step]] = []
_ending: Ending | None = None
_ender = 0
_pending: Ending | None = None


def at_interruption(step: Step, order: int = CHANGES) -> None:
    """Have `step` called before an interrupted process ends; it returns what it had to leave."""
    if (order, step) not in _steps:
        _steps.append((order, step))
        _steps.sort(key=lambda entry: entry[0])


def ending() -> Ending | None:
    """Why the run ends, once its end has begun."""
    return _ending


def refuse_if_ending() -> None:
    """Raises Interrupted in every thread but the one that ends the run."""
    if _ending is not None and _ender != threading.get_ident():
        raise Interrupted(_ending.cause)


@contextmanager
def gate(what: str, path: Path) -> Iterator[None]:
    """Held while `path` is published, replaced, put away. Raises Interrupted once it is closed."""
    checkpoint(f"before {what}", path)
    _inside.depth = getattr(_inside, "depth", 0) + 1  # from here on a signal waits for us
    try:
        with _gate:
            _end_if_pending()
            refuse_if_ending()
            checkpoint(what, path)
            yield
            checkpoint(f"after {what}", path)
    finally:
        _inside.depth -= 1
        _end_if_pending()


@contextmanager
def passing(path: Path) -> Iterator[Path]:
    """A file that is not in its place yet, nor will be if the run ends before."""
    with gate("prepare", path):
        _passing.add(path)
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        _passing.discard(path)


def _end_if_pending() -> None:
    is_main = threading.current_thread() is threading.main_thread()
    if _pending is not None and is_main and not getattr(_inside, "depth", 0):
        end(_pending)


def install() -> None:
    """Have signals end the run; one that was to be ignored (nohup) still is."""
    threading.excepthook = _silence_interrupted
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _pending
    found = Ending(INTERRUPTED, signal.Signals(number).name)
    if getattr(_inside, "depth", 0):
        _pending = found  # this very thread publishes something: first that, then the end
    elif _ending is None:
        end(found)


def _silence_interrupted(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is not Interrupted:
        threading.__excepthook__(failure)


def end(why: Ending) -> NoReturn:
    """End the run: close the gate, carry out every step, say so, leave; the first caller does."""
    global _ending, _ender
    with _first:
        is_first = _ending is None
        if is_first:
            _ender = threading.get_ident()
            _ending = why
    if not is_first:
        raise Interrupted(why.cause)
    left = _settle()
    _sweep("" if why.is_quiet else f"\n{_describe(why, left)}", why.exit_code)


def leave(exit_code: int) -> NoReturn:
    """The usual end: whatever still works is ended in the same order, without a word."""
    end(Ending(exit_code, "", is_quiet=True))


def _settle() -> list[str]:
    left = []
    if _gate.acquire(timeout=PATIENCE_S):  # whoever is inside finishes; nobody else enters
        _gate.release()
    else:
        left.append("a publication that did not end")
    for _order, step in list(_steps):
        try:
            left += step() or ()
        except Exception as error:  # noqa: BLE001 - the end must come, with its own exit code
            left.append(str(error) or type(error).__name__)
    for path in tuple(_passing):
        with suppress(OSError):
            path.unlink(missing_ok=True)
        swept_at_end(path)
    return left


def swept_at_end(path: Path) -> None:
    """Have a path removed once more when no thread of this process lives that could make it."""
    _swept.add(path)


def _sweep(message: str, exit_code: int) -> NoReturn:
    """Become a program that removes, says and leaves: no thread of ours outlives execve(2)."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    paths = [str(path) for path in _swept]
    if not paths and not message:
        os._exit(exit_code)
    script = 'rm -rf --one-file-system -- "$@" 2>/dev/null; '
    script += f'[ -z "$SAID" ] || printf \'%s\\n\' "$SAID" >&2; exit {exit_code}'
    try:
        words = ["sh", "-c", script, "sh", *paths]
        os.execve("/bin/sh", words, {"PATH": "/usr/bin:/bin", "SAID": message})
    except OSError:
        os._exit(exit_code)


def _describe(why: Ending, left: list[str]) -> str:
    if left:
        return f"interrupted ({why.cause}); the next command clears up: {'; '.join(left)}"
    return f"interrupted ({why.cause}): nothing was left behind; the same command again goes on"


class _Output(io.TextIOWrapper):
    """Standard output or error whose reader may go away: that ends the run, without a traceback."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            _end_by_output(error)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            _end_by_output(error)


def _end_by_output(error: OSError) -> NoReturn:
    if error.errno == errno.EPIPE:
        end(Ending(READER_GONE, "nobody reads on", is_quiet=True))
    if error.errno == errno.EIO:
        end(Ending(INTERRUPTED, "the terminal is gone"))
    end(Ending(3, f"standard output: {error.strerror}"))


def guard_output() -> None:
    """A closed pipe, a lost terminal, a full disk behind standard output end the run in order."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is not None:
            wrapped = _Output(
                stream.detach(),
                encoding="utf-8",
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, wrapped)
            setattr(sys, f"__{name}__", wrapped)
