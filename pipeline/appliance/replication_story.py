"""The story of a replicated disk, told in two running guests.

Connected and up to date from the first moment without a sync; the primary lost, the other goes on;
the lost one comes back; a cut line, with both written to, and its healing.
Facts: drbd.conf-8.4(5), drbdsetup-8.4(8), DRBD 8.4's /proc/drbd.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.appliance.appliance_file import Replicated
from pipeline.appliance.running_member import RunningMember
from pipeline.errors import GuestFailed
from pipeline.proof.checks import equal, holds, read_answers
from pipeline.proof.evidence import Evidence
from pipeline.proof.replicated_state import State, read_states
from pipeline.proof.replication_faults import QUESTION, Node, explain
from pipeline.proof.timeouts import patient

CONNECT_S, SEEN_S = 30.0, 3.0
# DRBD asks its peer every ten seconds whether it is still there (ping-int)
NOTICE_S = 45.0
SYNC_S = 120.0
STEP_S = 240.0
TOGETHER = "cs:Connected .*ds:UpToDate/UpToDate"
_FRESH, _NO_SYNC = "UpToDate/UpToDate", "0 KiB out of sync, 0 resyncs"
ALONE = ("WFConnection", "StandAlone", "NetworkFailure", "Timeout", "BrokenPipe", "Unconnected")
_CUT = f"cs:({'|'.join(ALONE)}) "
_RESYNC = re.compile(r"block drbd(\d+): Began resync as")
# reading the kernel's log is dear in an emulated guest, looking at /proc is not
_PRELUDE = """PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C
resource={resource} device=/dev/drbd{minor} point=/run/proof-{resource}
state() {{ grep -A1 "^ *{minor}: " /proc/drbd; }}
await() {{
    end=$(($(date +%s) + $2))
    until state | grep -Eq "$1"; do [ "$(date +%s)" -lt "$end" ] || break; sleep 1; done
}}
enter() {{ drbdadm primary "$resource" && mkdir -p "$point" && mount "$device" "$point"; }}
leave() {{ umount "$point" && drbdadm secondary "$resource"; }}
fill() {{ head -c "$2" /dev/urandom >"$point/$1" && sync; }}
sums() {{ (cd "$point" && sha256sum -- *.bin) | sed 's/^/sum: /'; }}
log() {{ dmesg | grep -i drbd; }}
"""


@dataclass
class Story:
    """One resource between two members; `first` becomes primary first. `bridge` is its line."""

    name: str
    resource: Replicated
    first: RunningMember
    second: RunningMember
    bridge: str
    evidence: Evidence

    def tell(self) -> None:
        """All of it. Raises GuestFailed where there is nothing to go on with."""
        with self._chapter("connected"):
            self._see_connected()
        with self._chapter("written"):
            sums = self._write()
        with self._chapter("takeover"):
            sums = self._take_over(sums)
        with self._chapter("comes back"):
            self._come_back(sums)
        with self._chapter("cut"):
            self._cut()
        with self._chapter("healed"):
            self._heal()

    @contextmanager
    def _chapter(self, name: str) -> Iterator[None]:
        with self.evidence.phase(f"{self.name} {name}"):
            yield

    def _see_connected(self) -> None:
        """As both see it, and without a copy; else why not, in one line."""
        minor, nodes, before = self.resource.minor, [], len(self.evidence.failed)
        # once the first has waited, the second has nothing to wait for
        for member, bound_s in ((self.first, CONNECT_S), (self.second, SEEN_S)):
            script = f"await '{TOGETHER}' {patient(bound_s):.0f}\nset -- {self.name} {minor}\n"
            answers = read_answers(self._ask(member, script + QUESTION))
            node = Node(member.session.artifact.short_hostname, answers)
            nodes.append(node)
            self._note_state(f"connected on {member.key}", f"Secondary {_FRESH}", node.text("proc"))
            resyncs, state = len(_RESYNC.findall(node.text("log"))), self._read(node.text("proc"))
            seen = f"{state.out_of_sync if state else '?'} KiB out of sync, {resyncs} resyncs"
            self._note_equal(f"no first sync on {member.key}", _NO_SYNC, seen)
        cause = explain(nodes[0], nodes[1], minor)
        self._note("both nodes agree", "nothing against it", cause or "nothing", ok=not cause)
        if len(self.evidence.failed) > before:
            self.evidence.causes += [cause] if cause else []
            raise GuestFailed(f"{self.name}: its two nodes are not as they should be")

    def _write(self) -> str:
        """A file system on the device, and a file; returns the checksums of what is there."""
        said = self._ask(
            self.first,
            'drbdadm primary "$resource" && mke2fs -q -F -t ext4 "$device" && enter'
            " && fill first.bin 4194304 && sums; state\n",
        )
        sums = _read_sums(said)
        self._note(f"written on {self.first.key}", "first.bin", sums or said[-300:], ok=bool(sums))
        if not sums:
            raise GuestFailed(f"{self.name}: {self.first.key} cannot write to it", details=said)
        return sums

    def _take_over(self, sums: str) -> str:
        """The first is gone at once; the second finds its file, and writes one itself."""
        self.first.destroy()
        said = self._ask(
            self.second,
            f"await '{_CUT}' {patient(NOTICE_S):.0f}; enter && sums; echo then\n"
            "fill second.bin 1048576 && sums; state\n",
        )
        before, _, after = said.partition("\nthen\n")
        kept = _read_sums(before)
        what = f"{self.second.key} goes on when {self.first.key} is destroyed"
        self._note(what, sums, kept or said[-300:], ok=kept == sums)
        if kept != sums or not _read_sums(after):
            raise GuestFailed(f"{self.name}: {self.second.key} does not go on", details=said)
        return _read_sums(after)

    def _come_back(self, sums: str) -> None:
        self.first.come_back()
        wait = f"await '{TOGETHER}' {patient(SYNC_S):.0f}\n"
        said = self._ask(self.first, f"{wait}state; log\n")
        self._note_state(f"{self.first.key} comes back", f"Secondary {_FRESH}", said)
        resyncs, state = len(_RESYNC.findall(said)), self._read(said)
        seen = f"{state.out_of_sync if state else '?'} KiB out of sync, {resyncs} resyncs"
        name = f"{self.first.key} gets what it has missed"
        # a busy machine may lose the connection once more meanwhile
        ok = state is not None and state.out_of_sync == 0 and resyncs > 0
        self._note(name, "0 KiB out of sync after a resync", seen, ok=ok)
        self._ask(self.second, "leave; state\n")
        kept = _read_sums(said := self._ask(self.first, "enter && sums; state\n"))
        name = f"{self.first.key} has what {self.second.key} wrote"
        self._note(name, sums, kept or said[-300:], ok=kept == sums)
        if kept != sums:
            raise GuestFailed(f"{self.name}: {self.first.key} does not come back", details=said)

    def _cut(self) -> None:
        """The line is cut: both notice, the primary goes on; the other is written to as well."""
        self._set_line("down")
        # split brain: what was written here alone is what the policy is asked about
        apart = (
            'drbdadm primary "$resource" && dd if=/dev/zero of="$device" bs=4096 count=1'
            ' conv=fsync status=none && drbdadm secondary "$resource"'
        )
        parts = (
            (self.first, "Primary", "fill third.bin 1048576"),
            (self.second, "Secondary", apart),
        )
        for member, role, script in parts:
            wait = f"await '{_CUT}' {patient(NOTICE_S):.0f}\n"
            said = self._ask(member, f"{wait}{script} && echo written; state\n")
            state = self._read(said)
            ok = state is not None and (state.connection in ALONE, state.role) == (True, role)
            seen = f"{state or said[-200:]}{', written' if 'written' in said else ''}"
            expected = f"alone, {role}, written"
            self._note(f"cut: {member.key}", expected, seen, ok=ok and "written" in said)

    def _heal(self) -> None:
        """The line is back: the policy decides for the primary, or leaves it to a person."""
        self._set_line("up")
        policy, bound = self.resource.split_brain.after_1pri, f"{patient(SYNC_S):.0f}"
        is_mended = policy == "discard-secondary"
        noticed = f"until log | grep -q Split-Brain; do [ $n -lt {bound} ] || break"
        script = f"n=0; {noticed}; n=$((n + 1)); sleep 1; done; log | grep Split-Brain\n"
        script += f"await '{TOGETHER if is_mended else 'cs:(StandAlone|WFConnection)'}' {bound}\n"
        said = self._ask(self.first, f"{script}state\n")
        state = self._read(said)
        connection = state.connection if state else said[-200:]
        ok = connection == "Connected" if is_mended else connection in ALONE
        seen = f"{'' if 'Split-Brain' in said else 'no '}split brain, {connection}"
        expected = f"split brain, {'Connected' if is_mended else 'StandAlone or WFConnection'}"
        self._note(f"after_1pri = {policy}", expected, seen, ok=ok and "Split-Brain" in said)
        if not is_mended:
            mend = 'drbdadm disconnect "$resource"; drbdadm connect --discard-my-data "$resource"'
            self._ask(self.second, f"{mend}; state\n")
            self._ask(self.first, 'drbdadm connect "$resource"; state\n')
        for member, role in ((self.first, "Primary"), (self.second, "Secondary")):
            said = self._ask(member, f"await '{TOGETHER}' {bound}; state\n")
            self._note_state(f"healed: {member.key}", f"{role} {_FRESH}", said)
        kept = _read_sums(self._ask(self.first, "sums; leave; state\n"))
        name = f"what {self.first.key} wrote alone is kept"
        self._note(name, "third.bin", kept, ok="third.bin" in kept)

    def _set_line(self, state: str) -> None:
        """Take the second's card out of service in the host, or back into it."""
        for card in self.second.cards_in(self.bridge):
            self.second.agent.demand(["ip", "link", "set", card, state])

    def _ask(self, member: RunningMember, script: str) -> str:
        prelude = _PRELUDE.format(resource=self.name, minor=self.resource.minor)
        return member.run("sh -s", stdin=prelude + script, timeout_s=STEP_S).output

    def _read(self, text: str) -> State | None:
        return read_states(text).get(self.resource.minor)

    def _note_state(self, what: str, expected: str, text: str) -> None:
        self._note_equal(what, f"Connected {expected}", str(self._read(text) or text[-200:]))

    def _note(self, what: str, expected: str, seen: str, *, ok: bool) -> None:
        self.evidence.add(holds(f"{self.name}: {what}", expected, seen, ok=ok))

    def _note_equal(self, what: str, expected: str, seen: str) -> None:
        self.evidence.add(equal(f"{self.name}: {what}", expected, seen))


def _read_sums(text: str) -> str:
    """The checksums in what was printed, in one line; "" for none."""
    sums = re.findall(r"^sum: (\w{12})\w*  (\S+)$", text, re.MULTILINE)
    return ", ".join(f"{name} {digest}" for digest, name in sums)
