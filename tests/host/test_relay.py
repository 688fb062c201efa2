"""The relay: the one connection of a cage, and where it leads."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import process
from pipeline.mirror.relay import relaying
from pipeline.mirror.snapshot import Snapshot
from pipeline.project import Cache
from pipeline.walls.cage import caged, make_room
from tests.conftest import require

pytestmark = pytest.mark.integration
HOST = "127.0.0.1"
SAID = b"said to the element"


class _Echo(threading.Thread):
    """Answers each connection to port 443 with what it was sent, backwards."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server((HOST, 443))

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(connection.recv(1 << 16)[::-1])


class _Plain(BaseHTTPRequestHandler):
    seen: list[str]

    def answer(self) -> None:
        self.seen.append(self.headers.get("Authorization", ""))
        self.send_response(200)
        self.send_header("Content-Length", str(len(SAID)))
        self.end_headers()
        self.wfile.write(SAID)

    do_GET = answer  # noqa: N815

    def log_message(self, format: str, *_arguments: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    server = ThreadingHTTPServer((HOST, 0), type("Bound", (_Plain,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"{HOST}:{server.server_address[1]}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def ask(folder: Path, request: str, *, others: tuple[str, ...] = (), after: str = "") -> str:
    """What a program in a cage gets for a request to its proxy; `after` is sent on the tunnel."""
    room = make_room(folder / "room")
    snapshot = Snapshot(folder, (), {}, 0, "", ())
    with relaying(snapshot, cache=Cache(folder / "cache"), others=others) as relay:
        port = relay.environment["http_proxy"].rpartition(":")[2]
        send = f"printf '{request}\\r\\nConnection: close\\r\\n\\r\\n' >&3"
        send += f"; sleep 1; printf '{after}' >&3" if after else ""
        script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; {send}; timeout 10 cat <&3"
        words = caged(["bash", "-c", script], room=room, window=relay.window)
        return process.run(words, keep_open=[relay.window.descriptor], accept=(0, 124))


def test_a_host_that_nobody_named_is_out_of_reach(
    tmp_path: Path, web: tuple[str, list[str]]
) -> None:
    """e44a75a passed everything through, for any user of the machine, with root's passwords."""
    answer = ask(tmp_path, f"GET http://{web[0]}/x HTTP/1.1")
    assert "403" in answer and SAID.decode() not in answer and web[1] == []


def test_a_host_that_the_spec_names_is_asked_without_a_password(
    tmp_path: Path, web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text(f"machine {HOST} login root password {'x' * 9}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    answer = ask(tmp_path, f"GET http://{web[0]}/x HTTP/1.1", others=(web[0],))
    assert SAID.decode() in answer and web[1] == [""]


def test_the_tunnel_leads_to_named_hosts_alone(tmp_path: Path) -> None:
    try:
        echo = _Echo()
    except OSError as error:
        require(False, f"port 443 of the loopback: {error}")
    echo.start()
    try:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        connect = f"CONNECT {HOST}:443 HTTP/1.1"
        assert "403" in ask(tmp_path / "a", connect, after="abc")
        assert ask(tmp_path / "b", connect, others=(HOST,), after="abc").endswith("cba")
        (tmp_path / "c").mkdir()
        assert "403" in ask(tmp_path / "c", f"CONNECT {HOST}:22 HTTP/1.1", others=(HOST,))
    finally:
        echo.listener.shutdown(socket.SHUT_RDWR)
        echo.listener.close()
        echo.join()


@pytest.mark.parametrize(
    "request_line",
    ["GET http://[::1 HTTP/1.1", "GET / HTTP/9.9", "POST / HTTP/1.1", "GET", "x" * 70000, "\\x00"],
    ids=["no address", "no version", "another word", "no path", "too long", "a zero byte"],
)
def test_nonsense_gets_an_answer_or_none_and_hurts_nobody(
    tmp_path: Path, request_line: str
) -> None:
    assert "Traceback" not in ask(tmp_path, request_line)
