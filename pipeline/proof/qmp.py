"""QEMU's monitor: commands as JSON over a socket (docs/interop/qmp-spec of QEMU)."""

import json
import socket
import time
from typing import Any

from pipeline.errors import Broken


class Monitor:
    """A connection to one QEMU; every method raises Broken when QEMU refuses or is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._receive()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """Send one command and return its answer."""
        request = {"execute": command, "arguments": arguments}
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise Broken(f"QEMU is gone: {error}") from error
        while True:
            reply = self._receive()
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise Broken(f"QEMU refuses {command}: {reply['error']['desc']}")

    def wait_for_migration(self, *, timeout_s: float) -> None:
        """Wait until the state is saved or restored."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            state = self.ask("query-migrate")
            if state.get("status") == "completed":
                return
            if state.get("status") == "failed":
                raise Broken(f"QEMU cannot move the machine: {state.get('error-desc', 'failed')}")
            time.sleep(0.02)
        raise Broken(f"QEMU did not move the machine within {timeout_s:.0f} s")

    def limit_patience(self, seconds: float) -> None:
        """Wait no longer than this for any further answer."""
        self._connection.settimeout(seconds)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self._connection.close()

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._stream.readline()
        except OSError as error:
            raise Broken(f"QEMU does not answer: {error}") from error
        if not line:
            raise Broken("QEMU ended", hint="its own words are at the end of the log")
        answer: dict[str, Any] = json.loads(line)
        return answer
