"""What a shared disk must do: each of its members reads what another has just written.

With O_DIRECT, past the guests' own caches. What was in the last block is put back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.appliance.running_member import RunningMember
from pipeline.proof.checks import equal, unasked
from pipeline.proof.evidence import Evidence

_BLOCK = 4096
_KEPT = "/run/last-block"


@dataclass
class SharedStory:
    """A disk in the members that see it; `device` is its name in them, in the same order."""

    name: str
    size_mib: int
    members: Sequence[RunningMember]
    devices: Sequence[str]
    evidence: Evidence

    def tell(self) -> None:
        """Every check into the evidence; members that nobody can enter are not asked."""
        for member in self.members:
            if member.shell is None:
                self.evidence.add(unasked(f"{self.name}: {member.key}", member.credential.reason))
                return
        with self.evidence.phase(f"shared {self.name}"):
            self._run(0, f"{self._dd(0)} of={_KEPT}")
            for writer in range(len(self.members)):
                self._pass_on(writer)
            self._run(0, f"dd if={_KEPT} bs={_BLOCK} {self._put(0)}; rm {_KEPT}")

    def _pass_on(self, writer: int) -> None:
        """Written by one, read by all others."""
        key = self.members[writer].key
        text = f"{self.name} from {key}"
        self._run(writer, f"printf '{text}' | dd bs={_BLOCK} {self._put(writer)}")
        for reader, member in enumerate(self.members):
            if reader != writer:
                what = f"{self.name}: {member.key} reads what {key} has written"
                seen = self._run(reader, f"{self._dd(reader)} | tr -d '\\000'")
                self.evidence.add(equal(what, text, seen.strip()[-200:]))

    def _dd(self, number: int) -> str:
        return f"dd if={self.devices[number]} bs={_BLOCK} skip={self._last} count=1 iflag=direct"

    def _put(self, number: int) -> str:
        return f"of={self.devices[number]} seek={self._last} conv=sync,notrunc oflag=direct"

    @property
    def _last(self) -> int:
        return (self.size_mib << 20) // _BLOCK - 1

    def _run(self, number: int, script: str) -> str:
        return self.members[number].run("sh -s", stdin=f"exec 2>/dev/null; {script}\n").output
