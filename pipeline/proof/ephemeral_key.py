"""A key of one proof alone: its public half goes into the overlays of the guest's disks, where sshd
looks for root's keys; the private half stays in memory, here and in the test host.

The guest's file systems are mounted in the test host, which is thrown away, never on this machine.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import Broken
from pipeline.guest.host_keys import make_key
from pipeline.proof.agent import Agent
from pipeline.proof.artifact import Artifact
from pipeline.proof.names import HANDED
from pipeline.proof.seals import name_below
from pipeline.proof.timeouts import patient
from pipeline.spec.ssh_keys import fingerprint_key
from pipeline.xen.boot import Direct

WRITE_S = 120.0
SEEN_S = 30.0
COMMENT = "of one proof alone"
_MOST_REASON = 300


@dataclass(frozen=True)
class Credential:
    """What opens the guest over SSH: a private key, or b"" and the `reason` why there is none.

    `injected` says what was put into the guest for it, as proof.json has it; {} for nothing.
    """

    key: bytes = field(default=b"", repr=False)
    reason: str = ""
    injected: dict[str, Any] = field(default_factory=dict)


def inject_key(agent: Agent, artifact: Artifact) -> Credential:
    """Put a fresh key into the guest that was handed over and has not started yet.

    A guest that it cannot be put into, or that lets no root in by key, is the reason told; Broken
    is raised for a test host that cannot do its part.
    """
    private, line = _make_pair(artifact)
    answer = _carry_out(agent, {"line": line, **_describe_disks(artifact)})
    if "why" in answer:
        return Credential(reason=str(answer["why"])[:_MOST_REASON])
    target, _ = artifact.disks[answer["disk"]]
    injected = {
        "path": answer["path"],
        "key": fingerprint_key(line.split()[1]),
        "into": f"the overlay of {name_below(artifact.folder, target)}",
    }
    return Credential(private, injected=injected)


def _make_pair(artifact: Artifact) -> tuple[bytes, str]:
    """Private key and line of authorized_keys, of a kind that the guest's sshd knows."""
    is_old = artifact.spec is not None and not artifact.spec.suite_facts.understands_ed25519
    private, public = make_key("ecdsa" if is_old else "ed25519", old=False)
    kind, encoded = public.decode().split()[:2]
    return private, f"{kind} {encoded} {COMMENT}"


def _describe_disks(artifact: Artifact) -> dict[str, Any]:
    boot = artifact.domain.boot
    disks = [disk for disk in artifact.domain.disks if disk.target]
    return {
        "root": (boot.root or "") if isinstance(boot, Direct) else "",
        "disks": [
            {"device": disk.target, "format": disk.format, "vdev": disk.vdev} for disk in disks
        ],
    }


def _carry_out(agent: Agent, order: dict[str, Any]) -> dict[str, Any]:
    words = ["python3", f"{HANDED}/authorize"]
    stdin = json.dumps({**order, "seen_s": patient(SEEN_S)}).encode()
    said = agent.demand(words, stdin=stdin, timeout_s=patient(WRITE_S))
    try:
        answer = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise Broken("the test host cannot say where it put the key", details=said) from error
    if not isinstance(answer, dict):
        raise Broken("the test host cannot say where it put the key", details=said)
    return answer
