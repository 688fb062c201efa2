"""The SSH connection that a command was started over, and whether the other side still answers."""

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pipeline import process
from pipeline.errors import PipelineError

_VARIABLE = "SSH_CONNECTION"
_ACKED = re.compile(r"\bbytes_acked:(\d+)")


@dataclass(frozen=True)
class Connection:
    """A TCP connection of sshd's on this machine."""

    peer: str
    peer_port: int
    own_port: int

    @property
    def acked_bytes(self) -> int | None:
        """What the other side has acknowledged of all that was sent; None where that is not seen:
        without the connection, or without the kernel's module tcp_diag, which tcp_info comes by.

        tcp_info's bytes_acked (Linux 4.1), as ss(8) shows it, which leaves 0 out: it only grows
        when packets reach the other side and its answers come back. An older kernel says 0 always.
        """
        where = f"( sport = :{self.own_port} and dport = :{self.peer_port} )"
        try:
            text = process.run(["ss", "-H", "-t", "-i", "-n", "-O", "state", "established", where])
        except PipelineError:
            return None
        lines = [line for line in text.splitlines() if self.peer in line]
        if len(lines) != 1:
            return None
        acked = _ACKED.search(lines[0])
        return int(acked[1]) if acked else 0 if " mss:" in lines[0] else None


def find_connection() -> Connection | None:
    """That of this process or of one above it: sudo takes the variable out of the environment."""
    pid = os.getpid()
    while pid > 1:
        connection = _parse(_read_environment(pid).get(_VARIABLE, ""))
        if connection is not None:
            return connection
        pid = _parent_of(pid)
    return None


def _parse(text: str) -> Connection | None:
    """SSH_CONNECTION (ssh(1)): client's address and port, server's address and port."""
    words = text.split()
    if len(words) != 4 or not (words[1].isdigit() and words[3].isdigit()):
        return None
    try:
        peer = ip_address(words[0].partition("%")[0])
    except ValueError:
        return None
    return Connection(str(peer), int(words[1]), int(words[3]))


def _read_environment(pid: int) -> dict[str, str]:
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in content.split(b"\0"))
    return {name: value for name, _, value in pairs}


def _parent_of(pid: int) -> int:
    """0 for none. The name in proc(5)'s stat may hold anything: what counts follows it."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
