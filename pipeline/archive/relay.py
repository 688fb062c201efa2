"""The snapshot as an HTTP mirror for the tools of a build: apt, mmdebstrap, debootstrap.

They fetch through it as their http_proxy, from a host name that exists nowhere. So they see exactly
the state that was verified; each package comes from the first mirror that has it right, checked
against the index before they get it, and kept by digest; and the passwords of mirrors stay in this
process: neither a command line nor a file of the tree ever holds one. What else they ask for over
HTTP is passed through. It listens while the block runs, on a socket that the build's cage has
handed over (`cage.Window`): nobody else on the machine can reach it.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.archive.release import IndexFile, parse_release
from pipeline.archive.snapshot import Snapshot
from pipeline.archive.sources import Source
from pipeline.cage import Window
from pipeline.errors import CommandFailed, PipelineError
from pipeline.fetch import OFFLINE, TIMEOUT_S, NotFound

HOST = "snapshot.invalid"  # RFC 6761: never resolves
_BY_HASH = re.compile(r"(?:.*/)?by-hash/SHA256/([0-9a-f]{64})")


class Relay:
    """Serves one snapshot; `trouble` is the last error that a tool was told as a 502."""

    def __init__(self, snapshot: Snapshot, window: Window, *, cache: Path) -> None:
        self.window = window
        self._origin = snapshot
        self._cache = cache
        self._route = snapshot.route
        self.trouble: PipelineError | None = None
        self._server = ThreadingHTTPServer(("", 0), _bound(self), bind_and_activate=False)
        self._server.daemon_threads = True
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
        return {"http_proxy": self.window.address, "no_proxy": ""}

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
        files = self._files(source)
        entry = files.get(match[1] if match else name)
        if entry is None:
            raise NotFound(f"{source.suite}/{name}: not in its Release file")
        target = self._cache / "indexes" / f"{entry.sha256}{Path(entry.name).suffix}"
        url = f"{source.uri}/dists/{source.suite}/{entry.name}"
        return self._route.fetch(url, target, size=entry.size, sha256=entry.sha256)

    def _files(self, source: Source) -> dict[str, IndexFile]:
        """What a source's Release vouches for, by name and by digest; its signature was checked."""
        text = self._origin.signed_files(source)[0].read_text(errors="replace")
        _, found, signed = text.partition("-----BEGIN PGP SIGNED MESSAGE-----")
        body = signed.partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE")[0]
        files = parse_release(body if found else text, (), where=source.suite).files
        return files | {one.sha256: one for one in files.values()}

    def _find_package(self, source: Source, name: str) -> Path:
        """A file that an index vouches for; any source of the same root may have it."""
        line = f"\nFilename: {name}\n".encode()
        for text in self._texts:
            at = text.find(line)
            if at >= 0:
                start, end = text.rfind(b"\n\n", 0, at), text.find(b"\n\n", at)
                stanza = text[max(start, 0) : end if end >= 0 else len(text)] + b"\n"
                size = int(_field(stanza, b"Size"))
                sha256 = _field(stanza, b"SHA256")
                target = self._cache / "debs" / sha256
                url = f"{source.uri}/{name}"
                return self._route.fetch(url, target, size=size, sha256=sha256)
        raise NotFound(f"{name}: not in the snapshot's indexes")

    @cached_property
    def _texts(self) -> list[bytes]:
        return [
            b"\n" + (self._origin.folder / name).read_bytes()
            for _, name in self._origin.index_files
        ]


def _field(stanza: bytes, name: bytes) -> str:
    match = re.search(rb"^" + name + rb": *(\S+)$", stanza, re.MULTILINE)
    if match is None:
        raise NotFound(f"an index gives no {name.decode()}")
    return match[1].decode()


class _Answerer(BaseHTTPRequestHandler):
    relay: Relay
    protocol_version = "HTTP/1.1"

    def answer_get(self) -> None:
        """A file of the snapshot, or what another host has."""
        parts = urlsplit(self.path)
        if parts.netloc not in (HOST, ""):
            self._pass_through()
            return
        if self.relay.trouble is not None:  # the build is lost: no waiting for a dead mirror again
            self._say(502, self.relay.trouble.brief)
            return
        try:
            path = self.relay.find(unquote(parts.path))
        except NotFound as error:
            self._say(404, error.brief)
        except PipelineError as error:
            self.relay.trouble = error
            self._say(502, error.brief)
        else:
            with open(path, "rb") as stream:
                self._begin(200, path.stat().st_size)
                shutil.copyfileobj(stream, self.wfile, 1 << 20)

    do_GET = answer_get  # noqa: N815 - the name that http.server calls

    def _pass_through(self) -> None:
        import requests

        if os.environ.get(OFFLINE) == "1":
            self._say(502, "offline=yes: the network is forbidden")
            return
        try:
            with requests.get(self.path, stream=True, timeout=TIMEOUT_S) as answer:
                self.send_response(answer.status_code)
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                shutil.copyfileobj(answer.raw, self.wfile)
        except requests.RequestException as error:
            self._say(502, type(error).__name__)

    def _begin(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _say(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self._begin(status, len(body))
        self.wfile.write(body)

    def handle(self) -> None:
        """One connection; a tool that hangs up early is no concern of ours."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *_arguments: object) -> None:
        """The tools' own logs say what they asked for."""


def _bound(relay: Relay) -> type[_Answerer]:
    return type("Bound", (_Answerer,), {"relay": relay})


@contextmanager
def relaying(snapshot: Snapshot, *, cache: Path) -> Iterator[Relay]:
    """A relay that runs while the block does; its `window` is for the cage that it serves.

    A command that fails in the block because no mirror had a file fails with that reason.
    """
    relay = Relay(snapshot, Window(), cache=cache)
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
