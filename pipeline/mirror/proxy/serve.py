"""The proxy's own process: `python -m pipeline.mirror.proxy.serve PLAN`, until it is told to end.

It listens, gives up root's rights, and hands each connection to approx as inetd does, or starts
apt-cacher-ng. Where its standard input is a pipe, it ends when that closes: with the build.
"""

import grp
import json
import os
import pwd
import signal
import socket
import stat
import sys
import threading
from pathlib import Path

from pipeline import process
from pipeline.errors import PipelineError
from pipeline.mirror.proxy.engines import Plan
from pipeline.mirror.proxy.settings import LOCALHOST

MOST_CONNECTIONS = 32


def main(path: Path) -> int:
    """Serve the plan in a file; returns the exit status."""
    plan = Plan(**json.loads(path.read_text()))
    signal.signal(signal.SIGTERM, lambda *_: _end())
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_the_build, daemon=True).start()
    os.umask(0o022)
    listener = _listen(plan.port) if plan.engine == "approx" else None
    owner = _give_up_root(plan)
    plan.conf.parent.mkdir(parents=True, exist_ok=True)
    plan.conf.write_text(plan.render(owner))
    if listener is None:
        process.run(plan.argv(), on_line=lambda line: print(line, end="", flush=True))
        return 0
    places = threading.BoundedSemaphore(MOST_CONNECTIONS)
    while True:
        connection, _ = listener.accept()
        places.acquire()
        threading.Thread(target=_hand_over, args=(plan, connection, places), daemon=True).start()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOCALHOST, port))
    listener.listen(128)
    return listener


def _give_up_root(plan: Plan) -> tuple[str, str]:
    """Become the plan's user where it names one; the names of user and group."""
    if plan.user:
        user = pwd.getpwnam(plan.user)
        for folder, _, files in os.walk(plan.folder):
            for one in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(one, user.pw_uid, user.pw_gid, follow_symlinks=False)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    return pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


def _hand_over(plan: Plan, connection: socket.socket, places: threading.Semaphore) -> None:
    try:
        with connection:
            process.serve_connection(plan.argv(), connection)
    except PipelineError as error:
        print(error.brief, flush=True)
    finally:
        places.release()


def _end_with_the_build() -> None:
    while os.read(0, 1):
        pass
    _end()


def _end() -> None:
    os._exit(0)  # what it started dies with it (PR_SET_PDEATHSIG)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
