"""A mirror on 127.0.0.1 that misbehaves on demand and counts what it is asked for."""

import base64
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

LOCALHOST = "127.0.0.1"


class MisbehavingMirror:
    """Serves the files below `root`; `faults` maps the end of a path to what goes wrong there.

    `once` does the same for a single request. `login` is "user:password" where one is wanted.
    `requests` counts the paths asked for, also those that failed; `resumed` has where a range
    began. With `tls` it speaks TLS.
    """

    def __init__(self, root: Path, port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self.root = root
        self.faults: dict[str, Fault] = {}
        self.once: dict[str, Fault] = {}
        self.login = ""
        self.resumed: dict[str, int] = {}
        self.requests: Counter[str] = Counter()
        self.authorizations: set[str] = set()
        self.cookies: set[str] = set()
        self.clients: set[tuple[str, int]] = set()
        self.closing = threading.Event()
        mirror = self

        class Bound(_Answerer):
            owner = mirror

        self._scheme = "https" if tls else "http"
        self._server = _Server((LOCALHOST, port), Bound)
        if tls:
            # no handshake on accept: one that is refused must not end the server
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def address(self) -> str:
        """host:port, the short form of mirror=."""
        return f"{LOCALHOST}:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The main archive's URL."""
        return f"{self._scheme}://{self.address}/debian"

    def asked(self, end: str) -> int:
        """How often a path with this end was asked for."""
        return sum(count for path, count in self.requests.items() if path.endswith(end))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.hang_up()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """A server whose end is the end of its connections too, also of those that are kept."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def begin(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    process_request = begin

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what these tests are about."""

    def hang_up(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Answerer(BaseHTTPRequestHandler):
    owner: MisbehavingMirror
    protocol_version = "HTTP/1.1"

    def answer_get(self) -> None:
        """Count the request, then let a fault answer, or the file."""
        owner = self.owner
        owner.requests[self.path] += 1
        owner.clients.add(self.client_address)
        owner.cookies.update(self.headers.get_all("Cookie", []))
        given = self.headers.get("Authorization", "")
        if given:
            owner.authorizations.add(given)
        wanted = f"Basic {base64.b64encode(owner.login.encode()).decode()}"
        if owner.login and given != wanted:
            self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="mirror"'})
            return
        path = owner.root / self.path.lstrip("/")
        content = path.read_bytes() if path.is_file() else None
        for faults in (owner.once, owner.faults):
            end = next((end for end in faults if self.path.endswith(end)), None)
            if end is not None:
                fault = faults.pop(end) if faults is owner.once else faults[end]
                fault(self, content or b"")
                return
        begin = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        if content is None:
            self.answer(404, b"no such file")
        elif begin.isdigit() and int(begin) < len(content):
            owner.resumed[self.path] = int(begin)
            rest = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[int(begin) :], {"Content-Range": rest})
        else:
            self.answer(200, content)

    do_GET = answer_get  # noqa: N815 - the name that http.server calls

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, length: int = -1
    ) -> None:
        """Send an answer; `length` is what Content-Length claims, in bytes."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        """One connection; a client that does not like our certificate hangs up."""
        with suppress(ssl.SSLError, ConnectionError):
            super().handle()

    def log_message(self, format: str, *_arguments: object) -> None:
        """Tests read `requests` instead."""


Fault = Callable[[_Answerer, bytes], None]


def status(code: int) -> Fault:
    """Answer with a status and nothing else."""
    return lambda handler, _content: handler.answer(code, b"")


def redirect(target: str = "") -> Fault:
    """Redirect elsewhere, or in a circle."""
    return lambda handler, _content: handler.answer(302, b"", {"Location": target or handler.path})


def serve(body: bytes) -> Fault:
    """Serve other bytes."""
    return lambda handler, _content: handler.answer(200, body)


def change(function: Callable[[bytes], bytes]) -> Fault:
    """Serve the file's bytes after a change."""
    return lambda handler, content: handler.answer(200, function(content))


def cut_short(handler: _Answerer, content: bytes) -> None:
    """Promise the whole, send half, hang up."""
    handler.answer(200, content[: len(content) // 2], length=len(content))
    handler.close_connection = True


def claim_gzip(handler: _Answerer, content: bytes) -> None:
    """Serve a .gz file as if it were gzip for the journey only, as old Apaches do."""
    handler.answer(200, content, {"Content-Encoding": "gzip"})


def hang(handler: _Answerer, _content: bytes) -> None:
    """Say nothing until the test ends."""
    handler.owner.closing.wait()
    handler.close_connection = True


def drip(handler: _Answerer, content: bytes) -> None:
    """Send a byte now and then, each in time for any timeout, until the test ends."""
    handler.answer(200, b"", length=max(len(content), 1000))
    while not handler.owner.closing.wait(0.1):
        try:
            handler.wfile.write(b"x")
        except OSError:
            break
    handler.close_connection = True
