"""What a guest lives through: shut down, reboot, save and restore, live migration."""

import time

from pipeline.errors import Finding, GuestFailed
from pipeline.proof.agent import Agent
from pipeline.proof.checks import equal, holds, unasked
from pipeline.proof.console import Console
from pipeline.proof.evidence import Evidence
from pipeline.proof.names import ROOM
from pipeline.proof.ssh import Shell
from pipeline.proof.timeouts import patient
from pipeline.xen.capabilities import find_no_live, read_info

SHUTDOWN_S = 60.0
REBOOT_S = 480.0
MOVE_S = 180.0
INSTALL_S = 1200.0
SAVED = f"{ROOM}/saved"
LIVE = "live migration"
# of 20 moves of a PVH guest under QEMU's emulated SVM two, on a busy machine, ended in a new boot
NOT_EMULATED = "in the test host some guests are lost on the way: prove_with=xl asks"
_KERNELS = "cd /boot && ls vmlinuz-* | sed s/vmlinuz-//"
_BOOT = "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f1 /proc/uptime"


def shut_down(agent: Agent, name: str) -> Finding:
    """`xl shutdown -w` and the domain is gone within the bound."""
    bound = f"gone within {patient(SHUTDOWN_S):.0f} s"
    if agent.run(["xl", "domid", name]).status:
        return holds("xl shutdown", bound, "it was gone before", ok=False)
    started = time.monotonic()
    reply = agent.run(["xl", "shutdown", "-w", name], timeout_s=patient(SHUTDOWN_S))
    seconds = time.monotonic() - started
    listed = agent.run(["xl", "domid", name]).status == 0 and "reason code 0" not in reply.output
    seen = f"gone after {seconds:.0f} s" if not listed else reply.output.strip() or "still there"
    return holds("xl shutdown", bound, seen, ok=not listed)


def run_long_checks(
    evidence: Evidence, console: Console, shell: Shell, kernel: str, *, moves: str
) -> None:
    """Save and restore, a live migration, then a reboot; the guest must come back from each.

    `moves` is its type where it can be moved live, "" in the test host. With `kernel`, a package
    that its mirror serves, it reboots into that one.
    """
    with evidence.phase("save and restore"):
        evidence.add(*_save_and_restore(console.agent, console.domain, shell))
    with evidence.phase("live migration"):
        evidence.add(*_migrate_live(console.agent, console.domain, shell, moves))
    if kernel:
        with evidence.phase("another kernel"):
            installed, abi = _install_kernel(shell, kernel)
            evidence.add(installed)
    with evidence.phase("reboot"):
        evidence.add(_reboot(console, shell))
    if kernel and installed.level == "ok":
        evidence.add(equal("uname -r after the reboot", abi, _running(shell)))


def _running(shell: Shell) -> str:
    return shell.run("uname -r").output.strip()


def _install_kernel(shell: Shell, package: str) -> tuple[Finding, str]:
    """apt-get install in the guest, as its administrator does; the check, and the kernel's ABI."""
    before = set(shell.run(_KERNELS).output.split())
    quiet = "LC_ALL=C DEBIAN_FRONTEND=noninteractive"
    command = f"{quiet} apt-get -y --no-install-recommends install {package}"
    reply = shell.run(command, timeout_s=patient(INSTALL_S))
    new = sorted(set(shell.run(_KERNELS).output.split()) - before)
    seen = " ".join(new) if reply.status == 0 else reply.output.strip()[-300:]
    ok = reply.status == 0 and len(new) == 1
    name = f"apt-get install {package}"
    return holds(name, "one more kernel in /boot", seen, ok=ok), (new or [""])[0]


def _save_and_restore(agent: Agent, name: str, shell: Shell) -> list[Finding]:
    """The same boot goes on, and the SSH connection that was open before still answers."""
    before = shell.run(_BOOT).output.split()
    saved = agent.run(["xl", "save", name, SAVED], timeout_s=patient(MOVE_S))
    if saved.status:
        return [holds("xl save", "the guest is saved", saved.output[-300:], ok=False)]
    restored = agent.run(["xl", "restore", SAVED], timeout_s=patient(MOVE_S))
    agent.run(["rm", "-f", SAVED])
    if restored.status:
        return [holds("xl restore", "the guest goes on", restored.output[-300:], ok=False)]
    return _goes_on("save and restore", "the SSH connection survives", before, shell)


def _migrate_live(agent: Agent, name: str, shell: Shell, kind: str) -> list[Finding]:
    """Into another domain of this host, while it runs: xl's own receiver without ssh."""
    if not kind:
        return [unasked(LIVE, NOT_EMULATED, "the same boot goes on")]
    info = read_info(agent.run(["xl", "info"]).output)
    for finding in find_no_live(kind, info):
        return [unasked(LIVE, finding.message, "the same boot goes on")]
    before = shell.run(_BOOT).output.split()
    domid = agent.run(["xl", "domid", name]).output
    words = ["xl", "migrate", "-s", "", name, "xl migrate-receive"]
    moved = agent.run(words, timeout_s=patient(MOVE_S))
    if moved.status or agent.run(["xl", "domid", name]).output == domid:
        return [holds(LIVE, "it is another domain", moved.output[-300:], ok=False)]
    return _goes_on(LIVE, f"{LIVE} keeps the SSH connection", before, shell)


def _goes_on(what: str, connection: str, before: list[str], shell: Shell) -> list[Finding]:
    reply = shell.run(_BOOT)
    after = reply.output.split()
    same = len(after) == len(before) == 2 and after[0] == before[0]
    goes_on = same and float(after[1]) >= float(before[1])
    return [
        holds(what, "the same boot goes on", " ".join(after), ok=goes_on),
        holds(connection, "it answers", reply.output[-200:], ok=same),
    ]


def _reboot(console: Console, shell: Shell) -> Finding:
    """`xl reboot`: another boot, with a login prompt and SSH as before."""
    before = shell.run(_BOOT).output.split()[:1]
    key = console.agent.read(shell.key_file)
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
