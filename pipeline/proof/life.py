"""What a guest lives through: shut down, reboot, save and restore."""

from __future__ import annotations

import time

from pipeline.proof.agent import Agent
from pipeline.proof.checks import Check, holds
from pipeline.proof.console import Console
from pipeline.proof.errors import GuestFailed
from pipeline.proof.evidence import Evidence
from pipeline.proof.patience import patient
from pipeline.proof.shell import KEY, Shell

SHUTDOWN_S = 60.0
REBOOT_S = 240.0
MOVE_S = 180.0
SAVED = "/var/lib/xen/save/guest"
_BOOT = "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f1 /proc/uptime"


def shut_down(agent: Agent, name: str) -> Check:
    """`xl shutdown -w` and the domain is gone within the bound."""
    started = time.monotonic()
    reply = agent.run(["xl", "shutdown", "-w", name], timeout_s=patient(SHUTDOWN_S))
    seconds = time.monotonic() - started
    listed = agent.run(["xl", "domid", name]).status == 0 and "reason code 0" not in reply.output
    seen = f"gone after {seconds:.0f} s" if not listed else reply.output.strip() or "still there"
    return holds("xl shutdown", f"gone within {patient(SHUTDOWN_S):.0f} s", seen, ok=not listed)


def run_long_checks(evidence: Evidence, console: Console, shell: Shell) -> None:
    """Save and restore, then a reboot; the guest must come back from both."""
    with evidence.phase("save and restore"):
        evidence.add(*_save_and_restore(console.agent, console.domain, shell))
    with evidence.phase("reboot"):
        evidence.add(_reboot(console, shell))


def _save_and_restore(agent: Agent, name: str, shell: Shell) -> list[Check]:
    """The same boot goes on, and the SSH connection that was open before still answers."""
    before = shell.run(_BOOT).output.split()
    saved = agent.run(["xl", "save", name, SAVED], timeout_s=patient(MOVE_S))
    if saved.status:
        return [holds("xl save", "the guest is saved", saved.output[-300:], ok=False)]
    restored = agent.run(["xl", "restore", SAVED], timeout_s=patient(MOVE_S))
    agent.run(["rm", "-f", SAVED])
    if restored.status:
        return [holds("xl restore", "the guest goes on", restored.output[-300:], ok=False)]
    reply = shell.run(_BOOT)
    after = reply.output.split()
    same = len(after) == len(before) == 2 and after[0] == before[0]
    goes_on = same and float(after[1]) >= float(before[1])
    return [
        holds("save and restore", "the same boot goes on", " ".join(after), ok=goes_on),
        holds("the SSH connection survives", "it answers", reply.output[-200:], ok=same),
    ]


def _reboot(console: Console, shell: Shell) -> Check:
    """`xl reboot`: another boot, with a login prompt and SSH as before."""
    before = shell.run(_BOOT).output.split()[:1]
    key = console.agent.read(KEY)
    shell.leave()
    console.poll(wait_s=0)
    seen_up_to = len(console.text)
    console.agent.demand(["xl", "reboot", console.domain])
    try:
        console.wait_for(
            r"\blogin: ?$",
            timeout_s=patient(REBOOT_S),
            after=seen_up_to,
            what="login prompt after a reboot",
        )
    except GuestFailed as error:
        return holds("reboot", "it comes back", error.brief, ok=False)
    reply = shell.enter(key, timeout_s=patient(60))
    after = shell.run(_BOOT).output.split()[:1] if reply.status == 0 else []
    ok = bool(after) and after != before
    return holds("reboot", "another boot id", " ".join(after) or reply.output, ok=ok)
