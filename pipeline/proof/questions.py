"""The questions that are asked in the guest, over the open SSH connection."""

from __future__ import annotations

from pathlib import Path

from pipeline.proof.artifact import Artifact
from pipeline.proof.checks import (
    Answer,
    Expectation,
    holds,
    judge,
    modules_for,
    read_answers,
    unasked,
)
from pipeline.proof.evidence import Evidence
from pipeline.proof.ssh import Shell

QUESTIONS = Path(__file__).with_name("host") / "questions"


def question(
    shell: Shell, artifact: Artifact, evidence: Evidence, *, is_alone: bool = True
) -> dict[str, Answer]:
    """Ask everything once and note what it comes to; returns the answers."""
    modules = modules_for(artifact.spec)
    reply = shell.run(f"sh -s -- {' '.join(modules)}", stdin=QUESTIONS.read_bytes())
    answers = read_answers(reply.output)
    expected = expectation(artifact, shell.address, modules, is_alone=is_alone)
    evidence.add(*judge(answers, expected))
    terminal = (shell.run("tty", tty=True).output.splitlines() or [""])[0].strip()
    ok = terminal.startswith("/dev/pts/")
    evidence.add(holds("ssh -t has a terminal", "/dev/pts/N", terminal, ok=ok))
    return answers


def expectation(
    artifact: Artifact, address: str, modules: tuple[str, ...], *, is_alone: bool
) -> Expectation:
    """What the answers are judged against."""
    lines = artifact.known_hosts.splitlines()
    keys = frozenset(" ".join(line.split()[1:3]) for line in lines if line.strip())
    fixed = [str(found.ip) for card in artifact.cards for found in card.addresses]
    return Expectation(
        spec=artifact.spec,
        cards=artifact.cards,
        abi=artifact.abi,
        host_keys=keys or None,
        addresses=tuple(dict.fromkeys([address, *fixed])),
        modules=modules,
        is_alone=is_alone,
    )


def note_unasked(evidence: Evidence, why: str) -> None:
    """Say what could not be asked: nobody is let in without a credential."""
    for name in ("SSH with the key", "system state", "kernel, modules, mounts, settings"):
        evidence.add(unasked(name, why))
