"""A mirror on 127.0.0.1 that passes on the host's archive, counts, and can die half way."""

import base64
import shutil
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import requests

LOCALHOST = "127.0.0.1"


class ForwardingMirror:
    """/debian, /debian-security, /ubuntu of a server; after `dies_after` packages only errors.

    `login` is "user:password" where one is wanted; `requests` counts the paths that were served.
    """

    def __init__(self, server: str, *, dies_after: int = -1, login: str = "") -> None:
        self.server = server
        self.dies_after = dies_after
        self.login = login
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        mirror = self

        class Bound(_Answerer):
            owner = mirror

        self._listener = ThreadingHTTPServer((LOCALHOST, 0), Bound)
        self._listener.daemon_threads = True
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,))

    @property
    def address(self) -> str:
        """host:port."""
        return f"{LOCALHOST}:{self._listener.server_address[1]}"

    @property
    def debs(self) -> int:
        """How many packages were served."""
        return sum(count for path, count in self.requests.items() if path.endswith(".deb"))

    def is_dead(self, path: str) -> bool:
        """Whether this request meets a dead mirror; counts it otherwise."""
        with self._lock:
            if self.dies_after >= 0 and self.debs >= self.dies_after:
                return True
            self.requests[path] += 1
            return False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()


class _Answerer(BaseHTTPRequestHandler):
    owner: ForwardingMirror
    protocol_version = "HTTP/1.1"

    def answer_get(self) -> None:
        """Ask the true server, unless dead or not allowed."""
        owner = self.owner
        wanted = f"Basic {base64.b64encode(owner.login.encode()).decode()}"
        if owner.login and self.headers.get("Authorization") != wanted:
            self._refuse(401)
        elif owner.is_dead(self.path):
            self._refuse(503)
        else:
            url = f"{owner.server}{self.path}"
            asked = {"Accept-Encoding": "identity"}
            with requests.get(url, stream=True, timeout=30, headers=asked) as answer:
                self.send_response(answer.status_code)
                for name in ("Content-Length", "Last-Modified", "Content-Type"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                if "Content-Length" not in answer.headers:
                    self.send_header("Connection", "close")
                    self.close_connection = True
                self.end_headers()
                if self.command == "GET":
                    shutil.copyfileobj(answer.raw, self.wfile)

    do_GET = answer_get  # noqa: N815 - the name that http.server calls
    do_HEAD = answer_get  # noqa: N815

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *_arguments: object) -> None:
        """Tests read `requests` instead."""
