"""The journal of the night that runs, or of one that was killed: output/reports/.night.json.

It is there from before the first guest until the report is written: who finds it without its lock
being held finds a night that did not come to its end.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.console.progress import print_line
from pipeline.files import damaged, read_table, write_durably
from pipeline.locks import hold, release
from pipeline.project import Project

_WHAT = "the journal of a night"
_FORM = 1
_NAME = ".night.json"


@dataclass(frozen=True)
class Journal:
    """A night: `before` is where each guest's channel nightly led when it began, "" for nowhere.

    `at` is the guest that it was at last, "" before the first. `done` are those that it was done
    with, with the verdict.
    """

    name: str
    began_at: int
    pid: int
    before: Mapping[str, str]
    at: str = ""
    done: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """Which night, by whom, and how far."""
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.began_at))
        at = f", at {self.at}" if self.at else ""
        return f"{self.name} (process {self.pid}, since {since}{at})"

    def describe_end(self) -> str:
        """How it ended that had no end."""
        left = [name for name in self.before if name not in self.done and name != self.at]
        texts = [f"at {self.at}" if self.at else "before its first guest"]
        texts += [f"not begun: {', '.join(left)}"] if left else []
        return f"the night {self.name} was ended {'; '.join(texts)}"


def read_journal(project: Project) -> Journal | None:
    """The journal, if there is one; Damaged when it is none."""
    path = _path(project)
    try:
        table = read_table(path, _WHAT)
    except FileNotFoundError:
        return None
    try:
        return Journal(
            str(table["name"]),
            int(table["began_at"]),
            int(table["pid"]),
            {str(guest): str(version) for guest, version in table["before"].items()},
            str(table["at"]),
            {str(guest): str(verdict) for guest, verdict in table["done"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, _WHAT, error) from error


def write_journal(project: Project, journal: Journal) -> None:
    """Write it down, durably."""
    table = {"form": _FORM, **asdict(journal)}
    write_durably(_path(project), f"{json.dumps(table, indent=1)}\n".encode())


def end_journal(project: Project) -> None:
    """The night has come to its end."""
    _path(project).unlink(missing_ok=True)


@contextmanager
def only_night(project: Project) -> Iterator[None]:
    """While this is the only night; raises InUseError with whose the other one is."""
    path = project.reports / ".night.lock"
    other = read_journal(project)
    what = f"a night is at work here: {other.describe() if other else 'it begins or ends'}"
    hold(path, what, say=print_line)
    try:
        for left in project.reports.glob(
            f".{_NAME}.*"
        ):  # half a journal of a night that was killed
            left.unlink()
        yield
    finally:
        release(path)


def _path(project: Project) -> Path:
    return project.reports / _NAME
