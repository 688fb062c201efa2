"""The snapshot as an HTTP mirror for the tools of a build: apt, mmdebstrap, debootstrap.

They fetch through it as their http_proxy, from a host name that exists nowhere. So they see exactly
the state that was verified; each package comes from the first mirror that has it right, checked
against the index before they get it, and kept by digest; and the passwords of mirrors stay in this
process: neither a command line nor a file of the tree ever holds one. Nothing else is passed
through but the hosts that the caller names, without any password. It listens while the block runs,
on a socket that the build's cage has handed over (`cage.Window`): nobody else on the machine can
reach it. Who can is a stranger: what it asks for is read with bounds.
"""

from __future__ import annotations

import io
import os
import re
import select
import shutil
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.console.terminal import printable
from pipeline.errors import CommandFailed, PipelineError
from pipeline.mirror.apt_sources import Source
from pipeline.mirror.fetch import NotFound, fetch_bytes
from pipeline.mirror.http_client import Wire
from pipeline.mirror.index import read_package
from pipeline.mirror.snapshot import Snapshot
from pipeline.mirror.source_package import signed_release
from pipeline.mirror.stanzas import find_stanzas
from pipeline.project import Cache
from pipeline.walls.cage import Window

HOST = "snapshot.invalid"  # RFC 6761: never resolves
MOST_CONNECTIONS = 64
# apt keeps a connection while dpkg works; a request is a few hundred bytes and comes at once
IDLE_S, HEAD_S = 300.0, 10.0
HEAD_BYTES = 64 << 10
OTHERS_MOST_BYTES = 64 << 20
TUNNEL_MOST_BYTES = 4 << 30
_BY_HASH = re.compile(r"(?:.*/)?by-hash/SHA256/([0-9a-f]{64})")


class _Server(ThreadingHTTPServer):
    """A thread a connection, not more than there should be; the rest is hung up on."""

    daemon_threads = True

    def __init__(self, relay: Relay) -> None:
        super().__init__(
            ("", 0), type("Bound", (_Answerer,), {"relay": relay}), bind_and_activate=False
        )
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def begin(self, request: Any, client_address: Any) -> None:
        """One connection."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def serve(self, request: Any, client_address: Any) -> None:
        """The same, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    process_request, process_request_thread = begin, serve

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no concern of ours; the terminal is the build's."""


class Relay:
    """Serves one snapshot; `trouble` is the last error that a tool was told as a 502.

    `others` are hosts whose http:// URLs are passed on as they are, and whose port 443 may be
    reached through a tunnel.
    """

    def __init__(
        self, snapshot: Snapshot, window: Window, *, cache: Cache, others: Collection[str] = ()
    ) -> None:
        self.window = window
        self._origin = snapshot
        self._cache = cache
        self._route = snapshot.route
        self.others = frozenset(others)
        self.trouble: PipelineError | None = None
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._serve)
        self._has_begun = False

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot under the addresses that the tools are to use."""
        moved = [
            replace(source, uri=f"http://{HOST}/{source.role}") for source in self._origin.sources
        ]
        return replace(self._origin, sources=tuple(moved))

    @property
    def environment(self) -> dict[str, str]:
        """What the tools need in their environment."""
        names = ["http_proxy", *(["https_proxy", "HTTPS_PROXY"] if self.others else [])]
        return {**dict.fromkeys(names, self.window.address), "no_proxy": ""}

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self.window.close()
        if self._has_begun:
            self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self) -> None:
        listener = self.window.receive()
        if listener is not None:
            self._server.socket.close()
            self._server.socket = listener
            self._has_begun = True
            self._server.serve_forever(0.05)

    def name_of(self, url: str) -> str | None:
        """What `find` calls a URL: of our own host, or where the mirror has it; None elsewhere."""
        found = None
        for source in self._origin.sources:
            for root in (f"http://{HOST}/{source.role}", source.uri):
                rest = url.removeprefix(root)
                if url.startswith(f"{root}/") and (
                    found is None or rest.startswith(f"/dists/{source.suite}/")
                ):
                    found = unquote(f"/{source.role}{rest}")
        return found

    def find(self, path: str) -> Path:
        """The verified file for a path below the host; raises PipelineError."""
        role, _, rest = path.lstrip("/").partition("/")
        source = next((one for one in self._origin.sources if one.role == role), None)
        if source is None:
            raise NotFound(f"{path}: no such part of the snapshot")
        start = f"dists/{source.suite}/"
        if rest.startswith(start):
            return self._find_listed(source, rest.removeprefix(start))
        return self._find_package(source, rest)

    def _find_listed(self, source: Source, name: str) -> Path:
        for signed in self._origin.signed_files(source):
            if name == signed.name.replace(f"-{source.role}", ""):
                return signed
        match = _BY_HASH.fullmatch(name)
        files = signed_release(self._origin, source).files
        if match:
            files = {file.sha256: file for file in files.values()}
        entry = files.get(match[1] if match else name)
        if entry is None:
            raise NotFound(f"{source.suite}/{name}: not in its Release file")
        target = self._cache.indexes / f"{entry.sha256}{Path(entry.name).suffix}"
        url = f"{source.uri}/dists/{source.suite}/{entry.name}"
        return self._route.fetch(url, target, size=entry.size, sha256=entry.sha256)

    def _find_package(self, source: Source, name: str) -> Path:
        """A file that an index vouches for; any source of the same root may have it."""
        for text in self._texts:
            for stanza in find_stanzas(text, name, field="Filename"):
                package = read_package(source.uri, stanza)
                target = self._cache.debs / package.sha256
                return self._route.fetch(
                    package.url, target, size=package.size, sha256=package.sha256
                )
        raise NotFound(f"{name}: not in the snapshot's indexes")

    @cached_property
    def _texts(self) -> list[bytes]:
        return [(self._origin.folder / name).read_bytes() for _, name in self._origin.index_files]


class _Pace:
    """How long a tool may take to say what it wants, and in how many bytes."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """The next request of a connection."""
        self._taken = 0
        self._begun: float | None = None

    def wait(self) -> float:
        """Seconds until a connection is hung up on; raises TimeoutError when there are none."""
        if self._begun is None:
            return IDLE_S
        left = HEAD_S + self._begun - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def count(self, size: int) -> None:
        """Note what came."""
        self._begun = self._begun or time.monotonic()
        self._taken += size
        if self._taken > HEAD_BYTES:
            raise ConnectionAbortedError


class _Answerer(BaseHTTPRequestHandler):
    relay: Relay
    protocol_version = "HTTP/1.1"
    rfile: io.BufferedReader

    def setup(self) -> None:
        """A connection that is read with bounds."""
        super().setup()
        self._pace = _Pace()
        self.rfile.close()
        self.rfile = io.BufferedReader(Wire(self.connection, self._pace))

    def handle_one_request(self) -> None:
        """One of several on a connection."""
        self._pace.begin()
        super().handle_one_request()

    def answer_get(self) -> None:
        """A file of the snapshot, or what a host has that the caller named."""
        self.connection.settimeout(IDLE_S)
        name = self.relay.name_of(self.path)
        try:
            parts = urlsplit(self.path)
        except ValueError:
            self._say(400, "no address")
            return
        if name is not None:
            self._answer_from_snapshot(name)
        elif parts.scheme == "http" and parts.netloc in self.relay.others:
            self._pass_through()
        else:
            self._say(403, f"{parts.netloc}: the build fetches from its mirror only")

    def answer_connect(self) -> None:
        """A tunnel to the HTTPS port of a host that the caller named."""
        host, _, port = self.path.rpartition(":")
        if host not in self.relay.others or port != "443":
            self._say(403, f"{self.path}: the build fetches from its mirror only")
            return
        try:
            other = socket.create_connection((host, 443), timeout=HEAD_S)
        except OSError as error:
            self._say(502, f"{host}: {error}")
            return
        with other:
            self.send_response(200)
            self.end_headers()
            _tunnel(self.connection, other)
        self.close_connection = True

    do_GET, do_CONNECT = answer_get, answer_connect  # noqa: N815 - http.server calls them so

    def _answer_from_snapshot(self, name: str) -> None:
        if self.relay.trouble is not None:  # the build is lost: no waiting for a dead mirror again
            self._say(502, self.relay.trouble.brief)
            return
        try:
            path = self.relay.find(name)
        except NotFound as error:
            self._say(404, error.brief)
        except PipelineError as error:
            self.relay.trouble = error
            self._say(502, error.brief)
        else:
            with open(path, "rb") as stream:
                self._begin(200, os.fstat(stream.fileno()).st_size)
                shutil.copyfileobj(stream, self.wfile, 1 << 20)

    def _pass_through(self) -> None:
        """Another host's file: of any content, but with every bound of the one client."""
        try:
            content = fetch_bytes(self.path, limit=OTHERS_MOST_BYTES, is_anonymous=True)
        except NotFound as error:
            self._say(404, error.brief)
        except PipelineError as error:
            self._say(502, error.brief)
        else:
            self._begin(200, len(content))
            self.wfile.write(content)

    def _begin(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _say(self, status: int, text: str) -> None:
        body = f"{printable(text)}\n".encode()
        self._begin(status, len(body))
        self.wfile.write(body)

    def handle(self) -> None:
        """One connection; a tool that hangs up early is no concern of ours."""
        with suppress(ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *_arguments: object) -> None:
        """The tools' own logs say what they asked for."""


def _tunnel(inner: socket.socket, outer: socket.socket) -> None:
    """Pass on what comes from either side, until one has no more, is silent or says too much."""
    others, total = {inner: outer, outer: inner}, 0
    while total < TUNNEL_MOST_BYTES:
        ready, _, _ = select.select(list(others), [], [], IDLE_S)
        if not ready:
            return
        for side in ready:
            content = side.recv(1 << 16)
            if not content:
                return
            total += len(content)
            others[side].sendall(content)


@contextmanager
def relaying(snapshot: Snapshot, *, cache: Cache, others: Collection[str] = ()) -> Iterator[Relay]:
    """A relay that runs while the block does; its `window` is for the cage that it serves.

    A command that fails in the block because no mirror had a file fails with that reason.
    """
    relay = Relay(snapshot, Window(), cache=cache, others=others)
    relay.start()
    try:
        yield relay
    except CommandFailed as error:
        if relay.trouble is None:
            raise
        relay.trouble.log = error.log
        raise relay.trouble from error
    finally:
        relay.stop()
