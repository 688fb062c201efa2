"""What a person sees while doit runs: a line a stage, then where things are or what went wrong."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from doit.exceptions import BaseFail, TaskFailed

from pipeline import interruption
from pipeline.console.answer import ANSWER
from pipeline.console.events import Events
from pipeline.console.progress import print_line
from pipeline.console.terminal import Span, print_error
from pipeline.diagnosis import is_disk_full
from pipeline.errors import PipelineError

_BUILT, _REUSED = Span("built", "ok"), Span("reused", "dim")


class StageFailed(TaskFailed):  # type: ignore[misc]
    """A stage ended with an error that the user can mend."""

    def __init__(self, error: PipelineError) -> None:
        super().__init__(error.brief)
        self.error = error


class StageReporter:
    """doit's reporter: `stage  artifact  what was done  seconds  why`."""

    desc = "a line a stage"

    def __init__(
        self,
        events: Events,
        errors: Sequence[PipelineError] = (),
        summarize: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`errors` are known before anything runs, and printed at the end with the others.

        `summarize` is called when all has run, for a person, with the seconds that it took.
        """
        self._events = events
        self._summarize = summarize
        self._started: dict[str, float] = {}
        self._errors = list(errors)
        self._exit_code = self._errors[0].exit_code if errors else 0
        self._is_complete = False

    def initialize(self, _tasks: Any, selected_tasks: Any) -> None:
        """Before anything runs: an interruption leaves nothing behind."""
        interruption.install()
        interruption.at_interruption(self._note_ending, interruption.WORDS)
        self._events.emit("run started", {"tasks": list(selected_tasks or ())})
        for error in self._errors:
            ANSWER.add_failure((), error)

    def get_status(self, task: Any) -> None:
        """Called when doit looks whether a task is up to date."""

    def execute_task(self, task: Any) -> None:
        """A task starts."""
        self._started[task.name] = time.monotonic()
        if task.meta:
            reason = task.meta["current"].reason if _is_stage(task) else ""
            self._events.emit("started", {**_named(task), "reason": reason})

    def add_success(self, task: Any) -> None:
        """A task ended well."""
        seconds = time.monotonic() - self._started.get(task.name, time.monotonic())
        seconds += task.meta["current"].early_s if _is_stage(task) else 0
        origin = task.meta["current"].origin if _is_stage(task) else ""
        if _is_stage(task) and origin != "built":
            self._end(task, "reused", seconds=round(seconds, 3))
            why = "from the shared store" if origin else "another run has just built it"
            _print_stage(task, _REUSED, f" {seconds:6.1f} s" if origin else "", why)
            return
        self._end(task, "built" if _is_stage(task) else "done", seconds=round(seconds, 3))
        if _is_stage(task):
            _print_stage(task, _BUILT, f" {seconds:6.1f} s", task.meta["current"].reason)

    def _end(self, task: Any, outcome: str, **facts: object) -> None:
        if task.meta:
            made = task.meta["current"].facts() if outcome in ("built", "reused") else {}
            self._events.emit("ended", {**_named(task), "outcome": outcome, **made, **facts})
            guests = _guests_of(task)
            if _is_stage(task):
                told = {"stage": task.meta["stage"], "outcome": outcome}
                told["reason"] = task.meta["current"].reason
                ANSWER.add_stage(guests, {**told, **made, **facts})
            elif outcome == "done":
                ANSWER.end(guests, self._events.seconds)

    def skip_uptodate(self, task: Any) -> None:
        """A stage's artifact is current."""
        self._end(task, "reused")
        if _is_stage(task):
            _print_stage(task, _REUSED, "", "")

    def skip_ignore(self, task: Any) -> None:
        """The user told doit to ignore it."""
        print_line(
            f"  {task.name} is ignored (doit ignore); `doit reset-dep` or `forget` undoes it"
        )

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """A task failed: the user's to mend, or a bug of ours with its traceback."""
        self._end(task, "failed", **_failure_facts(fail))
        if isinstance(fail, StageFailed):
            self._errors.append(fail.error)
            ANSWER.add_failure(_guests_of(task), fail.error)
            self._exit_code = self._exit_code or fail.error.exit_code
        elif fail.report:
            self._exit_code = self._exit_code or 1
            bug = PipelineError("a bug of the pipeline", details=str(fail.get_msg()))
            ANSWER.add_failure(_guests_of(task), bug)
            print_line(
                f"{task.name}: this is a bug of the pipeline, please report it\n{fail.get_msg()}"
            )

    def cleanup_error(self, exception: Any) -> None:
        """A teardown failed; there are none."""
        self.runtime_error(exception.get_msg())

    def runtime_error(self, msg: str) -> None:
        """doit itself could not go on."""
        self._exit_code = self._exit_code or 1
        print(msg, file=sys.stderr)

    def teardown_task(self, task: Any) -> None:
        """There are no teardowns."""

    def complete_run(self) -> None:
        """The end: errors last, and the exit code of the first of them."""
        # what fails beside a full disk mostly fails because of it
        if not ANSWER.is_wanted:
            self._summarize(self._events.seconds)
        full = [error for error in self._errors if is_disk_full(error)]
        for error in full[:1] or self._errors:
            print_error(error)
        if full:
            self._exit_code = full[0].exit_code
        if self._events.trouble is not None:
            print_error(self._events.trouble)
            self._exit_code = self._exit_code or self._events.trouble.exit_code
        try:
            ANSWER.write_junit(self._events.seconds)
        except PipelineError as error:
            print_error(error)
            self._exit_code = self._exit_code or error.exit_code
        self._is_complete = True
        facts = {"exit_code": self._exit_code, "seconds": self._events.seconds}
        self._events.emit("run ended", facts)
        ANSWER.print(self._exit_code, self._events.seconds)
        if self._exit_code:
            sys.stdout.flush()
            raise SystemExit(self._exit_code)

    def _note_ending(self) -> None:
        """For programs that read the events of a run which a signal ended."""
        why = interruption.ending()
        if why is not None and not self._is_complete:
            facts = {"exit_code": why.exit_code, "seconds": self._events.seconds}
            self._events.emit("run ended", {**facts, "signal": why.cause})


def _guests_of(task: Any) -> list[str]:
    return list(task.meta.get("guests", ())) if task.meta else []


def _named(task: Any) -> dict[str, object]:
    """What a task is, for events."""
    kind = "stage" if _is_stage(task) else "word"
    return {"task": task.name, kind: task.meta[kind], "guests": _guests_of(task)}


def _failure_facts(fail: BaseFail) -> dict[str, object]:
    if not isinstance(fail, StageFailed):
        return {"error": str(fail.get_msg()), "exit_code": 1}
    error = fail.error
    return {
        "error": error.brief,
        "hint": error.hint,
        "log": error.log,
        "exit_code": error.exit_code,
    }


def _is_stage(task: Any) -> bool:
    return bool(task.meta) and "stage" in task.meta


def _print_stage(task: Any, what: Span, seconds: str, reason: str) -> None:
    stage, _, artifact = task.name.partition(":")
    why = [Span(f"  ({reason})", "dim")] if reason else []
    print_line(f"  {stage:<8} {artifact:<20} ", what, f"{seconds:<{14 - len(what.text)}}", *why)
