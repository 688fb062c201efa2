"""What a stage is, how one stands, and one run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.cutoff import Offer, Taken
from pipeline.errors import Finding, PipelineError
from pipeline.mirror.snapshot import Snapshot
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.store.store import BuildInfo

Inputs = Mapping[str, Any]


def _no_inputs(_spec: Spec, _project: Project) -> Inputs:
    return {}


def _no_outputs(_spec: Spec, _project: Project) -> Sequence[str]:
    return ()


def _never_stale(_artifact: Path, _spec: Spec) -> str:
    return ""


def _nothing_beside(stage: Stage, _spec: Spec) -> Path:
    raise AssertionError(f"nobody builds {stage.name} here")


def _no_other(_spec: Spec) -> Stage | None:
    return None


@dataclass(frozen=True)
class Stage:
    """One step from spec to artifact.

    `keys` are the spec keys that change its bytes (`seldom` too, where they are set: that there is
    such a key builds nothing anew), `reads` those that it reads although they do
    not, each with the reason; it sees them and the keys of the stages before it, no others.
    `checks` are shown the whole spec before a build: they refuse it, and nothing comes of them.
    `foresees` tell before any stage runs what would fail, of the archive's state where it is known.
    `inputs` adds what is not in the spec (files, tool versions). `outputs` are the names or
    patterns of files without which its artifact is neither published nor current. `identity` reads
    from an artifact what later stages depend on, where that is more than the fingerprint. `takes`
    says of some stages before it what of them changes its bytes, where that is not all.
    `is_stale` gives a reason to build again although no input changed; where that is age alone
    (`ages`), locked=yes and offline=yes do without.
    `folder` is set for the guest half, whose artifacts live outside the store; `publish` puts such
    a finished folder in its place where a rename is not all. Files matching `mutable` may change
    after the build: a guest writes to its disk. `room_mib` is what its artifact and what is fetched
    for it take in output/, as measured for bookworm. `other` is what stands in its place for a
    guest that is made in another way: of a tree that is given.
    """

    name: str
    summary: str
    build: Callable[[Job], None]
    revision: int
    after: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    seldom: tuple[str, ...] = ()
    reads: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Callable[[Spec, Project], None], ...] = ()
    foresees: tuple[Callable[[Spec, Project, Snapshot | None], Iterable[Finding]], ...] = ()
    inputs: Callable[[Spec, Project], Inputs] = _no_inputs
    outputs: Callable[[Spec, Project], Sequence[str]] = _no_outputs
    identity: Callable[[Path], str] | None = None
    takes: Mapping[str, Callable[[Offer], Taken]] = field(default_factory=dict)
    is_stale: Callable[[Path, Spec], str] = _never_stale
    folder: Callable[[Project, str], Path] | None = None
    publish: Callable[[Job, Path], None] | None = None
    mutable: tuple[str, ...] = ()
    ages: bool = False
    other: Callable[[Spec], Stage | None] = _no_other
    room_mib: int = 0
    tools: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_shared(self) -> bool:
        """True for the golden half: one artifact serves every guest with the same inputs."""
        return self.folder is None


@dataclass(frozen=True)
class State:
    """A stage of a guest as it stands: its inputs today and the artifact, if one is current.

    `is_open`: it is not known whether it is current before what it takes of another stage is.
    `trouble` is why that could not be found out.
    """

    inputs: Inputs
    upstream: dict[str, str]
    fingerprint: str
    folder: Path
    buildinfo: BuildInfo | None
    reason: str
    taken: Mapping[str, Taken] = field(default_factory=dict)
    is_open: bool = False
    trouble: PipelineError | None = None

    @property
    def is_current(self) -> bool:
        return not self.reason

    @property
    def identity(self) -> str:
        """What later stages depend on."""
        return (self.buildinfo and self.buildinfo.identity) or self.fingerprint


@dataclass(frozen=True)
class Job:
    """One run of a stage: what it may read and the scratch folder it may write to.

    `spec` raises UndeclaredKey for a key that the stage has not declared; `record` has every key
    with its value, to be written down. `root_hash` is that of a password that was asked for.
    `beside` builds what is of no guest, where some guests alone want it; returns its folder.
    """

    spec: Spec
    record: Mapping[str, Any]
    project: Project
    scratch: Path
    log: Path
    artifacts: Mapping[str, Path]
    may_replace: bool = False
    root_hash: str = field(default="", repr=False)
    taken: Mapping[str, Taken] = field(default_factory=dict)
    beside: Callable[[Stage, Spec], Path] = _nothing_beside

    def upstream(self, stage: str) -> Path:
        """The artifact folder of an earlier stage."""
        return self.artifacts[stage]

    def run(self, argv: Sequence[object], **options: Any) -> str:
        """command.run with this stage's log."""
        return process.run(argv, log=self.log, **options)
