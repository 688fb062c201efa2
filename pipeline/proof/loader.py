"""What pygrub may do in the host: looked at in /proc once it has copied a kernel out of a disk."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import Broken, Finding, Level
from pipeline.proof.agent import Agent
from pipeline.proof.artifact import Artifact
from pipeline.proof.evidence import Evidence
from pipeline.proof.names import ROOM
from pipeline.proof.timeouts import patient
from pipeline.xen.boot import Pygrub

WATCHER = Path(__file__).with_name("host") / "loader"
SUBJECT = "pygrub runs restricted"
FACT = "restricted"
_WANTED = "a user of its own, no capability, own mnt net ipc, files of bounded size, one device"
_SPACES = ["mnt", "net", "ipc"]
_PYGRUBS = ("/usr/lib/xen*/bin/pygrub", "/usr/libexec/xen*/bin/pygrub")
_READY_S = 20.0


@contextmanager
def watched(agent: Agent, artifact: Artifact, evidence: Evidence) -> Iterator[None]:
    """Around `xl create`: pygrub is watched; nothing is done for other guests."""
    if not isinstance(artifact.domain.boot, Pygrub):
        yield
        return
    script, output = f"{ROOM}/loader", f"{ROOM}/loader.json"
    agent.write(script, WATCHER.read_bytes(), mode=0o755)
    words = shlex.join(["python3", script, output, *_PYGRUBS])
    started = f"{words} </dev/null >{script}.log 2>&1 & echo $!"
    pid = agent.demand(["sh", "-c", started]).strip()
    if not agent.read(output, wait_s=patient(_READY_S)):
        said = agent.read(f"{script}.log").decode(errors="replace")
        raise Broken("nobody can watch pygrub in this host", details=said)
    try:
        yield
        finding = judge(agent.read(output).decode(), is_foreign=artifact.spec is None)
        evidence.facts[FACT] = finding.level == "ok"
        evidence.add(finding)
    finally:
        agent.run(["kill", pid])


def judge(notes: str, *, is_foreign: bool) -> Finding:
    """A guest that was not built here is told, not failed."""
    seen = [event for event in map(json.loads, notes.splitlines()) if "uids" in event]
    bad = [event for event in seen if not _is_restricted(event)]
    shown = _show((bad or seen)[0]) if seen else "no pygrub copied a kernel"
    if seen and not bad:
        return Finding("ok", SUBJECT, expected=_WANTED, seen=shown)
    level: Level = "warning" if is_foreign and seen else "error"
    return Finding(level, SUBJECT, expected=_WANTED, seen=shown)


def _is_restricted(event: dict[str, Any]) -> bool:
    return (
        "0" not in [*event["uids"], *event["gids"], *event["groups"]]
        and not int(event["capabilities"], 16)
        and event["own"] == _SPACES
        and event["file_size"].isdigit()
        and len(event["sees"]) == 1
    )


def _show(event: dict[str, Any]) -> str:
    size = event["file_size"]
    files = f"{int(size) >> 20} MiB" if size.isdigit() else "any size"
    own = " ".join(event["own"]) or "none"
    sees = " ".join(event["sees"][:3])
    rights = "no capability" if not int(event["capabilities"], 16) else "capabilities"
    return f"user {event['uids'][0]}, {rights}, own {own}, files of {files}, sees {sees}"
