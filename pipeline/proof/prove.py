"""The word `prove`: boot an artifact under real Xen, ask it, and leave the evidence beside it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.artifact.record import read_record
from pipeline.errors import GuestFailed, UsageError
from pipeline.guest.adopted_tree import read_adopted
from pipeline.mirror.snapshot import read_snapshot
from pipeline.proof import boots
from pipeline.proof.artifact import Artifact, read_artifact, read_foreign
from pipeline.proof.causes import likely_causes
from pipeline.proof.commission import HERE, prove_elsewhere, read_commission, read_evidence
from pipeline.proof.course import Course
from pipeline.proof.evidence import Evidence
from pipeline.proof.mirror import Supplies
from pipeline.proof.readiness import choose_spec, refuse_wrong_key
from pipeline.proof.session import Asked, Session
from pipeline.proof.testbed import Place, choose_place
from pipeline.proof.testhost import SUITES
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.store.store import Store


def prove(
    recipe: Recipe,
    spec: Spec,
    asked: Asked | None = None,
    firmware: Callable[[Spec], Path] | None = None,
) -> Evidence:
    """Prove the guest's artifact; the evidence is in output/guests/<name>/proof/ either way.

    `firmware` makes the UEFI firmware for Xen that a start with it takes. Raises GuestFailed when
    the guest does not do what it must, Broken when the test host does not.
    """
    asked = asked or Asked()
    spec = choose_spec(recipe, spec, as_is=asked.as_is)
    if key := asked.read_key():
        refuse_wrong_key(spec, key, asked.key_path)
    artifact = read_artifact(recipe.project.artifact(spec.name), spec)
    if spec.adopted:
        artifact = replace(artifact, has_sshd=read_adopted(recipe.project, spec.adopted).has_sshd)
    with ExitStack() as stack:
        if asked.boots not in ((), (boots.OWN,)):
            return _prove_boots(recipe, artifact, spec, asked, firmware)
        if recipe.elsewhere is not None:
            if evidence := prove_elsewhere(recipe, artifact, spec, asked):
                return evidence
            stack.enter_context(HERE)
        # on a real dom0 nothing can answer for the mirror
        supplies = None if asked.with_xl else find_supplies(recipe, artifact, spec, asked)
        return prove_artifact(recipe, artifact, spec, asked, supplies)


def prove_commission(
    recipe: Recipe, folder: Path, told: Mapping[str, Any], work: Path
) -> dict[str, str]:
    """Prove the copy of an artifact for another machine; its evidence as files (commission.py).

    A guest that fails is no error of this machine's. Raises Broken.
    """
    artifact, spec, asked = read_commission(folder, told, work)
    with suppress(GuestFailed):
        prove_artifact(recipe, artifact, spec, asked, find_supplies(recipe, artifact, spec, asked))
    return read_evidence(artifact.evidence)


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


def find_supplies(recipe: Recipe, artifact: Artifact, spec: Spec, asked: Asked) -> Supplies | None:
    """The state of its mirror that the store has: the one that it was built from, or a newer one.

    While the guest is current, its packages are in either.
    """
    last = read_record(artifact.folder).get("mirror")
    if last is None or spec.adopted:
        return None
    folder = Store.of(recipe.project).location("mirror", last.fingerprint)
    if not folder.is_dir():
        return None
    # the cloud kernel stands first in the menu beside the generic one
    suite = spec.suite_facts
    generic, other = suite.generic_kernel(spec.arch), suite.default_kernel(spec.arch)
    wants_kernel = asked.thorough and spec.boot == "pygrub" and spec.kernel == generic != other
    return Supplies(
        read_snapshot(folder),
        recipe.project.cache,
        spec.arch,
        is_whole=asked.thorough,
        kernel=other if wants_kernel else "",
    )


def prove_artifact(
    recipe: Recipe, artifact: Artifact, spec: Spec, asked: Asked, supplies: Supplies | None = None
) -> Evidence:
    """Prove what was read; `spec` says which Xen the test host has, and where it comes from."""
    asked.read_key()
    asked.read_password()
    if asked.netboot:
        _refuse_netboot(artifact, asked)
        artifact = replace(artifact, netboot=asked.netboot)
    place = choose_place(recipe, spec, artifact, with_xl=asked.with_xl)
    evidence = Evidence(artifact.name, facts={**artifact.facts, **place.facts})
    plan = Plan(artifact, asked, supplies)
    course = Course(recipe, evidence, artifact.folder, artifact.evidence, as_json=asked.as_json)
    course.run(lambda work: _prove(course, place, plan, work))
    return evidence


def _prove_boots(
    recipe: Recipe,
    artifact: Artifact,
    spec: Spec,
    asked: Asked,
    firmware: Callable[[Spec], Path] | None,
) -> Evidence:
    """Each of the ways to start its disk that were asked for, on this machine."""
    asked.read_password()
    wanted = boots.choose_boots(spec, asked.boots)
    if asked.with_xl or asked.netboot or asked.thorough:
        raise UsageError(
            "boots= starts the disk in machines that are made for it, and asks what is short",
            hint="leave prove_with, prove_netboot and prove_long out, or boots=",
        )
    place = choose_place(recipe, spec, artifact, with_xl=False)

    def find_firmware() -> Path:
        if spec.is_uefi:
            return artifact.boot_files[0]
        assert firmware is not None
        return firmware(spec)

    evidence = Evidence(artifact.name, facts={**artifact.facts, **place.facts})
    supplies = find_supplies(recipe, artifact, spec, asked)
    plan = boots.Plan(artifact, spec, asked, supplies, wanted, find_firmware)
    course = Course(recipe, evidence, artifact.folder, artifact.evidence, as_json=asked.as_json)
    course.run(lambda work: boots.prove_boots(course, place, plan, work))
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


@dataclass(frozen=True)
class Plan:
    """What is proven, what the person wants of it, what its mirror can serve."""

    artifact: Artifact
    asked: Asked
    supplies: Supplies | None


def _prove(course: Course, place: Place, plan: Plan, work: Path) -> None:
    artifact, evidence = plan.artifact, course.evidence
    session: Session | None = None
    try:
        with course.entered(place, work, artifact.digests) as (ground, seal):
            session = Session(ground, artifact, evidence, plan.asked, plan.supplies, seal)
            session.run(work)
    except GuestFailed:
        if session is not None:
            evidence.causes = likely_causes(session.seen)
        raise
