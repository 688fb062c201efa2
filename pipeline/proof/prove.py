"""The word `prove`: boot an artifact under real Xen, ask it, and leave the evidence beside it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

from pipeline.command import require_tools
from pipeline.errors import PipelineError
from pipeline.host.scratch import remove_abandoned, scratch_folder
from pipeline.progress import print_line
from pipeline.proof import machine
from pipeline.proof.artifact import Artifact, read_artifact
from pipeline.proof.causes import likely_causes
from pipeline.proof.errors import Broken, GuestFailed
from pipeline.proof.evidence import Evidence
from pipeline.proof.history import note_proof
from pipeline.proof.names import FOLDER, PROOF
from pipeline.proof.readiness import choose_spec, refuse_wrong_key
from pipeline.proof.session import Asked, Session
from pipeline.proof.testhost import TOOLS, TestHost, ensure_host
from pipeline.recipe import Recipe
from pipeline.spec import Spec


def prove(recipe: Recipe, spec: Spec, asked: Asked | None = None) -> Evidence:
    """Prove the guest's artifact; the evidence is in output/guests/<name>/proof/ either way.

    Raises GuestFailed when the guest does not do what it must, Broken when the test host does not.
    """
    require_tools(TOOLS)
    asked = asked or Asked()
    spec = choose_spec(recipe, spec, as_is=asked.as_is)
    if key := asked.read_key():
        refuse_wrong_key(spec, key, asked.key_path)
    artifact = read_artifact(recipe.project.artifact(spec.name), spec)
    log = recipe.project.log(spec.name, "prove")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    host = ensure_host(recipe, spec)
    evidence = Evidence(spec.name, facts=_facts(host, spec))
    root = recipe.project.output / "scratch"
    remove_abandoned(root)
    try:
        with scratch_folder(root, f"prove-{spec.name}") as work:
            _prove(artifact, host, work, log, asked, evidence)
        _judge(evidence)
    except PipelineError as error:
        _conclude(evidence, error)
        error.stage, error.guest, error.log = "prove", spec.name, str(log)
        raise
    finally:
        evidence.write(artifact.folder / FOLDER)
        evidence.trend = note_proof(recipe.project.output, evidence.to_json())
    return evidence


def say_proven(recipe: Recipe, spec: Spec, asked: Asked | None = None) -> None:
    """Prove, and print what was found."""
    evidence = prove(recipe, spec, asked)
    total = evidence.seconds["total"]
    done = sum(check.ok is True for check in evidence.checks)
    print_line(f"{spec.name} is proven: {done} checks under Xen in {total:.0f} s")
    print_line(f"  times:     {evidence.describe_times()}")
    print_line(f"  {evidence.trend}")
    for check in evidence.checks:
        if check.ok is None:
            print_line(f"  not asked: {check.name} ({check.seen})")
    print_line(f"  evidence:  {recipe.project.artifact(spec.name) / FOLDER / PROOF}")


def _facts(host: TestHost, spec: Spec) -> dict[str, object]:
    kind = {key: getattr(spec, key) for key in ("suite", "type", "boot", "init", "format")}
    accelerator = host.accelerator.name
    return {**kind, "xen": host.xen, "test host": host.fingerprint, "accelerator": accelerator}


def _prove(
    artifact: Artifact, host: TestHost, work: Path, log: Path, asked: Asked, evidence: Evidence
) -> None:
    digests = threading.Thread(target=lambda: evidence.digests.update(artifact.digests()))
    session: Session | None = None
    try:
        with evidence.phase("total"), ExitStack() as stack:
            with evidence.phase("resume"):
                running = stack.enter_context(
                    machine.resume(host.folder, work, host.accelerator, log=log)
                )
            evidence.meter = running.work_s
            stack.callback(evidence.stop_meter)
            digests.start()
            stack.callback(digests.join)
            session = Session(running, artifact, evidence, asked)
            session.run(work)
    except GuestFailed:
        _note_causes(evidence, session)
        raise


def _note_causes(evidence: Evidence, session: Session | None) -> None:
    if session is not None:
        evidence.causes = likely_causes(
            console=evidence.console,
            create=session.create_output,
            has_lease=session.has_lease,
            has_login=session.has_login,
        )


def _judge(evidence: Evidence) -> None:
    """A guest with a check that does not hold has failed; every such check is shown."""
    if evidence.failed:
        count = len(evidence.failed)
        raise GuestFailed(f"{count} of {len(evidence.checks)} checks do not hold")
    evidence.verdict = "proven"


def _conclude(evidence: Evidence, error: PipelineError) -> None:
    """Put what was seen into the error: the checks, the end of the console, the likely cause."""
    evidence.verdict = "failed" if isinstance(error, GuestFailed) else "broken"
    evidence.reason = error.brief
    lines = [str(check) for check in evidence.failed]
    lines += [error.details] if error.details else []
    if isinstance(error, GuestFailed) and evidence.console:
        tail = [line for line in evidence.console.splitlines() if line.strip()][-40:]
        lines += ["the end of its console:", *(f"  | {line}" for line in tail)]
    error.details = "\n".join(lines)
    if evidence.causes:
        error.hint = f"likely cause: {'; '.join(evidence.causes)}"
    elif isinstance(error, Broken) and not error.hint:
        error.hint = "the test host is at fault, not the guest: see the log"
