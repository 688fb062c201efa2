"""kill -9 before each single change that a command makes to the file system, one after the other.

The command runs in a forked child. Every call that changes a name or a size (rename, unlink, mkdir,
symlink, truncate...) and every program that is started counts; at the chosen one the child kills
itself. So no moment between two changes is left out, which a clock could not promise.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from pipeline import process

ALL_CALLS = (
    *("replace", "rename", "link", "symlink", "unlink", "remove", "rmdir", "mkdir"),
    *("truncate", "ftruncate", "write", "chmod"),
)
SURVIVED = 0


def run_and_kill(
    action: Callable[[], object], at: int, *, calls: tuple[str, ...] = ALL_CALLS
) -> int:
    """Run `action` in a child that dies at its `at`-th change; SURVIVED, or minus the signal.

    `calls` are the functions of os that count, beside every program that is started.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _arm(at, calls)
            action()
            status = SURVIVED
        except Exception:  # noqa: BLE001 - the child ends here, whatever it is
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, waited = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(waited)


def _arm(at: int, calls: tuple[str, ...]) -> None:
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count()
            return real(*arguments, **options)

        return call

    for name in calls:
        setattr(os, name, counted(getattr(os, name)))
    process.run = counted(process.run)
