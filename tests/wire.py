"""A web server on loopback that says what it was asked for, and how many bytes went out."""

import os
import re
import shutil
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

LOCALHOST = "127.0.0.1"
_RANGE = re.compile(r"bytes=([0-9]+)-")


class WebServer:
    """Serves the files below `root`, ranges too; `stop` and `start` again on the same port.

    `requests` counts the paths, `sent` the bytes of the bodies. A subclass may `find` files
    elsewhere.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = 0
        self.sent = 0
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"

    def start(self) -> None:
        owner = self

        class Bound(_Answerer):
            web = owner

        self._server = ThreadingHTTPServer((LOCALHOST, self.port), Bound)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """From now on a connection is refused."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def find(self, path: str) -> Path | None:
        """The file behind a path of a request, None for none."""
        wanted = self.root / path.lstrip("/")
        return wanted if ".." not in wanted.parts and wanted.is_file() else None

    def count(self, path: str, size: int) -> None:
        with self._lock:
            self.requests[path] += 1
            self.sent += size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()


class _Answerer(BaseHTTPRequestHandler):
    """One connection, one answer: HTTP/1.0, so that a stopped server keeps none."""

    web: WebServer

    def answer_get(self) -> None:
        path = unquote(urlsplit(self.path).path)
        found = self.web.find(path)
        if found is None:
            self.web.count(path, 0)
            self.send_error(404)
            return
        with open(found, "rb") as stream:
            state = os.fstat(stream.fileno())
            size, tag = state.st_size, f'"{state.st_mtime_ns:x}-{state.st_size:x}"'
            if self.headers.get("If-None-Match") == tag:
                self.web.count(path, 0)
                self.send_response(304)
                self.end_headers()
                return
            asked = _RANGE.match(self.headers.get("Range", ""))
            begin = min(int(asked[1]), size) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - begin))
            self.send_header("ETag", tag)
            self.end_headers()
            stream.seek(begin)
            self.web.count(path, size - begin)
            shutil.copyfileobj(stream, self.wfile)

    do_GET = answer_get  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *_arguments: Any) -> None:
        """Tests read `requests` instead."""
