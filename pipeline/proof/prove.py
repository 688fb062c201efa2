"""The word `prove`: boot an artifact under real Xen, ask it, and leave the evidence beside it."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings, render_table, summarize
from pipeline.console.progress import print_line
from pipeline.errors import Broken, GuestFailed, PipelineError, UsageError
from pipeline.guest.adopted_tree import read_adopted
from pipeline.mirror.snapshot import read_snapshot
from pipeline.proof.artifact import Artifact, read_artifact, read_foreign
from pipeline.proof.causes import likely_causes
from pipeline.proof.console import last_lines
from pipeline.proof.evidence import Evidence
from pipeline.proof.history import note_proof
from pipeline.proof.mirror import Supplies
from pipeline.proof.names import PROOF
from pipeline.proof.readiness import choose_spec, refuse_wrong_key
from pipeline.proof.seals import find_change
from pipeline.proof.session import Asked, Session
from pipeline.proof.testbed import Place, choose_place
from pipeline.proof.testhost import SUITES
from pipeline.recipe import Recipe
from pipeline.scratch import remove_abandoned, scratch_folder
from pipeline.spec import Spec
from pipeline.store.store import Store


def prove(recipe: Recipe, spec: Spec, asked: Asked | None = None) -> Evidence:
    """Prove the guest's artifact; the evidence is in output/guests/<name>/proof/ either way.

    Raises GuestFailed when the guest does not do what it must, Broken when the test host does not.
    """
    asked = asked or Asked()
    spec = choose_spec(recipe, spec, as_is=asked.as_is)
    if key := asked.read_key():
        refuse_wrong_key(spec, key, asked.key_path)
    artifact = read_artifact(recipe.project.artifact(spec.name), spec)
    if spec.adopted:
        artifact = replace(artifact, has_sshd=read_adopted(recipe.project, spec.adopted).has_sshd)
    # on a real dom0 nothing can answer for the mirror
    supplies = None if asked.with_xl else find_supplies(recipe, spec, is_whole=asked.thorough)
    return prove_artifact(recipe, artifact, spec, asked, supplies)


def prove_foreign(
    recipe: Recipe, configuration: Path, xen: str, asked: Asked, *, origin: str = "foreign"
) -> Evidence:
    """Prove a guest of an xl configuration that was not rendered here, under this Xen.

    The evidence is in output/proofs/<name>/proof/, with `origin` among its facts. Raises as `prove`
    does.
    """
    if xen not in SUITES:
        raise UsageError(
            f"prove_xen={xen}: there is no test host with this Xen",
            hint=f"one of {', '.join(SUITES)}, the versions that Debian ships",
        )
    artifact = read_foreign(configuration, recipe.project.output / "proofs", origin)
    host_spec = Spec.model_validate({"name": "foreign", "xen": xen, "type": artifact.domain.type})
    return prove_artifact(recipe, artifact, host_spec, asked)


def find_supplies(recipe: Recipe, spec: Spec, *, is_whole: bool) -> Supplies | None:
    """The state of its mirror that the store has: the one that it was built from, or a newer one.

    While the guest is current, its packages are in either.
    """
    last = recipe.last_built(recipe.stages["mirror"], spec)
    if last is None or spec.adopted:
        return None
    folder = Store.of(recipe.project).location("mirror", last.fingerprint)
    if not folder.is_dir():
        return None
    # the cloud kernel stands first in the menu beside the generic one
    suite = spec.suite_facts
    generic, other = suite.generic_kernel(spec.arch), suite.default_kernel(spec.arch)
    wants_kernel = is_whole and spec.boot == "pygrub" and spec.kernel == generic != other
    return Supplies(
        read_snapshot(folder),
        recipe.project.cache,
        spec.arch,
        is_whole=is_whole,
        kernel=other if wants_kernel else "",
    )


def prove_artifact(
    recipe: Recipe, artifact: Artifact, spec: Spec, asked: Asked, supplies: Supplies | None = None
) -> Evidence:
    """Prove what was read; `spec` says which Xen the test host has, and where it comes from."""
    asked.read_key()
    asked.read_password()
    log = recipe.project.log(artifact.name, "prove")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    if asked.netboot:
        _refuse_netboot(artifact, asked)
        artifact = replace(artifact, netboot=asked.netboot)
    place = choose_place(recipe, spec, artifact, with_xl=asked.with_xl)
    evidence = Evidence(artifact.name, facts={**artifact.facts, **place.facts})
    root = recipe.project.scratch
    root.mkdir(parents=True, exist_ok=True)
    remove_abandoned(root)
    try:
        with scratch_folder(root, f"prove-{artifact.name}") as work:
            _prove(place, Plan(artifact, asked, supplies), work, log, evidence)
        _see_unchanged(artifact, evidence)
        _judge(evidence)
    except PipelineError as error:
        _conclude(evidence, error)
        error.stage, error.guest, error.log = "prove", artifact.name, str(log)
        raise
    finally:
        evidence.write(artifact.evidence)
        evidence.trend = note_proof(recipe.project.output, evidence.to_json())
        tell(evidence, artifact.evidence / PROOF, as_json=asked.as_json)
    return evidence


def _refuse_netboot(artifact: Artifact, asked: Asked) -> None:
    """Raises UsageError where nobody would ask for what is offered, or nobody here offers it."""
    if asked.with_xl:
        raise UsageError(
            f"prove_netboot={asked.netboot}: on a real dom0 its own network answers",
            hint="leave prove_netboot or prove_with=xl out",
        )
    if artifact.starts_from != "the network":
        raise UsageError(
            f"prove_netboot={asked.netboot}: {artifact.name} does not start from the network",
            hint="write boot_order = 'n' into its spec",
        )


def tell(evidence: Evidence, path: Path, *, as_json: bool) -> None:
    """What was found, for a program; for a person what an error does not say."""
    record: dict[str, object] = {}
    if as_json:
        record = {**evidence.to_json(), "evidence": str(path)}
        del record["checks"], record["digests"], record["guest"]
    ANSWER.add_findings(evidence.guest, evidence.checks, **record)
    if as_json or evidence.verdict != "proven":
        return
    print_findings(evidence.checks)
    held, total = summarize(evidence.checks), evidence.seconds["total"]
    print_line(f"{evidence.guest} is proven: {held}, under Xen in {total:.0f} s")
    print_line(f"  times:     {evidence.describe_times()}")
    if put := evidence.injected:
        print_line(f"  key:       of this proof alone, in {put['path']} in {put['into']}")
    print_line(f"  {evidence.trend}")
    print_line(f"  evidence:  {path}")


@dataclass(frozen=True)
class Plan:
    """What is proven, what the person wants of it, what its mirror can serve."""

    artifact: Artifact
    asked: Asked
    supplies: Supplies | None


def _prove(place: Place, plan: Plan, work: Path, log: Path, evidence: Evidence) -> None:
    artifact = plan.artifact
    session: Session | None = None
    try:
        with evidence.phase("total"), ExitStack() as stack:
            sealing = stack.enter_context(ThreadPoolExecutor(1)).submit(artifact.digests)
            with evidence.phase("resume"):
                ground = stack.enter_context(place.enter(work, log))
            evidence.meter = ground.meter
            stack.callback(evidence.stop_meter)
            seal = sealing.result
            session = Session(ground, artifact, evidence, plan.asked, plan.supplies, seal)
            _run(session, work)
    except GuestFailed:
        if session is not None:
            evidence.causes = likely_causes(session.seen)
        raise


def _run(session: Session, work: Path) -> None:
    """The proof itself; whatever goes wrong and is not the guest is Broken."""
    try:
        session.run(work)
    except (GuestFailed, UsageError):
        raise
    except PipelineError as error:
        raise session.host.explain(error) from error
    except OSError as error:
        raise Broken(
            f"the machine cannot carry the proof: {error.strerror or error}",
            details=str(error.filename or ""),
            hint="it is written where output/scratch is: see that there is space",
        ) from error


def _see_unchanged(artifact: Artifact, evidence: Evidence) -> None:
    """What was booted is what lies there, bit for bit; else Broken: it was a proof of nothing."""
    with evidence.phase("compare"):
        change = find_change(artifact.folder, evidence.digests)
    if change:
        raise Broken(
            f"the artifact changed while it was proven: {change}",
            hint="whoever builds, starts or edits it has to wait: prove it again",
        )
    evidence.is_unchanged = True


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
    lines = render_table(evidence.failed)
    lines += [error.details] if error.details else []
    if isinstance(error, GuestFailed) and evidence.console:
        tail = last_lines(evidence.console)
        lines += ["the end of its console:", *(f"  | {line}" for line in tail)]
    error.details = "\n".join(lines)
    if evidence.causes:
        error.hint = f"likely cause: {'; '.join(evidence.causes)}"
    elif isinstance(error, Broken) and not error.hint:
        error.hint = "the host is at fault, not the guest: see the log"
