"""What tests wait for: as long as a busy machine takes, and no longer than it has to be."""

import random
import socket
import time
from collections.abc import Callable

from tests.wire import LOCALHOST

PATIENCE_S = 240.0


def wait_for(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Until it holds; fails with `what` when it never does."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.02)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOCALHOST, port)) == 0


def free_port() -> int:
    """One that the kernel gives to no connection meanwhile (it begins at 32768).

    apt-cacher-ng 3.7.4 can neither bind nor ask ports above 32767.
    """
    for port in random.sample(range(20000, 32000), 100):
        if not listens(port):
            return port
    raise AssertionError("no free port")
