"""Stages: when an artifact is current, and how it is built.

Planning (`Recipe.state`) writes no artifact, it only keeps what it had to ask (cutoff.py); building
(`Recipe.build`) writes below a scratch folder and publishes by rename. doit is not known here.
"""

import errno
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pipeline import process
from pipeline.artifact.record import describe_changes, read_record
from pipeline.build_options import BuildOptions
from pipeline.console.progress import print_line
from pipeline.cutoff import Memory, Offer, Taken
from pipeline.elsewhere import Elsewhere, SharedArtifacts, is_fresh
from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.files import fingerprint, write_durably
from pipeline.interruption import checkpoint
from pipeline.locks import locked
from pipeline.mirror.apt_sources import installed_version
from pipeline.project import Project
from pipeline.scratch import remove_abandoned, remove_or_warn, scratch_folder
from pipeline.spec import Spec, values_of
from pipeline.spec.view import SpecView
from pipeline.stage import Inputs, Job, Stage, State
from pipeline.store.store import (
    BUILDINFO,
    BuildInfo,
    Store,
    find_missing,
    list_files,
    publish_folder,
    read_buildinfo,
)

KNOWN_HOSTS = "known_hosts"
DISKS = ("disk.*", "disk-*", "swap.img")
# spec keys that say where packages come from, and words for people: with others, what is built is
# the same, and nothing is built anew for their sake alone
INDIFFERENT = frozenset(
    "description mirror bootstrap keyring elements_path element_hosts roles_path".split()
)


@dataclass(frozen=True)
class Early:
    """A stage that was built before its task: why, how long it took, how it failed."""

    reason: str
    seconds: float
    error: PipelineError | None = None


class Recipe:
    """The stages in order, over one project."""

    def __init__(
        self,
        project: Project,
        stages: Sequence[Stage],
        *,
        options: BuildOptions | None = None,
        root_hashes: Mapping[str, str] | None = None,
        shared: SharedArtifacts | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.project = project
        self.stages = {stage.name: stage for stage in stages}
        self.options = options or BuildOptions()
        self.root_hashes = root_hashes or {}
        self.shared = shared
        self.elsewhere = elsewhere
        self._store = Store.of(project)
        self._just_built: set[Path] = set()
        self._awaited: set[Path] = set()
        self._pulled: set[Path] = set()
        self._early: dict[Path, Early] = {}
        self._hold: ExitStack | None = None
        self._holding = threading.Lock()
        self._inputs: dict[tuple[str, str], Inputs] = {}
        self._views: dict[tuple[str, str], Spec] = {}
        self._taken: dict[str, Taken | PipelineError] = {}

    def hold(self) -> None:
        """From here to the end of this run another's gc removes nothing; waits for one that runs.

        Somebody who may only look holds nothing, and builds nothing either.
        """

        def say() -> None:
            print_line("waiting for doit gc, which runs in this output folder")

        with self._holding:
            if self._hold is not None:
                return
            hold = ExitStack()
            try:
                hold.enter_context(locked(self._store.runs_lock, is_shared=True, on_wait=say))
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
            self._hold = hold

    def stage(self, name: str, spec: Spec) -> Stage:
        """The stage of this name, as it is for this guest."""
        return self.stages[name].other(spec) or self.stages[name]

    def keys_of(self, stage: str) -> tuple[str, ...]:
        """The spec keys that a stage and all before it depend on."""
        own = self.stages[stage]
        mine = {*own.keys, *own.seldom}
        return tuple(sorted(mine.union(*(self.keys_of(name) for name in own.after))))

    def view(self, stage: Stage, spec: Spec) -> Spec:
        """The spec with the keys that the stage has declared, or that are in its upstream ids."""
        memo = (stage.name, spec.name)
        if memo not in self._views:
            keys = frozenset({*self.trusted_keys(stage), *stage.reads})
            self._views[memo] = cast(Spec, SpecView(spec, stage.name, keys))
        return self._views[memo]

    def trusted_keys(self, stage: Stage) -> set[str]:
        """Keys whose change is a change of the stage's fingerprint."""
        before = (self.stages[name] for name in stage.after)
        return {*stage.keys, *stage.seldom}.union(
            *(
                self.trusted_keys(upper)
                for upper in before
                if upper.identity is None and upper.name not in stage.takes
            )
        )

    def group_of(self, stage: str, spec: Spec) -> str:
        """Guests with the same value share this stage's artifact; part of the task's name."""
        known = values_of(spec)
        seldom = {key for each in self.stages.values() for key in each.seldom if not known[key]}
        values = {key: known[key] for key in self.keys_of(stage) if key not in seldom}
        if spec.adopted:
            values["adopted"] = spec.adopted
        return fingerprint(values)[:8]

    def inputs_of(self, stage: Stage, spec: Spec) -> Inputs:
        """Everything that changes the stage's bytes, as JSON values."""
        memo = (stage.name, spec.name)
        if memo not in self._inputs:
            values = values_of(spec)
            from_spec = {key: values[key] for key in stage.keys}
            from_spec |= {key: values[key] for key in stage.seldom if values[key]}
            self._inputs[memo] = {**from_spec, **stage.inputs(self.view(stage, spec), self.project)}
        return self._inputs[memo]

    def state(self, name: str, spec: Spec) -> State:
        """Whether the stage's artifact is current for this guest, and why not."""
        return self._state_among(name, spec, {})

    def _state_among(self, name: str, spec: Spec, known: dict[str, State]) -> State:
        """The same; a stage that several come after is looked at once."""
        if name not in known:
            stage = self.stage(name, spec)
            before = {upper: self._state_among(upper, spec, known) for upper in stage.after}
            known[name] = self._state_after(stage, spec, before)
        return known[name]

    def _state_after(self, stage: Stage, spec: Spec, before: Mapping[str, State]) -> State:
        inputs = self.inputs_of(stage, spec)
        waiting = [upper for upper, state in before.items() if not state.is_current]
        try:
            taken, trouble = self._take(stage, spec, inputs, before), None
        except PipelineError as error:
            taken, trouble = {}, error
        upstream = {upper: state.identity for upper, state in before.items()}
        upstream |= dict.fromkeys(stage.takes, "")
        upstream |= {upper: what.identity for upper, what in taken.items()}
        made_of = {"inputs": inputs, "upstream": upstream}
        key = fingerprint({"stage": stage.name, "revision": stage.revision, **made_of})
        folder, buildinfo = self._find(stage, spec, key)
        is_open = bool(waiting and buildinfo) and all(
            upper in stage.takes or before[upper].is_open for upper in waiting
        )
        if waiting:
            reason = self._explain_wait(stage, waiting, is_open=is_open)
        elif buildinfo is None and trouble:
            reason = trouble.brief
        elif buildinfo is None:
            reason = self._explain(stage, spec, inputs, upstream, taken)
        elif self._is_kept(stage, folder):
            reason = ""
        else:
            reason = stage.is_stale(folder, self.view(stage, spec))
        return State(inputs, upstream, key, folder, buildinfo, reason, taken, is_open, trouble)

    def _explain_wait(self, stage: Stage, waiting: Sequence[str], *, is_open: bool) -> str:
        names = ", ".join(waiting)
        if not is_open:
            return f"{names} will be built first"
        if any(upper in stage.takes for upper in waiting):
            return f"{names} will be built first; then it is known whether its packages changed"
        return f"{names} may be built first"

    def _take(
        self, stage: Stage, spec: Spec, inputs: Inputs, before: Mapping[str, State]
    ) -> dict[str, Taken]:
        """What it takes of earlier stages, as far as that is known.

        It is found out once all of them are current and whole. Raises PipelineError where it
        cannot be.
        """
        states = {upper: [state.fingerprint, state.identity] for upper, state in before.items()}
        asked = {"stage": stage.name, "revision": stage.revision, "inputs": inputs, "of": states}
        taken = {}
        for upper, say in stage.takes.items():
            # apt is who knows
            key = fingerprint({**asked, "what": upper, "apt": installed_version("apt")})
            known = self._taken.get(key) or Memory(self.project).recall(key)
            if known is None and all(state.is_current for state in before.values()):
                known = self._ask(stage, spec, key, say, before)
            if isinstance(known, PipelineError):
                self._taken[key] = known
                raise known
            if known is not None:
                self._taken[key] = taken[upper] = known
        return taken

    def _ask(
        self,
        stage: Stage,
        spec: Spec,
        key: str,
        say: Callable[[Offer], Taken],
        before: Mapping[str, State],
    ) -> Taken | PipelineError | None:
        """What is said, or why nothing is; None where an artifact is damaged, or another one now.

        Whoever would replace one of them waits: what is kept must be of what the key names.
        """
        folders = {upper: state.folder for upper, state in before.items()}
        view = self.view(stage, spec)
        try:
            with ExitStack() as stack:
                for upper, state in before.items():
                    stack.enter_context(self._store.reading(upper, state.fingerprint))
                    now = self._store.read(upper, state.fingerprint)
                    if now != state.buildinfo or self._store.find_damage(upper, state.fingerprint):
                        return None
                return Memory(self.project).ask(
                    key, lambda scratch: say(Offer(view, self.project, folders, scratch))
                )
        except OSError as error:  # somebody who may only look; a full disk
            reason = f"{error.filename}: {error.strerror}"
            return EnvironmentFault(
                f"which packages it takes is not known here ({reason})", hint="build it first"
            )
        except PipelineError as error:
            return error

    def _is_kept(self, stage: Stage, folder: Path) -> bool:
        """Whether age is no reason: it was built a moment ago, or it is the state to build from."""
        is_fixed = self.options.locked or self.options.offline
        return folder in self._just_built | self._pulled or (stage.ages and is_fixed)

    def _find(self, stage: Stage, spec: Spec, key: str) -> tuple[Path, BuildInfo | None]:
        is_shared = stage.folder is None
        if stage.folder is None:
            folder = self._store.location(stage.name, key)
        else:
            folder = stage.folder(self.project, spec.name)
        buildinfo = read_buildinfo(folder)
        if buildinfo is None or buildinfo.fingerprint != key:
            return folder, None
        if find_missing(folder, stage.outputs(self.view(stage, spec), self.project)):
            return folder, None
        if is_shared:
            return folder, buildinfo
        damaged = self._store.find_damage_in(folder, buildinfo, f"{stage.name}-of-{spec.name}")
        return folder, None if damaged else buildinfo

    def require_artifact(self, spec: Spec) -> Path:
        """The guest's artifact folder; PipelineError unless all its files are seen there now."""
        stage = self.stages["config"]
        state = self.state(stage.name, spec)
        if state.buildinfo is None:
            wanted = stage.outputs(self.view(stage, spec), self.project)
            missing = find_missing(state.folder, wanted)
            raise PipelineError(
                f"{spec.name}: {state.folder} is not what was built ({missing or 'changed'})",
                hint=f"build it again: doit build name={spec.name}",
            )
        return state.folder

    def last_built(self, stage: Stage, spec: Spec) -> BuildInfo | None:
        """What this guest's artifact was last made from, at this stage."""
        record = read_record(self.project.artifact(spec.name))
        if stage.folder is not None:
            own = read_buildinfo(stage.folder(self.project, spec.name))
            return own or record.get(stage.name)
        return record.get(stage.name)

    def _explain(
        self,
        stage: Stage,
        spec: Spec,
        inputs: Inputs,
        upstream: Mapping[str, str],
        taken: Mapping[str, Taken],
    ) -> str:
        last = self.last_built(stage, spec)
        if last is None:
            return "not built yet"
        parts = {upper: what.parts for upper, what in taken.items()}
        changes = describe_changes(last, stage.revision, inputs, upstream, parts)
        return "; ".join(changes) if changes else "its artifact is gone or damaged"

    def build_early(self, name: str, spec: Spec) -> State:
        """Build a stage before its task, which then tells of it, or raises what was raised here."""
        state, started = self.state(name, spec), time.monotonic()
        if state.is_current or state.folder in self._early:
            return state
        failure = None
        try:
            return self.build(name, spec)
        except PipelineError as error:
            failure = error
            raise
        finally:
            self._early[state.folder] = Early(state.reason, time.monotonic() - started, failure)

    def find_early(self, state: State) -> Early | None:
        """How it was built before its task, if it was."""
        return self._early.get(state.folder)

    def build(self, name: str, spec: Spec) -> State:
        """Build a stage unless another process just did; returns its state afterwards."""
        self.hold()
        has_waited = self.elsewhere is not None and self.elsewhere.wait(name, spec)
        stage, state = self.stage(name, spec), self.state(name, spec)
        self._awaited |= {state.folder} if has_waited else set()
        early = self.find_early(state)
        if early is not None and early.error is not None:
            raise early.error
        process.require_tools(stage.tools)
        if stage.takes:
            for upper in stage.after:
                self._mend(upper, spec, self.state(upper, spec))
            state = self.state(name, spec)
        with self._store.lock(name, state.fingerprint if stage.is_shared else spec.name):
            state = self.state(name, spec)
            if state.is_current:
                return state
            try:
                self._require_taken(stage, state)
                self._obtain(stage, spec, state)
            except PipelineError as error:
                error.stage, error.guest = error.stage or name, error.guest or spec.name
                error.log = error.log or str(self.project.log(spec.name, name))
                raise
        return self.state(name, spec)

    def _require_taken(self, stage: Stage, state: State) -> None:
        if state.trouble is not None:
            raise state.trouble
        if missing := sorted(stage.takes.keys() - state.taken.keys()):
            brief = f"what it takes of {missing[0]} is not known"
            raise PipelineError(brief, hint="build again: that changed")

    def origin(self, state: State) -> str:
        """`built` or `pulled` by this run; "" for another one, which it may have waited for."""
        pulled = "pulled" if state.folder in self._pulled else ""
        return "built" if state.folder in self._just_built else pulled

    def _obtain(self, stage: Stage, spec: Spec, state: State) -> None:
        """Out of the shared store, else by building it, for all who share that."""
        if self.shared is None or not stage.is_shared or _is_brought(stage, spec):
            self._build_locked(stage, spec, state)
        elif not self._pull(self.shared, stage, spec, state):
            with self.shared.lease(stage.name, state.fingerprint):
                if not self._pull(self.shared, stage, spec, state):
                    self._build_locked(stage, spec, state)
                    self.shared.push(state.folder)

    def _pull(self, shared: SharedArtifacts, stage: Stage, spec: Spec, state: State) -> bool:
        """Publish here what the shared store has of it; whether it had what can be used."""
        view, root = self.view(stage, spec), self.project.scratch
        remove_abandoned(root)
        with scratch_folder(root, f"{stage.name}-{spec.name}") as scratch:

            def is_wanted(pulled: BuildInfo) -> bool:
                return state.folder in self._awaited or is_fresh(stage, view, pulled, scratch)

            pulled = shared.pull(stage.name, state.fingerprint, scratch, is_wanted=is_wanted)
            if pulled is None or find_missing(scratch, stage.outputs(view, self.project)):
                return False
            self._store.publish(scratch, pulled)
        self._pulled.add(state.folder)
        return True

    def _build_locked(self, stage: Stage, spec: Spec, state: State) -> None:
        log, root = self.project.log(spec.name, stage.name), self.project.scratch
        process.open_log(log, is_new=True).close()
        remove_abandoned(root)
        view, record = self.view(stage, spec), spec.as_json()
        for check in stage.checks:
            check(spec, self.project)
        with ExitStack() as stack:
            artifacts = self._open_upstream(stage, spec, stack)
            mode = 0o755 if stage.is_shared and not _is_brought(stage, spec) else 0o700
            name = f"{stage.name}-{spec.name}"
            scratch = stack.enter_context(scratch_folder(root, name, mode=mode))
            started = time.monotonic()
            job = Job(
                *(view, record, self.project, scratch, log, artifacts, self.options.replace),
                "" if stage.is_shared else self.root_hashes.get(spec.name, ""),
                state.taken,
                self.build_beside,
            )
            stage.build(job)
            self._publish(stage, state, job, time.monotonic() - started)

    def build_beside(self, stage: Stage, own: Spec) -> Path:
        """The folder of what is of no guest, built by a spec of its own."""
        other = self.with_stage(stage)
        for upper in stage.after:
            if other.state(upper, own).buildinfo is None:  # of a suite that no guest here has
                other.build(upper, own)
        return other.build(stage.name, own).folder

    def with_stage(self, stage: Stage) -> "Recipe":
        """One more beside these, of no guest, for all who share a store and its workers."""
        stages, options, there = (*self.stages.values(), stage), self.options, self.elsewhere
        return Recipe(self.project, stages, options=options, shared=self.shared, elsewhere=there)

    def _open_upstream(self, stage: Stage, spec: Spec, stack: ExitStack) -> dict[str, Path]:
        """The folders of all earlier stages, verified, and kept from removal by `stack`."""
        folders: dict[str, Path] = {}
        known: dict[str, State] = {}
        for upper in stage.after:
            self._state_among(upper, spec, known)
        for upper in list(known):  # each stands behind those that it comes after
            state = self._state_among(upper, spec, known)
            folders[upper] = state.folder
            if self.stages[upper].is_shared:
                if self._mend(upper, spec, state):
                    known.clear()
                stack.enter_context(self._store.reading(upper, state.fingerprint))
        return folders

    def _mend(self, name: str, spec: Spec, state: State) -> bool:
        """Build a damaged artifact of the store again; whether it was one."""
        damaged = self._store.find_damage(name, state.fingerprint)
        if not damaged:
            return False
        print_line(f"  {name:<8} {damaged} is damaged in the store: building it again")
        with self._store.lock(name, state.fingerprint):
            grave = self.project.scratch / f"damaged-{uuid.uuid4().hex[:8]}"
            self._store.discard(name, state.fingerprint, grave)
        remove_or_warn(grave)
        self.build(name, spec)
        return True

    def _publish(self, stage: Stage, state: State, job: Job, seconds: float) -> None:
        scratch = job.scratch
        checkpoint("built", scratch)
        missing = find_missing(scratch, stage.outputs(job.spec, self.project))
        if missing:
            hint = "this is a bug of the stage: its log"
            raise PipelineError(f"its result has no file {missing}", hint=hint)
        buildinfo = BuildInfo(
            stage=stage.name,
            fingerprint=state.fingerprint,
            revision=stage.revision,
            inputs=dict(state.inputs),
            upstream=state.upstream,
            taken={upper: dict(what.parts) for upper, what in state.taken.items()},
            identity=stage.identity(scratch) if stage.identity else "",
            seconds=round(seconds, 3),
            built_at=int(time.time()),
            files=list_files(scratch, without=stage.mutable),
        )
        if stage.is_shared:
            self._store.publish(scratch, buildinfo)
        else:
            write_durably(scratch / BUILDINFO, buildinfo.to_json())
            if stage.publish:
                stage.publish(job, state.folder)
            else:
                publish_folder(scratch, state.folder)
            name = f"{stage.name}-of-{job.record['name']}"
            self._store.note_verified(name, buildinfo, state.folder)
        self._just_built.add(state.folder)


def _is_brought(stage: Stage, spec: Spec) -> bool:
    """What an adopted tree brought is for nobody else to see, as is what is a guest's own."""
    return bool(spec.adopted) and "rootfs" in (stage.name, *stage.after)
