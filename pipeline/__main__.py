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
    """Imports take 100 ms and more: a signal must not come in between."""
    words = sys.argv[1:]
    if words[:1] == ["help"] or {"-h", "--help"} & set(words):
        from pipeline.commands.help import DOIT, print_help

        topics = [word for word in words if word[:1] != "-" and word != "help"]
        if not DOIT & set(topics):
            return print_help(topics)
        sys.argv[1:] = ["help", *(topic for topic in topics if topic != "doit")]
    from doit.doit_cmd import DoitMain

    try:
        return int(DoitMain().run(sys.argv[1:]) or 0)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1


if __name__ == "__main__":
    main()
