"""The program: signals are met before anything else is imported."""

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
    from pipeline.commands.help import answer, exit_code_of

    words = sys.argv[1:]
    status = answer(words)
    return exit_code_of(words, _run_graph()) if status is None else status


def _run_graph() -> int:
    from doit.doit_cmd import DoitMain

    try:
        return int(DoitMain().run(sys.argv[1:]) or 0)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1


if __name__ == "__main__":
    main()
