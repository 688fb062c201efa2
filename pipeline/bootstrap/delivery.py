"""Packages on their way into the cage: fetched and verified outside, handed in as open files.

The process that unpacks has no network, no credentials and no path to the cache; what it gets is a
descriptor for each package, in the order in which they come (SCM_RIGHTS, unix(7)).
"""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self

from pipeline.bootstrap.order import Deb
from pipeline.errors import PipelineError

CONNECTIONS = 4


class Delivery:
    """The outer end: fetches packages on several connections, in the order given, and sends them.

    `error` is the first failure, after which the inner end sees that nothing more comes. Use it in
    a `with`; `descriptor` has to be kept open for the caged command.
    """

    def __init__(self, debs: Sequence[Deb], fetch: Callable[[Deb], Path]) -> None:
        self._debs, self._fetch = debs, fetch
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sending = threading.Lock()
        self._pool = ThreadPoolExecutor(CONNECTIONS)
        self.descriptor = self._theirs.fileno()
        self.error: PipelineError | None = None

    def __enter__(self) -> Self:
        for deb in self._debs:
            self._pool.submit(self._deliver, deb)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ours.close()
        self._theirs.close()

    def _deliver(self, deb: Deb) -> None:
        try:
            with open(self._fetch(deb), "rb") as file, self._sending, suppress(OSError):
                socket.send_fds(self._ours, [deb.sha256.encode()], [file.fileno()])
        except PipelineError as error:
            self._fail(error)
        except OSError as error:
            self._fail(PipelineError(f"package {deb.name}: {error}", hint="build again"))

    def _fail(self, error: PipelineError) -> None:
        self.error = self.error or error
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)


class Intake:
    """The inner end: a future for each package's open file, as a path of /proc."""

    def __init__(self, descriptor: int, debs: Iterable[Deb]) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._coming: Mapping[str, Future[Path]] = {deb.sha256: Future() for deb in debs}
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def await_file(self, deb: Deb) -> Future[Path]:
        """The file of a package, once it is there; PipelineError when it will never come."""
        return self._coming[deb.sha256]

    def _receive(self) -> None:
        missing = set(self._coming)
        while missing:
            try:
                digest, descriptors, _, _ = socket.recv_fds(self._socket, 128, 1)
            except OSError:
                break
            if not descriptors:
                break
            os.set_inheritable(descriptors[0], False)
            missing.discard(digest.decode())
            self._coming[digest.decode()].set_result(Path(f"/proc/self/fd/{descriptors[0]}"))
        for digest_left in missing:
            error = PipelineError("a package could not be fetched")
            self._coming[digest_left].set_exception(error)
