"""doit for this project: signals are met before anything else is imported."""

from __future__ import annotations

import sys
import threading

from pipeline import interruption


def main() -> None:
    """Run doit; whatever still works when it has ended is ended in order."""
    interruption.install()
    interruption.guard_output()
    sys.argv[0] = "doit"
    try:
        status = _run()
        sys.stdout.flush()
    except interruption.Interrupted:
        threading.Event().wait()  # the thread that ends the run leaves for all
    interruption.leave(status)


def _run() -> int:
    from doit.doit_cmd import DoitMain  # 100 ms: a signal must not come in between

    try:
        return int(DoitMain().run(sys.argv[1:]) or 0)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1


if __name__ == "__main__":
    main()
