"""One guest's night: built from a fresh mirror state, checked, proven, published."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipeline import process
from pipeline.artifact.channels import NIGHTLY, read_notes
from pipeline.artifact.folder import read_source, reading_artifact, require_backing
from pipeline.artifact.published import (
    channels,
    list_versions,
    note_night,
    prune,
    publish,
    published,
)
from pipeline.check import check_guest
from pipeline.diagnosis import explained
from pipeline.dom0.inventory import list_used_versions
from pipeline.dom0.layout import Layout
from pipeline.errors import (
    EnvironmentFault,
    InUseError,
    PipelineError,
    UsageError,
    VerificationError,
)
from pipeline.mirror.fetch import NotFound
from pipeline.mirror.trouble import MirrorTrouble
from pipeline.night.nightly_file import Terms
from pipeline.plan import require_buildable
from pipeline.proof.prove import prove
from pipeline.proof.readiness import find_password_file
from pipeline.proof.seals import read_verdict
from pipeline.proof.session import Asked
from pipeline.recipe import Recipe
from pipeline.report.outcome import Fault, GuestNight, Verdict
from pipeline.spec import Spec
from pipeline.stage import State
from pipeline.supply.keys import has_keys
from pipeline.supply.statements import PROVENANCE_FILE, describe


@dataclass
class GuestSteps:
    """A guest on its way through the night `night`; `before` is where nightly led at its start."""

    recipe: Recipe
    spec: Spec
    terms: Terms
    night: str
    before: str
    passphrase: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    step: str = ""

    def spend(self) -> GuestNight:
        """All of it; what a person can mend is the verdict, with its reason."""
        fault = None
        verdict: Verdict = "unchanged"
        try:
            with explained():
                self._carry_out()
        except PipelineError as error:
            fault = self._describe(error)
            verdict = "broken" if is_broken(error) else "failed"
        now = channels(self.recipe.project, self.spec.name)
        version = now.get(NIGHTLY)
        if fault is None and version is not None and version.name != self.before:
            verdict = "published"
        return self._conclude(verdict, fault, {channel: at.name for channel, at in now.items()})

    def _carry_out(self) -> None:
        with self._begun("build"):
            state = self._build()
        if not self._is_delivered(state):
            with self._begun("check"):
                check_guest(self.recipe, self.spec)
            if not self.terms.unproven and not read_verdict(self._artifact).is_proven:
                with self._begun("prove"):
                    self._prove()
            self._deliver()
        with self._begun("publish"):
            self._keep_house()

    @contextmanager
    def _begun(self, step: str) -> Iterator[None]:
        self.step, started = step, time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self.seconds[step] = round(self.seconds.get(step, 0.0) + spent, 3)

    @property
    def _artifact(self) -> Path:
        return self.recipe.project.artifact(self.spec.name)

    def _build(self) -> State:
        """All stages; of those that do not need one another, two at a time."""
        recipe, spec = self.recipe, self.spec
        if spec.root_password_file == "-":
            raise UsageError(
                f"{spec.name}: root_password_file = '-' asks a person, and there is none at night",
                hint="name a file that holds the password",
            )
        recipe.build_early("mirror", spec)
        recipe.build("mirror", spec)
        require_buildable(recipe, spec, process.run)
        waiting, made = list(recipe.stages.values()), set[str]()
        with ThreadPoolExecutor(2) as pool:
            while waiting:
                ready = [stage.name for stage in waiting if made.issuperset(stage.after)]
                *_others, state = pool.map(partial(recipe.build, spec=spec), ready)
                made.update(ready)
                waiting = [stage for stage in waiting if stage.name not in made]
        return state

    def _is_delivered(self, state: State) -> bool:
        """Whether nightly leads to this already, or was taken back from it by a person."""
        project, name = self.recipe.project, self.spec.name
        now = channels(project, name).get(NIGHTLY)
        if now is not None and now.fingerprint == state.fingerprint and not now.note:
            is_signed = (now.folder / PROVENANCE_FILE).is_file() or not has_keys(project.keys)
            return is_signed and (now.proof == "proven" or self.terms.unproven)
        notes = read_notes(published(project, name))
        for version in list_versions(project, name):
            is_same = version.fingerprint == state.fingerprint
            if is_same and notes.is_withdrawn(NIGHTLY, version.name):
                self.notes.append(
                    f"what was built is {version.name}, which was rolled back: nightly stays where "
                    f"it is (doit publish name={name} takes it all the same)"
                )
                return True
        return False

    def _prove(self) -> None:
        folder = self.recipe.project.guests
        asked = Asked(
            thorough=self.terms.prove_long, password=find_password_file(self.spec, folder)
        )
        prove(self.recipe, self.spec, asked)

    def _deliver(self) -> None:
        project, name, folder = self.recipe.project, self.spec.name, self._artifact
        with reading_artifact(project, folder, name):
            with self._begun("describe"):
                source = read_source(folder, name=name)
                require_backing(source)
                verdict = read_verdict(folder)
                if not verdict.is_proven and not self.terms.unproven:
                    raise VerificationError(f"{name} is not proven: {verdict.reason}")
                statements = describe(self.recipe, self.spec, source, passphrase=self.passphrase)
            with self._begun("publish"):
                proof = verdict.reason or "proven"
                publish(project, source, proof=proof, statements=statements)
        if not verdict.is_proven:
            self.notes.append(f"published without a proof (unproven = true): {verdict.reason}")

    def _keep_house(self) -> None:
        """The night counts for the channels; what nobody needs any more goes."""
        project, name, terms = self.recipe.project, self.spec.name, self.terms
        moved = note_night(project, name, self.night, stable_after=terms.stable_after)
        if moved is not None:
            self.notes.append(f"stable is now {moved.name}")
        before = [
            version for version in list_versions(project, name) if version.name == self.before
        ]
        gone = prune(
            project,
            name,
            keep=terms.keep,
            keep_bytes=terms.keep_bytes,
            stable_after=terms.stable_after,
            needed=list_used_versions(Layout.here()).union(each.fingerprint for each in before),
        )
        self.removed += [version.name for version in gone]

    def _conclude(self, verdict: Verdict, fault: Fault | None, leads: dict[str, str]) -> GuestNight:
        root, built = published(self.recipe.project, self.spec.name), self._artifact
        version = leads.get(NIGHTLY, "")
        return GuestNight(
            guest=self.spec.name,
            verdict=verdict,
            version=version,
            before=self.before,
            folder=root / version if version else None,
            folder_before=root / self.before if self.before else None,
            built=built if built.is_dir() else None,
            channels=leads,
            seconds=self.seconds,
            fault=fault,
            notes=tuple(self.notes),
            removed=tuple(self.removed),
        )

    def _describe(self, error: PipelineError) -> Fault:
        project, name = self.recipe.project, self.spec.name
        log = Path(error.log) if error.log else project.log(name, "night")
        hint = f"doit check name={name}" if self.step == "check" else error.hint
        return Fault(
            stage=error.stage or self.step,
            brief=error.brief.removeprefix(f"{name}: "),
            hint=hint,
            details=error.details,
            log=str(log.relative_to(project.output)) if log.is_relative_to(project.output) else "",
        )


def is_broken(error: PipelineError) -> bool:
    """Whether the machine or the mirror is at fault, not the guest."""
    if isinstance(error, EnvironmentFault | InUseError | MirrorTrouble | NotFound):
        return True
    return error.stage == "mirror" and not isinstance(error, UsageError)
