"""The one HTTP client: what an answer may take in bytes, time and rate, whoever gives it.

A mirror is not signed, and neither is who stands on the way to it: only what it sends is, once it
is here. So nothing of an answer is read without a bound, from the first byte of its head on:
`100 Continue` without end, a header a minute, chunks that hold nothing, a body that goes on. Bodies
are taken as they come, never decoded. The CAs are the host's; `.netrc` and cookies play no part.
"""

import http.client
import io
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.mirror.credentials import Way, find_credentials, without_credentials
from pipeline.mirror.trouble import CHOOSE, TooSlow, name_trouble

HOST_CAS = Path("/etc/ssl/certs/ca-certificates.crt")


def trusted_cas() -> str | bool:
    """The CAs that the host trusts, as its own apt does; requests would use a list of its own."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if given := os.environ.get(name):
            if not Path(given).exists():
                raise EnvironmentFault(f"{name}: {given}: no such file", hint="correct or unset it")
            return given
    return str(HOST_CAS) if HOST_CAS.is_file() else True


CHUNK = 1 << 16
_REDIRECTS = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.SEE_OTHER,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_RANGE = re.compile(r"bytes ([0-9]{1,18})-")


@dataclass(frozen=True)
class Bounds:
    """How long one may wait for what, in seconds, and how much may come.

    `silent_s` is for a connection that says nothing, `head_s` and `head_bytes` for everything
    before the body, through all redirects. A body slower than `slow_bytes_per_s` after
    `slow_after_s` is as good as none.
    """

    connect_s: float = 10
    silent_s: float = 30
    head_s: float = 60
    head_bytes: int = 256 << 10
    slow_after_s: float = 20
    slow_bytes_per_s: float = 2048
    redirects: int = 10


BOUNDS = Bounds()
_threads = threading.local()


class _Meter:
    """What one answer has taken, on the wire and of its body; raises when that is too much."""

    def __init__(self, url: str, limit: int) -> None:
        self._shown = without_credentials(url)
        self._bounds = BOUNDS
        self._limit = limit
        self._begun = time.monotonic()
        self._is_body = False
        self._wire = 0
        self.body = 0

    def begin_body(self) -> None:
        """The head is over."""
        self._is_body = True
        self._begun = time.monotonic()

    def wait(self) -> float:
        """How many seconds the next piece may take; raises MirrorTrouble when none are left."""
        bounds, spent = self._bounds, time.monotonic() - self._begun
        if not self._is_body:
            left = bounds.head_s - spent
            if left <= 0:
                raise TooSlow(
                    f"{self._shown}: its answer has not begun after {spent:.0f} s", hint=CHOOSE
                )
            return min(left, bounds.silent_s)
        left = max(bounds.slow_after_s, self.body / bounds.slow_bytes_per_s) - spent
        if left <= 0:
            raise TooSlow(
                f"{self._shown}: too slow ({self.body} bytes in {spent:.0f} s)", hint=CHOOSE
            )
        return min(left, bounds.silent_s)

    def count(self, size: int) -> None:
        """Note what came."""
        self._wire += size
        if not self._is_body and self._wire > self._bounds.head_bytes + CHUNK:
            raise PipelineError(
                f"{self._shown}: more than {self._bounds.head_bytes >> 10} KiB before its answer",
                hint=CHOOSE,
            )
        # chunks cost a few bytes each: what is mostly wrapping is no file
        if self._wire > self._bounds.head_bytes + 2 * (self._limit + CHUNK):
            raise PipelineError(
                f"{self._shown}: {self._wire} bytes of wrapping around {self.body}", hint=CHOOSE
            )


class Meter(Protocol):
    """How long the next read of a stream may take, in seconds, and what has come so far.

    Both raise when it is too long or too much.
    """

    def wait(self) -> float:
        """Seconds."""

    def count(self, size: int) -> None:
        """So many bytes."""


class Wire(io.RawIOBase):
    """A socket as a stream whose every read is metered."""

    def __init__(self, connection: socket.socket, meter: Meter) -> None:
        self._connection = connection
        self._stream: socket.SocketIO = connection.makefile("rb", buffering=0)
        self._meter = meter

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """What comes within the time that is left."""
        self._connection.settimeout(self._meter.wait())
        try:
            size = self._stream.readinto(buffer)
        except TimeoutError:
            self._meter.wait()  # the whole time is over, or only this read's
            raise
        self._meter.count(size or 0)
        return size

    def close(self) -> None:
        """The stream; a connection has its own end."""
        self._stream.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """http.client's, over a metered stream: it would read a head without end."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp.close()
        self.fp = io.BufferedReader(Wire(sock, _threads.meter), CHUNK)


class _PlainConnection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """requests' own way to urllib3, with connections that are metered."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        return manager


class Answer:
    """An answer whose head has come; `size` is what it promises in bytes, None for nothing.

    `start` is where in the file its body begins, 0 for a whole one.
    """

    def __init__(self, response: requests.Response, meter: _Meter) -> None:
        self._response = response
        self._meter = meter
        self.status = response.status_code
        self.size = _promised(response)
        given = _RANGE.match(response.headers.get("Content-Range", ""))
        is_part = self.status == HTTPStatus.PARTIAL_CONTENT and given is not None
        self.start = int(given[1]) if is_part and given else 0

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes, never decoded: .gz files are called gzip-encoded by some."""
        self._meter.begin_body()
        while piece := self._response.raw.read1(CHUNK, decode_content=False):
            self._meter.body += len(piece)
            yield piece


@contextmanager
def ask(
    url: str, *, way: Way, limit: int, is_anonymous: bool = False, start: int = 0
) -> Iterator[Answer]:
    """GET; `limit` is how long a body is wanted, in bytes: far beyond that the answer ends.

    With `start` what comes before that byte is not asked for; the answer says whether it is so.
    Where `is_anonymous` no password is sent, and no redirect to another host followed.

    Raises MirrorTrouble for what may pass, PipelineError for what will not, also while the body is
    read in the `with`. A connection is used again by the thread that has it.
    """
    try:
        yield from _ask(url, way, limit, is_anonymous, start)
    except (requests.RequestException, HTTPError) as error:
        raise name_trouble(error, url) from None


def _ask(url: str, way: Way, limit: int, is_anonymous: bool, start: int) -> Iterator[Answer]:
    meter = _Meter(url, limit)
    login = None if is_anonymous else find_credentials(url, own=way.credentials)
    asked = url
    for _ in range(BOUNDS.redirects + 1):
        response = _send(asked, login, way, meter, start)
        try:
            if response.status_code not in _REDIRECTS:
                yield Answer(response, meter)
                return
            further = _target(url, asked, response.headers.get("Location", ""))
            _drain(response)
        finally:
            response.close()
        if _origin(further) != _origin(asked):
            if is_anonymous:
                raise PipelineError(f"{without_credentials(url)}: it redirects to another host")
            login = None  # a password is for the machine that it was written down for
        asked = further
    raise PipelineError(f"{without_credentials(url)}: it redirects in a circle", hint=CHOOSE)


def _send(
    url: str, login: tuple[str, str] | None, way: Way, meter: _Meter, start: int
) -> requests.Response:
    """The adapter alone: a requests.Session reads the bodies of redirects, without any bound."""
    if not hasattr(_threads, "adapter"):
        _threads.adapter = _Adapter()
    _threads.meter = meter
    headers = {"Accept-Encoding": "identity", "User-Agent": "domu-pipeline"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = requests.Request("GET", url, headers=headers, auth=login).prepare()
    proxies = get_environ_proxies(url) if way.proxies is None else way.proxies
    adapter: _Adapter = _threads.adapter
    return adapter.send(
        request,
        stream=True,
        timeout=(BOUNDS.connect_s, BOUNDS.silent_s),
        verify=trusted_cas(),
        proxies=proxies,
    )


def _drain(response: requests.Response) -> None:
    """The few bytes of a redirect's page, so that its connection can be used again."""
    if (_promised(response) or CHUNK) < CHUNK:
        while response.raw.read1(CHUNK, decode_content=False):
            pass


def _promised(response: requests.Response) -> int | None:
    """What the answer's Content-Length says, in bytes."""
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _target(first: str, asked: str, location: str) -> str:
    """Where a redirect leads; raises PipelineError when that is nowhere that can be asked."""
    shown = without_credentials(first)
    try:
        further = urljoin(asked, location.encode("latin-1").decode("utf-8"))
        _origin(further)
        scheme = urlsplit(further).scheme
    except ValueError:  # UnicodeError too
        scheme = further = ""
    if not location or not further:
        raise PipelineError(f"{shown}: it redirects to something that is no address", hint=CHOOSE)
    if scheme not in _DEFAULT_PORTS:
        raise PipelineError(f"{shown}: it redirects to something that is not HTTP", hint=CHOOSE)
    return further


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host, port; ValueError when the URL makes no sense."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
