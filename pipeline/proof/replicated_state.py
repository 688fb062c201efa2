"""/proc/drbd: a replicated disk as one node sees it (drbd_proc.c of Linux 6.1, DRBD 8.4.11)."""

import re
from dataclasses import dataclass

_STATE = re.compile(
    r"^ *(?P<minor>\d+): cs:(?P<connection>\w+) ro:(?P<role>\w+)/\w+"
    r" ds:(?P<disk>\w+)/(?P<peer_disk>\w+)[^\n]*\n[^\n]*\boos:(?P<oos>\d+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class State:
    """One replicated disk as one node sees it; `out_of_sync` is in KiB."""

    connection: str
    role: str
    disk: str
    peer_disk: str
    out_of_sync: int

    @property
    def has_disk(self) -> bool:
        """Whether this node has a disk of its own below it."""
        return self.disk not in ("Diskless", "Failed", "Detaching")

    def __str__(self) -> str:
        return f"{self.connection} {self.role} {self.disk}/{self.peer_disk}"


def read_states(text: str) -> dict[int, State]:
    """/proc/drbd: each minor that is configured."""
    return {
        int(match["minor"]): State(
            connection=match["connection"],
            role=match["role"],
            disk=match["disk"],
            peer_disk=match["peer_disk"],
            out_of_sync=int(match["oos"]),
        )
        for match in _STATE.finditer(text)
    }
