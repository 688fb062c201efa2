"""A pool of XCP-ng or XenServer as its own client (PyPI xenapi) reaches it: machines imported.

The calls are XML-RPC, the disk goes by HTTP PUT /import with the session and a task; whether it
arrived the task says, not HTTP: the server answers before it has read all. Both go over TLS that is
verified: by a certificate that is named, by an authority of this machine, or by a fingerprint.
"""

import hashlib
import http.client
import re
import socket
import ssl
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlencode

import XenAPI

from pipeline.errors import (
    DiskFull,
    EnvironmentFault,
    PipelineError,
    UsageError,
    VerificationError,
)
from pipeline.interruption import at_interruption, refuse_if_ending

_API, _CLIENT = "1.0", "domu-pipeline"
_PORT = 443
_PATIENCE_S, _SLOW_S = 30.0, 600.0  # of a call; of a host whose disks are slow
_POLL_S, _CANCEL_S = 1.0, 20.0
_NOTHING = "OpaqueRef:NULL"
_MACHINE = re.compile(r"OpaqueRef:[0-9a-f-]{36}")


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who we are there, and how the server is known.

    `certificate` is a PEM file of it or its authority, `fingerprint` the SHA-256 (hex) of its
    certificate; without both the authorities of this machine vouch for it.
    """

    user: str
    password: str
    certificate: Path | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Pushed:
    """A machine that is there now."""

    ref: str
    uuid: str
    label: str


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over the connection that is verified our way."""

    def __init__(self, connect: Callable[[float], http.client.HTTPSConnection]) -> None:
        super().__init__()
        self._connect = connect

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """What the base class asks for."""
        if self._connection[1] is None:
            self._connection = host, self._connect(_PATIENCE_S)
        connection = self._connection[1]
        assert isinstance(connection, http.client.HTTPConnection)
        return connection


class Pool:
    """A session with the master of a pool."""

    def __init__(self, host: str, access: Access) -> None:
        self.host = host
        self._access = access
        self._session = self._new_session()

    def _new_session(self) -> XenAPI.Session:
        return XenAPI.Session(f"https://{self.host}", transport=_Transport(self._connect))

    def log_in(self) -> "Pool":
        """This pool, or that of the master which a member names.

        Raises UsageError for a password that is not right, EnvironmentFault without an answer.
        """
        try:
            with _explained(self.host):
                self._session.login_with_password(
                    self._access.user, self._access.password, _API, _CLIENT
                )
        except XenAPI.Failure as failure:
            if failure.details[0] == "HOST_IS_SLAVE" and len(failure.details) == 2:
                return Pool(str(failure.details[1]), self._access).log_in()
            if failure.details[0] == "SESSION_AUTHENTICATION_FAILED":
                raise UsageError(
                    f"{self.host} does not let {self._access.user} in with this password",
                    hint="user=NAME password=FILE",
                ) from failure
            raise _refused(self.host, failure.details) from failure
        return self

    def log_out(self) -> None:
        """The session is over; a server that is gone has none."""
        with suppress(XenAPI.Failure, OSError, http.client.HTTPException, xmlrpc.client.Error):
            self._session.xenapi.session.logout()

    def find_storage(self, name: str) -> str:
        """A storage repository by its UUID or name; the pool's default one for "".

        Raises UsageError where there is none, or several.
        """
        with _explained(self.host):
            repositories = self._session.xenapi.SR
            if not name:
                (pool,) = self._session.xenapi.pool.get_all()
                known = [self._session.xenapi.pool.get_default_SR(pool)]
            else:
                known = repositories.get_by_name_label(name)
                with suppress(XenAPI.Failure):
                    known = known or [repositories.get_by_uuid(name)]
        if len(known) != 1 or known[0] == _NOTHING:
            what = f"storage {name!r}" if name else "default storage"
            raise UsageError(
                f"{self.host} has {'several of' if len(known) > 1 else 'no'} {what}",
                hint="sr=UUID, which `xe sr-list` shows there",
            )
        return str(known[0])

    def import_machine(
        self, write: Callable[[IO[bytes]], None], size: int, *, label: str, storage: str
    ) -> Pushed:
        """Have an XVA of `size` bytes written to it; what comes of it, or nothing: no part stays.

        Raises DiskFull, PipelineError by what the pool says.
        """
        with _explained(self.host):
            task = self._session.xenapi.task.create(f"import of {label}", _CLIENT)
        waiting = [task]

        def cancel() -> list[str]:
            return [told for task in waiting for told in self._cancel(task, label)]

        at_interruption(cancel)
        try:
            trouble = self._put(write, size, task, storage)
            return self._await(task, trouble)
        except BaseException:
            cancel()
            raise
        finally:
            waiting.clear()
            with suppress(XenAPI.Failure, OSError, http.client.HTTPException):
                self._session.xenapi.task.destroy(task)

    def _put(self, write: Callable[[IO[bytes]], None], size: int, task: str, storage: str) -> str:
        """Send it; what went wrong on the way, which the task knows better."""
        asked = {"session_id": self._session.handle, "task_id": task, "sr_id": storage}
        with _explained(self.host):
            connection = self._connect(_SLOW_S)
            connection.connect()
        try:
            connection.putrequest("PUT", f"/import?{urlencode(asked)}", skip_accept_encoding=True)
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
            write(cast(IO[bytes], _Sink(connection)))
            answer = connection.getresponse()
            answer.read()
            return "" if answer.status == 200 else f"HTTP {answer.status} {answer.reason}"
        except (OSError, http.client.HTTPException) as error:
            return f"the connection was cut: {error or type(error).__name__}"
        finally:
            connection.close()

    def _await(self, task: str, trouble: str) -> Pushed:
        """What the task ended with; one that hears no more is given a moment."""
        limit = time.monotonic() + (_CANCEL_S if trouble else float("inf"))
        while True:
            with _explained(self.host):
                told = self._session.xenapi.task.get_record(task)
            if told["status"] != "pending":
                break
            if time.monotonic() > limit:
                raise EnvironmentFault(f"{self.host}: {trouble}", hint="the same command again")
            time.sleep(_POLL_S)
        refuse_if_ending()
        if told["status"] != "success":
            raise _refused(self.host, told["error_info"] or [trouble or told["status"]])
        machines = _MACHINE.findall(told["result"])
        if len(machines) != 1:
            raise VerificationError(f"{self.host} says that it imported {len(machines)} machines")
        with _explained(self.host):
            record = self._session.xenapi.VM.get_record(machines[0])
        return Pushed(machines[0], record["uuid"], record["name_label"])

    def _cancel(self, task: str, label: str) -> list[str]:
        """End a task that is pending; what may have been left there, in words."""
        left = [f"the import of {label} at {self.host}, if it goes on without us"]
        session = self._new_session()  # an interruption may find another thread in a call
        session._session = self._session.handle
        tasks = session.xenapi.task
        try:
            if tasks.get_status(task) == "pending":
                tasks.cancel(task)
                limit = time.monotonic() + _CANCEL_S
                while tasks.get_status(task) in ("pending", "cancelling"):
                    if time.monotonic() > limit:
                        return left
                    time.sleep(_POLL_S)
        except XenAPI.Failure:  # there is no such task any more
            return []
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return left
        return []

    def _connect(self, timeout_s: float) -> http.client.HTTPSConnection:
        host, _, port = self.host.partition(":")
        number = int(port or _PORT)
        if self._access.fingerprint:
            return _Pinned(host, number, timeout_s, self._access.fingerprint)
        context = ssl.create_default_context(cafile=self._access.certificate)
        return http.client.HTTPSConnection(host, number, timeout=timeout_s, context=context)


class _Sink:
    """What is written goes over a connection."""

    def __init__(self, connection: http.client.HTTPSConnection) -> None:
        self._connection = connection

    def write(self, content: bytes | memoryview) -> int:
        """All of it."""
        self._connection.send(content)
        return len(content)


class _Pinned(http.client.HTTPSConnection):
    """TLS with a server whose certificate has one digest, whoever signed it."""

    def __init__(self, host: str, port: int, timeout_s: float, fingerprint: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # connect() compares before a byte is sent
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._fingerprint = fingerprint

    def connect(self) -> None:
        """Raises VerificationError for another certificate."""
        super().connect()
        assert isinstance(self.sock, ssl.SSLSocket)
        shown = hashlib.sha256(self.sock.getpeercert(binary_form=True) or b"").hexdigest()
        if shown != self._fingerprint:
            self.close()
            raise VerificationError(
                f"{self.host} shows another certificate: {shown}",
                hint="ask there: openssl x509 -in /etc/xensource/xapi-ssl.pem -noout "
                "-fingerprint -sha256",
            )


@contextmanager
def _explained(host: str) -> Iterator[None]:
    """A server that does not answer as a pool does, in words."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise VerificationError(
            f"{host}: its certificate is not vouched for: {error.verify_message}",
            hint="certificate=FILE is its own (/etc/xensource/xapi-ssl.pem there) or its "
            "authority's; fingerprint=SHA256 pins it",
        ) from error
    except (xmlrpc.client.Error, http.client.HTTPException) as error:
        raise EnvironmentFault(f"{host} does not answer as a pool does: {error}") from error
    except (socket.gaierror, OSError) as error:
        reason = error.strerror or str(error)
        raise EnvironmentFault(
            f"{host} cannot be reached: {reason}", hint="host=NAME of the pool's master"
        ) from error


_FULL = ("SR_BACKEND_FAILURE_44", "SR_FULL", "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
_HINTS = {
    "INVALID_VALUE": "a field of the machine that this release does not take",
    "TASK_CANCELLED": "somebody cancelled it there",
    "RBAC_PERMISSION_DENIED": "user=NAME of one who may import machines",
    "VDI_IO_ERROR": "look at the storage repository there",
}


def _refused(host: str, details: list[str]) -> PipelineError:
    """What a pool gives as its reason: a word, then what it is about."""
    word = str(details[0])
    told = ", ".join(str(detail) for detail in details if detail)[:400]
    if word in _FULL or "no space" in told.lower() or "insufficient space" in told.lower():
        return DiskFull(f"{host} has no room for it: {told}", hint="sr=UUID of another storage")
    return PipelineError(f"{host} refuses it: {told}", hint=_HINTS.get(word, ""))
