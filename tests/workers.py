"""Tests side by side: what keeps the workers of pytest-xdist out of each other's leak checks."""

import ctypes
import os
import tempfile
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | 0x40000


def is_worker() -> bool:
    """Whether this process is one of several that run the tests."""
    return "PYTEST_XDIST_WORKER" in os.environ


def live_apart(own: Path) -> None:
    """A worker's own temporary folder and, as root, its own mount namespace.

    Raises OSError when the kernel refuses the namespace.
    """
    temporary = own / "t"
    temporary.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNS) or libc.mount(None, b"/", None, _MS_REC_PRIVATE, None):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "a worker's own mount namespace")
