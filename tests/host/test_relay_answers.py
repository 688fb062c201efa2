"""The relay of a build: the verified state and nothing else, whatever the other end does."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.mirror import relay as relay_module
from pipeline.mirror.relay import HOST, Relay
from pipeline.mirror.snapshot import Snapshot, read_snapshot
from pipeline.walls.cage import Window
from tests.host.bad_mirror import LOCALHOST, MisbehavingMirror
from tests.host.mirror_bench import Bench
from tests.patience import wait_for

pytestmark = pytest.mark.integration


class Build:
    """What is in the cage: it has handed over a listening socket, and asks for things."""

    def __init__(self, relay: Relay, listener: socket.socket) -> None:
        self.relay = relay
        self._address = listener.getsockname()

    def connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=240)

    def ask(self, url: str, *, method: str = "GET", more: str = "") -> tuple[int, bytes]:
        """Status and body of one request through the proxy."""
        return self.send(f"{method} {url} HTTP/1.1\r\nHost: x\r\n{more}Connection: close\r\n\r\n")

    def send(self, text: str | bytes) -> tuple[int, bytes]:
        with self.connect() as connection:
            connection.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))
            said = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = said.partition(b"\r\n\r\n")
        return int(head.split()[1]) if head else 0, body


@pytest.fixture
def snapshot(bench: Bench) -> Snapshot:
    return read_snapshot(bench.build(security=False).folder)


@pytest.fixture
def build(bench: Bench, snapshot: Snapshot) -> Iterator[Build]:
    relay = Relay(snapshot, Window(), cache=bench.project.cache)
    relay.start()
    with socket.create_server((LOCALHOST, 0)) as listener:
        theirs = socket.socket(fileno=socket.dup(relay.window.descriptor))
        with theirs:
            socket.send_fds(theirs, [b"x"], [listener.fileno()])
        yield Build(relay, listener)
        relay.stop()


def test_a_package_comes_from_the_cache_by_digest_under_both_names(
    bench: Bench, snapshot: Snapshot, build: Build
) -> None:
    hello = snapshot.packages.find("hello", "1.0")
    path = hello.url.removeprefix(bench.mirror.url)
    for url in (f"http://{HOST}/main{path}", hello.url, hello.url.replace("_", "%5f")):
        status, body = build.ask(url)
        assert (status, hashlib.sha256(body).hexdigest()) == (200, hello.sha256)
    assert bench.mirror.asked(".deb") == 1
    assert build.ask(f"{bench.mirror.url}/dists/bookworm/InRelease")[0] == 200


@pytest.mark.parametrize(
    "url",
    (
        "http://{other}/secret http://{mirror}/secret "
        "http://{mirror}/debian-security/dists/bookworm-security/InRelease "
        "http://me:pass@{mirror}/debian/dists/bookworm/InRelease "
        "https://{mirror}/debian/dists/bookworm/InRelease http://[::1 http://127.0.0.1:1/ "
        "file:///etc/passwd /etc/passwd /main/dists/bookworm/InRelease "
        "http://snapshot.invalid@{other}/secret http://snapshot.invalid.{other}/main/x *"
    ).split(),
)
def test_nothing_else_is_passed_through(
    bench: Bench, build: Build, tmp_path: Path, url: str
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/secret").write_text("inner")
    (bench.mirror.root / "secret").write_text("inner")
    asked = bench.mirror.requests.total()
    with MisbehavingMirror(tmp_path / "inner") as other:
        found = build.ask(url.format(other=other.address, mirror=bench.mirror.address))
        assert (found[0] in (400, 403), b"inner" in found[1]) == (True, False)
        assert other.requests.total() == 0
    assert bench.mirror.requests.total() == asked


@pytest.mark.parametrize(
    "name",
    [
        *("/main/pool/../../../etc/passwd", "/main/%2e%2e/%2e%2e/etc/passwd"),
        *("/main//etc/passwd", "/main/dists/bookworm/../../../etc/passwd"),
        *("/main/dists/bookworm/main/by-hash/SHA256/../../../x", "/main/\x1b[2J", "/nothing/x"),
        "/main/",
    ],
)
def test_what_the_snapshot_does_not_name_is_not_there(build: Build, name: str) -> None:
    status, body = build.ask(f"http://{HOST}{name}")
    assert status in (403, 404) and b"root:" not in body and b"\x1b" not in body


@pytest.mark.parametrize("method", ["CONNECT", "POST", "PUT", "HEAD", "X" * 60000])
def test_other_methods_do_nothing(build: Build, method: str) -> None:
    assert build.ask(f"http://{HOST}/main/x", method=method)[0] in (501, 414, 403, 400)


FLOODS: dict[str, Any] = {
    "a request line without end": b"GET " + b"a" * 200_000,
    "headers without end": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 40_000,
    "no HTTP": b"\x16\x03\x01" * 50_000,
    "NUL": bytes(100_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_request_has_an_end(build: Build, name: str) -> None:
    try:
        status, _body = build.send(FLOODS[name])
    except ConnectionError:
        status = 0
    assert status in (0, 400, 414, 431)
    assert build.ask(f"http://{HOST}/main/dists/bookworm/InRelease")[0] == 200


def test_a_request_that_drips_is_hung_up_on(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "HEAD_S", 0.3)
    begun = time.monotonic()
    with build.connect() as connection:
        try:
            while time.monotonic() < begun + 60:
                connection.sendall(b"A")
                time.sleep(0.05)
        except ConnectionError:
            pass
    assert time.monotonic() - begun < 30


def test_connections_are_counted_and_the_build_goes_on_when_they_end(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    taken = [build.connect() for _ in range(relay_module.MOST_CONNECTIONS + 40)]
    time.sleep(0.5)
    assert threading.active_count() - before <= relay_module.MOST_CONNECTIONS
    for connection in taken:
        connection.close()

    def is_answered() -> bool:
        with suppress(ConnectionError):
            return build.ask(f"http://{HOST}/main/dists/bookworm/InRelease")[0] == 200
        return False

    wait_for(is_answered, "an answer to the next one")
