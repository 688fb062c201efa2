"""What a server can send that no server should: whole answers as bytes, or without end."""

import gzip
import socket
import struct
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress

from tests.host.bad_mirror import Fault, _Answerer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
DRIP_S = 0.05
ZEROS = bytes(1 << 20)


def send(*pieces: bytes) -> Fault:
    """These bytes, then the end of the connection."""

    def answer(handler: _Answerer, _content: bytes) -> None:
        handler.close_connection = True
        with suppress(OSError):
            for piece in pieces:
                handler.wfile.write(piece)

    return answer


def flood(start: bytes, piece: bytes) -> Fault:
    """The start, then the same again and again for as long as somebody listens."""

    def answer(handler: _Answerer, _content: bytes) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(start)
            while not handler.owner.closing.is_set():
                handler.wfile.write(piece)

    return answer


def trickle(start: bytes, piece: bytes) -> Fault:
    """The start, then a piece now and then, each in time for any timeout."""

    def answer(handler: _Answerer, _content: bytes) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(start)
            while not handler.owner.closing.wait(DRIP_S):
                handler.wfile.write(piece)

    return answer


def pause(start: bytes) -> Fault:
    """The start, and nothing more until the test ends."""

    def answer(handler: _Answerer, _content: bytes) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(start)
        handler.owner.closing.wait()

    return answer


def reset(start: bytes = b"") -> Fault:
    """The start, then RST instead of an orderly end."""

    def answer(handler: _Answerer, _content: bytes) -> None:
        handler.close_connection = True
        handler.wfile.write(start)
        no_linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        handler.connection.close()

    return answer


def encoded(name: str, pack: Callable[[bytes], bytes]) -> Fault:
    """A gigabyte of zeros, a thousandth of it on the wire, called encoded in that way."""
    body = pack(ZEROS * 64)
    return send(_head({"Content-Encoding": name, "Content-Length": str(len(body))}), body)


def whole(**headers: str) -> Fault:
    """The right file under such headers."""

    def answer(handler: _Answerer, content: bytes) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        send(_head({"Content-Length": str(len(content)), **named}), content)(handler, content)

    return answer


def lead(location: bytes, *, status: int = 302, body: bytes = b"") -> Fault:
    """A redirect whose Location is any bytes."""
    head = f"HTTP/1.1 {status} Found\r\nContent-Length: {len(body)}\r\n".encode()
    return send(head + b"Location: " + location + b"\r\n\r\n", body)


def chain(handler: _Answerer, _content: bytes) -> None:
    """Redirect to another place each time, without end."""
    steps = handler.path.count("x")
    handler.answer(302, b"", {"Location": f"{handler.path.rpartition('?')[0]}?{'x' * (steps + 1)}"})


def _head(headers: dict[str, str]) -> bytes:
    return (
        OK + "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n"
    )


def bomb(kind: str) -> Fault:
    """A packed file of the name's kind."""
    return encoded(kind, gzip.compress if kind == "gzip" else zlib.compress)


def many(lines: Iterable[str]) -> bytes:
    """Header lines."""
    return "".join(f"{line}\r\n" for line in lines).encode()
