"""The prover's end of the line into the test host; the other end is host/agent."""

import base64
import json
import shlex
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import Broken

SLACK_S = 20.0


@dataclass(frozen=True)
class Reply:
    """What a command in the test host came to: exit status, output and error merged."""

    status: int
    output: str


class Agent:
    """Runs commands and moves files in the test host; Broken when it does not answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._waiting = b""
        self._last = int(time.monotonic() * 1000)

    def wait_until_there(self, *, timeout_s: float) -> None:
        """Wait for the first answer: the line keeps what is sent before the agent listens."""
        self._ask(timeout_s, word="wait", paths=["/"], timeout=0)

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Reply:
        """Run a command; status 124 when it took longer than `timeout_s`."""
        answer = self._ask(
            timeout_s + SLACK_S,
            word="run",
            argv=list(argv),
            stdin=_encode(stdin),
            timeout=timeout_s,
        )
        return Reply(answer["status"], _decode(answer["output"]))

    def demand(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> str:
        """Run a command that must succeed, else the test host is broken; returns its output."""
        reply = self.run(argv, stdin=stdin, timeout_s=timeout_s)
        if reply.status != 0:
            raise Broken(
                f"in the test host {shlex.join(argv)} ended with status {reply.status}",
                details=reply.output,
            )
        return reply.output

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file, or type into a terminal below /dev."""
        self._ask(SLACK_S, word="write", path=path, content=_encode(content), mode=mode)

    def read(self, path: str, *, offset: int = 0, wait_s: float = 0.0) -> bytes:
        """What stands in a file from `offset` on; waits at most `wait_s` s, may be nothing."""
        answer = self._ask(wait_s + SLACK_S, word="read", path=path, offset=offset, wait=wait_s)
        return base64.b64decode(answer["content"])

    def read_whole(self, path: str) -> bytes:
        """All that stands in a file."""
        content = b""
        while part := self.read(path, offset=len(content)):
            content += part
        return content

    def wait_for(self, paths: Sequence[str], *, timeout_s: float) -> bool:
        """Whether all of these exist within the time."""
        answer = self._ask(timeout_s + SLACK_S, word="wait", paths=list(paths), timeout=timeout_s)
        return bool(answer["found"])

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _ask(self, timeout_s: float, **request: Any) -> dict[str, Any]:
        self._last += 1
        line = json.dumps({"id": self._last, **request}).encode() + b"\n"
        end = time.monotonic() + timeout_s
        try:
            self._connection.settimeout(timeout_s)
            self._connection.sendall(line)
            while time.monotonic() < end:
                answer = self._receive()
                if answer.get("id") == self._last:
                    break
            else:
                raise TimeoutError
        except TimeoutError as error:
            raise Broken(
                f"the test host did not answer within {timeout_s:.0f} s ({request['word']})"
            ) from error
        except OSError as error:
            raise Broken(f"the test host is gone: {error}") from error
        if "error" in answer:
            raise Broken(f"the test host cannot {request['word']}: {answer['error']}")
        return answer

    def _receive(self) -> dict[str, Any]:
        while b"\n" not in self._waiting:
            received = self._connection.recv(1 << 16)
            if not received:
                raise Broken("the test host hung up")
            self._waiting += received
        line, _, self._waiting = self._waiting.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode("utf-8", "replace")
