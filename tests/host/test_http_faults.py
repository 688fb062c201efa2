"""A mirror, or who stands on the way to it, answers with anything: one line, bounded, and nothing
left behind.

On e44a75a a package without end took all memory, so did a bomb; drips, `100 Continue` and headers
without end were never over, and one redirect was a traceback.
"""

import hashlib
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.console.terminal import printable
from pipeline.errors import PipelineError
from pipeline.mirror import credentials, fetch, http_client
from pipeline.mirror import http_client as trouble
from pipeline.mirror.failover import Route
from pipeline.scratch import remove_dead_parts
from tests.host import raw_answers as raw
from tests.host.bad_mirror import LOCALHOST, Fault, MisbehavingMirror, hang, redirect, status
from tests.host.raw_answers import CHUNKED, OK, bomb, flood, lead, many, pause, reset, send, trickle

pytestmark = pytest.mark.integration

CONTENT = bytes(range(256)) * 16
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MOST_MEMORY = 24 << 20
MOST_S = 6.0

LENGTH = b"Content-Length: 4096\r\n\r\n"
WRONG, CUT, SLOW, TIME, HEAD = (
    *("wrong bytes (", "the answer was cut short", "too slow (", "does not answer in time"),
    "KiB before its answer",
)
LATE = "its answer has not begun"
# short is the one bound that a fault is to meet: a busy machine must meet no other before it
BOUNDS = {
    TIME: http_client.Bounds(connect_s=1, silent_s=0.4),
    SLOW: http_client.Bounds(slow_after_s=0.4),
    LATE: http_client.Bounds(head_s=0.6),
}
FAILED = "the connection failed"
NOWHERE = "redirects to something that is no address"
NOT_HTTP = "redirects to something that is not HTTP"
CIRCLE = "redirects in a circle"

# name -> what is sent, exit code, what is said; None where the file is right all the same
FAULTS: dict[str, tuple[Fault, int, str]] = {
    "body without end": (flood(OK + b"\r\n", raw.ZEROS), 5, WRONG),
    "body without end in chunks": (flood(CHUNKED, b"10000\r\n" + bytes(65536) + b"\r\n"), 5, WRONG),
    "body of 10 TB": (flood(OK + b"Content-Length: 10000000000000\r\n\r\n", raw.ZEROS), 5, WRONG),
    "one byte more": (send(OK + b"Content-Length: 4097\r\n\r\n", CONTENT + b"x"), 5, WRONG),
    "one byte less": (send(OK + b"Content-Length: 4095\r\n\r\n", CONTENT[:-1]), 5, WRONG),
    "other bytes": (send(OK + LENGTH, CONTENT[::-1]), 5, WRONG),
    "half, then closed": (send(OK + LENGTH, CONTENT[:2048]), 1, CUT),
    "half, then silent": (pause(OK + LENGTH + CONTENT[:2048]), 1, TIME),
    "half, then reset": (reset(OK + LENGTH + CONTENT[:2048]), 1, FAILED),
    "0 bytes promised": (send(OK + b"Content-Length: 0\r\n\r\n"), 5, WRONG),
    "0 bytes, then closed": (send(OK + b"\r\n"), 5, WRONG),
    "gzip bomb": (bomb("gzip"), 5, WRONG),
    "deflate bomb": (bomb("deflate"), 5, WRONG),
    "called br": (raw.whole(Content_Encoding="br"), 0, ""),
    "called zstd": (raw.whole(Content_Encoding="zstd"), 0, ""),
    "called gzip, deflate, gzip": (raw.whole(Content_Encoding="gzip, deflate, gzip"), 0, ""),
    "drip": (trickle(OK + LENGTH, b"x"), 1, SLOW),
    "drip in chunks": (trickle(CHUNKED, b"1\r\nx\r\n"), 1, SLOW),
    "drip of a chunk's length": (trickle(CHUNKED, b"0"), 1, SLOW),
    "chunk extension without end": (flood(CHUNKED + b"1;", b"a" * 65536), 1, FAILED),
    "chunk of a petabyte": (flood(CHUNKED + b"fffffffffffff\r\n", raw.ZEROS), 5, WRONG),
    "chunk of a negative length": (send(CHUNKED, b"-5\r\nhello"), 1, "cut short"),
    "chunk of no length": (send(CHUNKED, b"zz\r\nhello\r\n"), 1, "cut short"),
    "chunks of one byte without end": (flood(CHUNKED, b"1\r\nx\r\n" * 9999), 5, WRONG),
    "chunks with no end": (send(CHUNKED, b"1000\r\n" + CONTENT + b"\r\n"), 1, "cut short"),
    "trailers without end": (
        flood(CHUNKED + b"0\r\n", b"A: b\r\n" * 9999),
        1,
        "of wrapping around",
    ),
    "drip of trailers": (trickle(CHUNKED + b"0\r\n", b"A: b\r\n"), 1, SLOW),
    "length and chunks": (
        send(CHUNKED[:-2] + b"Content-Length: 9\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        5,
        WRONG,
    ),
    "two lengths": (send(OK + b"Content-Length: 1\r\n" + LENGTH, CONTENT), 1, FAILED),
    "a negative length": (send(OK + b"Content-Length: -1\r\n\r\n", CONTENT), 0, ""),
    "a length of letters": (send(OK + b"Content-Length: many\r\n\r\n", CONTENT), 0, ""),
    "a length of 5000 digits": (
        send(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"),
        5,
        WRONG,
    ),
    "100 Continue without end": (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999), 1, HEAD),
    "drip of 100 Continue": (trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), 1, LATE),
    "103 Early Hints": (send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), 1, "answers 103"),
    "drip of headers": (trickle(OK, b"A: b\r\n"), 1, LATE),
    "drip of one header": (trickle(OK + b"A: ", b"b"), 1, LATE),
    "a header without end": (flood(OK + b"A: ", b"b" * 65536), 1, FAILED),
    "headers without end": (flood(OK, b"A: b\r\n" * 999), 1, FAILED),
    "90 headers of 60 KB": (send(OK + many(f"A{i}: {'b' * 60000}" for i in range(90))), 1, HEAD),
    "a head without end, folded": (flood(OK + b"A: b\r\n", b" c\r\n" * 999), 1, FAILED),
    "no HTTP": (send(b"220 smtp ready\r\n"), 1, FAILED),
    "no HTTP and no end": (flood(b"", raw.ZEROS), 1, FAILED),
    "a status of letters": (send(b"HTTP/1.1 OK fine\r\n\r\n"), 1, FAILED),
    "a status of 5 digits": (send(b"HTTP/1.1 20000 OK\r\n\r\n"), 1, FAILED),
    "HTTP/2": (send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 1, FAILED),
    "TLS where plain was asked": (send(b"\x15\x03\x01\x00\x02\x02\x46"), 1, FAILED),
    "nothing, then closed": (send(), 1, FAILED),
    "nothing, then reset": (reset(), 1, FAILED),
    "nothing": (hang, 1, TIME),
    "NUL in a header": (send(OK + b"A: \x00b\r\n" + LENGTH, CONTENT), 0, ""),
    "a header without a colon": (send(OK + b"what is this\r\n" + LENGTH, CONTENT), 0, ""),
    "cookies": (raw.whole(Set_Cookie="a=b; Domain=invalid; Max-Age=99999999999999999999"), 0, ""),
    "escapes in the status line": (
        send(b"HTTP/1.1 403 \x1b[2Jno\r\n\r\n"),
        1,
        "answers 403 Forbidden",
    ),
    "204": (status(204), 1, "answers 204"),
    "206": (send(b"HTTP/1.1 206 Partial Content\r\n" + LENGTH, CONTENT), 1, "answers 206"),
    "304": (status(304), 1, "answers 304"),
    "401 without end": (flood(b"HTTP/1.1 401 No\r\n\r\n", raw.ZEROS), 1, "asks for a password"),
    "404 without end": (flood(b"HTTP/1.1 404 No\r\n\r\n", raw.ZEROS), 1, "not found (404)"),
    "429": (status(429), 1, "answers 429"),
    "500 without end": (flood(b"HTTP/1.1 500 No\r\n\r\n", raw.ZEROS), 1, "answers 500"),
    "999": (send(b"HTTP/1.1 999 Whatever\r\n\r\n"), 1, "answers 999"),
    "redirect to itself": (redirect(), 1, CIRCLE),
    "redirects without end": (raw.chain, 1, CIRCLE),
    "redirect to ftp": (lead(b"ftp://127.0.0.1/x"), 1, NOT_HTTP),
    "redirect to a file": (lead(b"file:///etc/passwd"), 1, NOT_HTTP),
    "redirect to a script": (lead(b"javascript:alert(1)"), 1, NOT_HTTP),
    "redirect to http://[::1": (lead(b"http://[::1"), 1, NOWHERE),
    "redirect to a port of 99999": (lead(b"http://127.0.0.1:99999/"), 1, NOWHERE),
    "redirect to no host": (lead(b"http:///x"), 1, CIRCLE),
    "redirect to a host of dots": (lead(b"http://..../x"), 1, "not a URL that can be fetched"),
    "redirect to nowhere": (lead(b""), 1, NOWHERE),
    "redirect without a place": (
        send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
        1,
        NOWHERE,
    ),
    "redirect to an escape sequence": (
        lead(b"http://127.0.0.1:1/\x1b[2J"),
        1,
        "connection refused",
    ),
    "redirect to bytes that are no text": (lead(b"http://127.0.0.1:1/\xff\xfe"), 1, NOWHERE),
    "redirect of 60 KB": (lead(b"http://127.0.0.1:1/" + b"a" * 60000), 1, "connection refused"),
    "redirect to a closed port": (lead(b"http://127.0.0.1:1/"), 1, "connection refused"),
    "redirect with a page without end": (
        flood(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", raw.ZEROS),
        1,
        "not found (404)",
    ),
    "redirect with a drip of a page": (
        trickle(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 99\r\n\r\n", b"x"),
        1,
        LATE,
    ),
    "redirect with a page that is called gzip": (
        send(
            b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Encoding: gzip\r\n"
            b"Content-Length: 3\r\n\r\nabc"
        ),
        1,
        "not found (404)",
    ),
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MisbehavingMirror]:
    root = tmp_path_factory.mktemp("mirror")
    (root / "debian").mkdir()
    (root / "debian/a.deb").write_bytes(CONTENT)
    with MisbehavingMirror(root) as serving:
        yield serving


@pytest.fixture(autouse=True)
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "name" in request.fixturenames:
        reason = FAULTS[request.getfixturevalue("name")][2]
        monkeypatch.setattr(http_client, "BOUNDS", BOUNDS.get(reason, http_client.BOUNDS))
    monkeypatch.setattr(fetch, "PAUSE_S", 0.0)
    monkeypatch.setattr(credentials, "APT_FOLDER", tmp_path / "apt")


@dataclass
class Cost:
    """What a block took: wall time in seconds, bytes of memory at its peak beyond the start's."""

    seconds: float = 0.0
    memory: int = 0


def memory(name: str) -> int:
    """VmHWM or VmRSS of this process in bytes (proc(5))."""
    match = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert match
    return int(match[1]) << 10


def fetch_package(url: str, debs: Path) -> Path:
    """A package of these bytes, as a bootstrap fetches it."""
    route = Route({"main": url.rpartition("/")[0]})
    return route.fetch(url, debs / SHA256, size=len(CONTENT), sha256=SHA256)


def cost_of_refusal(url: str, cache: Path) -> tuple[PipelineError | None, Cost]:
    """The error of fetching a package, and what it cost; the peak's mark is set back before."""
    Path("/proc/self/clear_refs").write_text("5")
    begun, before = time.monotonic(), memory("VmRSS")
    caught: PipelineError | None = None
    try:
        fetch_package(url, cache)
    except PipelineError as error:
        caught = error
    return caught, Cost(time.monotonic() - begun, memory("VmHWM") - before)


def params() -> Iterator[Any]:
    for name, (_, exit_code, _) in FAULTS.items():
        ending = "message" if exit_code else "survived"
        yield pytest.param(name, marks=pytest.mark.fault(name=name, place="package", ending=ending))


@pytest.mark.parametrize("name", list(params()))
def test_whatever_a_mirror_sends_is_one_line_within_bounds(
    name: str, mirror: MisbehavingMirror, tmp_path: Path
) -> None:
    fault, exit_code, reason = FAULTS[name]
    mirror.faults = {"a.deb": fault, "x": fault}
    caught, cost = cost_of_refusal(f"{mirror.url}/a.deb", tmp_path / "debs")
    left = sorted(path.name for path in tmp_path.glob("debs/*"))
    if exit_code == 0:
        assert (caught, left) == (None, [SHA256])
    else:
        assert caught is not None and (caught.exit_code, left) == (exit_code, [])
        assert reason in caught.brief, caught.brief
        assert mirror.url in caught.brief and caught.hint and not caught.details
        assert "\n" not in caught.brief and len(caught.brief) < 200
        assert caught.brief == printable(caught.brief)
    assert cost.memory < MOST_MEMORY, f"{cost.memory >> 20} MiB"
    assert cost.seconds < MOST_S


@pytest.mark.parametrize(
    "name",
    [
        *("body without end", "body without end in chunks", "gzip bomb", "drip"),
        *("drip in chunks", "100 Continue without end", "drip of 100 Continue"),
        *("drip of headers", "redirect with a page without end", "trailers without end"),
    ],
)
def test_a_release_file_without_a_size_is_bounded_too(name: str, mirror: MisbehavingMirror) -> None:
    mirror.faults = {"InRelease": FAULTS[name][0]}
    begun = time.monotonic()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    try:
        found = fetch.fetch_bytes(f"{mirror.url}/InRelease", limit=1 << 20)
    except PipelineError as error:
        assert error.hint and "\n" not in error.brief
    else:
        assert name == "gzip bomb" and len(found) < 1 << 20
    assert memory("VmHWM") - before < MOST_MEMORY
    assert time.monotonic() - begun < MOST_S


def test_a_tls_handshake_that_never_ends_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes the connection and says nothing."""
    monkeypatch.setattr(http_client, "BOUNDS", BOUNDS[TIME])
    ended = threading.Event()
    with socket.create_server((LOCALHOST, 0)) as listener:

        def serve() -> None:
            listener.settimeout(0.1)
            taken: list[socket.socket] = []
            while not ended.is_set():
                try:
                    taken.append(listener.accept()[0])
                except TimeoutError:
                    continue
            for connection in taken:
                connection.close()

        server = threading.Thread(target=serve)
        server.start()
        url = f"https://{LOCALHOST}:{listener.getsockname()[1]}/debian/a.deb"
        caught, cost = cost_of_refusal(url, tmp_path / "debs")
        ended.set()
        server.join()
    assert caught is not None and TIME in caught.brief and cost.seconds < MOST_S
    assert not list(tmp_path.glob("debs/*"))


def test_connections_are_used_again_and_by_each_thread_its_own(
    mirror: MisbehavingMirror, tmp_path: Path
) -> None:
    mirror.faults = {}
    mirror.clients.clear()
    url = f"{mirror.url}/a.deb"

    def fetch_ten() -> None:
        for _ in range(10):
            target = fetch_package(url, tmp_path / "debs")
            target.unlink(missing_ok=True)

    fetch_ten()
    other = threading.Thread(target=fetch_ten)
    other.start()
    other.join()
    assert (mirror.asked("a.deb") >= 20, len(mirror.clients)) == (True, 2)


def test_netrc_and_cookies_play_no_part(
    mirror: MisbehavingMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = hashlib.sha256(str(time.time()).encode()).hexdigest()[:16]
    (tmp_path / ".netrc").write_text(f"machine {LOCALHOST} login me password {secret}\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    mirror.faults = {"a.deb": raw.whole(Set_Cookie="a=b")}
    mirror.authorizations.clear()
    for _ in range(2):
        fetch.fetch_bytes(f"{mirror.url}/a.deb")
    assert mirror.authorizations == set() and mirror.cookies == set()


def test_the_hosts_cas_count_and_a_list_that_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.crt"))
    with pytest.raises(PipelineError, match="no such file") as caught:
        trouble.trusted_cas()
    assert caught.value.exit_code == 3
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert trouble.trusted_cas() == str(trouble.HOST_CAS) or not trouble.HOST_CAS.is_file()
    assert ssl.create_default_context()


@pytest.mark.parametrize(
    ("filename", "quoted"),
    [
        ("base-files_12.4+deb12u15_amd64.deb", "base-files_12.4%2bdeb12u15_amd64.deb"),
        ("a name with blanks.deb", "a%20name%20with%20blanks.deb"),
        ("epoch_1%3a2_all.deb", "epoch_1%253a2_all.deb"),
    ],
)
def test_a_folder_is_a_mirror_whose_names_are_quoted(
    tmp_path: Path, filename: str, quoted: str
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / filename).write_bytes(CONTENT)
    root = f"file:{tmp_path}/a%20folder"
    assert fetch_package(f"{root}/{quoted}", tmp_path / "debs").read_bytes() == CONTENT


def test_what_a_killed_fetch_left_goes_with_the_next_of_that_file(
    mirror: MisbehavingMirror, tmp_path: Path
) -> None:
    debs = tmp_path / "debs"
    debs.mkdir()
    left, other = debs / f".{SHA256}.4000000.1", debs / f".{'f' * 64}.4000000.1"
    for path in (left, other):
        path.write_bytes(b"half")
    mirror.faults = {}
    fetch_package(f"{mirror.url}/a.deb", debs)
    assert not left.exists() and other.exists()
    assert remove_dead_parts(debs) == [other]


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_what_is_no_file_in_the_cache_is_replaced(
    kind: str, mirror: MisbehavingMirror, tmp_path: Path
) -> None:
    debs = tmp_path / "debs"
    debs.mkdir()
    target = debs / SHA256
    victim = tmp_path / "victim"
    victim.write_bytes(CONTENT)
    {
        "folder": lambda: (target / "a").mkdir(parents=True),
        "link": lambda: target.symlink_to(victim),
        "fifo": lambda: os.mkfifo(target),
    }[kind]()
    mirror.faults = {}
    fetch_package(f"{mirror.url}/a.deb", debs)
    assert target.is_file() and not target.is_symlink() and victim.read_bytes() == CONTENT
