"""A published version built again from its lock, cold, and compared bit for bit.

The golden half and the kernel always; the disks where the guest's identity is kept here. What is
compared with are the digests of the version's own stages.json, which its provenance signs.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.artifact.published import Version
from pipeline.artifact.record import describe_changes, read_record
from pipeline.artifact.sums import DISK_SUMS, digest_as, read_sum_file
from pipeline.build_options import BuildOptions
from pipeline.console.progress import print_line
from pipeline.errors import Finding, PipelineError, UsageError
from pipeline.files import CHUNK, digest_file, open_plain, read_bytes, read_table, write_durably
from pipeline.lockfile import MOST_LOCK_BYTES, PUBLISHED_LOCK, lock_path, prepare_locked
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.scratch import scratch_folder
from pipeline.spec import Spec
from pipeline.spec.model import SECRET_KEYS
from pipeline.stages import STAGES
from pipeline.store.store import BuildInfo, Store

GOLDEN = ("base", "kernel", "rootfs", "image")


def reproduce(project: Project, version: Version, guest: str) -> list[Finding]:
    """A finding for each file that was built again: the same bytes, or where they differ.

    Raises UsageError for a version without a lock, PipelineError for what cannot be built.
    """
    spec, recorded = _read_spec(version.folder), read_record(version.folder)
    with _cold(project, version.folder, guest) as cold:
        recipe = Recipe(cold, STAGES, options=BuildOptions(locked=True))
        prepare_locked(recipe, spec)
        findings: list[Finding] = []
        for name in GOLDEN:
            if name in recorded:
                _tell_changes(recipe, spec, name, recorded[name])
                state = recipe.build(name, spec)
                print_line(f"  {name:<8} built again")
                findings += _compare_stage(project, recorded[name], state.folder, name)
        return [*findings, *_compare_disks(project, recipe, spec, version, recorded)]


def _read_spec(folder: Path) -> Spec:
    """As it was resolved then. Of a secret there is a digest, and the golden half has no use."""
    table = read_table(folder / "spec.json", "a spec")
    given = {key: value for key, value in table.items() if value not in ("", None)}
    try:
        return Spec.model_validate(
            {key: value for key, value in given.items() if key not in SECRET_KEYS}
        )
    except ValueError as error:
        raise UsageError(
            f"{folder}/spec.json is not understood: {str(error).splitlines()[0]}",
            hint="reproduce it with the version of this program that built it",
        ) from error


@contextmanager
def _cold(project: Project, folder: Path, guest: str) -> Iterator[Project]:
    """An output without a store, with the packages and the mirror's state that locks keep."""
    try:
        lock = read_bytes(folder / PUBLISHED_LOCK, limit=MOST_LOCK_BYTES)
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder.name} has no {PUBLISHED_LOCK}: its packages were gone when it was made",
            hint=f"doit publish name={guest}, while its packages are here",
        ) from error
    project.scratch.mkdir(parents=True, exist_ok=True)
    with scratch_folder(project.scratch, f"reproduce-{guest}") as scratch:
        cold = Project(project.root, scratch / "output", scratch / "guests", project.site)
        cold.output.mkdir()
        cold.guests.mkdir()
        for kept, there in ((cold.cache.root, project.cache.root), (cold.locked, project.locked)):
            there.mkdir(parents=True, exist_ok=True)
            kept.symlink_to(there)
        write_durably(lock_path(cold, guest), lock)
        yield cold


def _tell_changes(recipe: Recipe, spec: Spec, name: str, made: BuildInfo) -> None:
    """What is not as it was then: the first thing to look at where bytes differ."""
    stage, state = recipe.stages[name], recipe.state(name, spec)
    for change in describe_changes(made, stage.revision, state.inputs, made.upstream):
        print_line(f"  {name:<8} not as it was then: {change}")


def _compare_stage(
    project: Project, made: BuildInfo, folder: Path, stage: str
) -> Iterator[Finding]:
    original = Store.of(project).location(stage, made.fingerprint)
    for file, facts in sorted(made.files.items()):
        again = folder / file
        seen = digest_file(again) if again.is_file() else ""
        same = seen == facts["sha256"]
        yield Finding(
            "ok" if same else "error",
            f"{stage}/{file}",
            "the same bytes" if same else _describe_difference(original / file, again, facts),
            expected="" if same else str(facts["sha256"]),
            seen="" if same else seen,
        )


def _describe_difference(original: Path, again: Path, facts: Mapping[str, object]) -> str:
    """Where two files part, if the one that was published is still in the store."""
    if not again.is_file():
        return "it was not made again"
    try:
        if digest_file(original) != facts["sha256"]:
            raise FileNotFoundError(original)
    except OSError:
        return "other bytes; the store no longer has those that were published"
    where = f"other bytes from byte {_find_first(original, again)} on"
    if again.suffix == ".tar":
        where += f": {_find_member(original, again)}"
    return where


def _find_first(original: Path, again: Path) -> int:
    with open(open_plain(original), "rb") as left, open(open_plain(again), "rb") as right:
        at = 0
        while True:
            first, second = left.read(CHUNK), right.read(CHUNK)
            if first != second:
                pairs = enumerate(zip(first, second, strict=False))
                ends = min(len(first), len(second))
                return at + next((n for n, (a, b) in pairs if a != b), ends)
            if not first:
                return at
            at += len(first)


def _find_member(original: Path, again: Path) -> str:
    """The first entry of two tar archives that differs."""
    try:
        with tarfile.open(original, "r:") as left, tarfile.open(again, "r:") as right:
            while True:
                first, second = left.next(), right.next()
                if first is None and second is None:
                    return "no entry of it"
                if first is None or second is None or first.name != second.name:
                    return " or ".join(member.name for member in (first, second) if member)
                if _describe_member(left, first) != _describe_member(right, second):
                    return first.name
    except (OSError, tarfile.TarError) as error:
        return f"it cannot be read ({error})"


def _describe_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[object, ...]:
    stream = archive.extractfile(member) if member.isreg() else None
    content = hashlib.sha256()
    while stream and (piece := stream.read(CHUNK)):
        content.update(piece)
    facts = (member.mode, member.uid, member.gid, member.mtime, member.type, member.linkname)
    return (*facts, member.size, content.digest())


def _compare_disks(
    project: Project,
    recipe: Recipe,
    spec: Spec,
    version: Version,
    recorded: Mapping[str, BuildInfo],
) -> Iterator[Finding]:
    """The disks with the guest's identity in them, where it can be put there again."""
    why = _find_hindrance(project, recipe, spec, recorded)
    if why:
        yield Finding("skipped", "volume", why)
        return
    for name in spec.identities:
        shutil.copytree(project.identity(name), recipe.project.identity(name))
    folder = recipe.build("volume", spec).folder
    print_line("  volume   built again")
    for name, digest in read_sum_file(version.folder / DISK_SUMS).items():
        again = folder / name
        same = again.is_file() and digest_as(digest, again) == digest
        text = "the same bytes" if same else "other bytes"
        yield Finding("ok" if same else "error", f"volume/{name}", text)


def _find_hindrance(
    project: Project, recipe: Recipe, spec: Spec, recorded: Mapping[str, BuildInfo]
) -> str:
    if spec.lvm or spec.disk_format != "raw" or spec.clone == "cow":
        return "only disks that are plain files are made again"
    if not (project.identity(spec.name) / "machine-id").is_file():
        return "the guest's identity is not kept here"
    if not all(project.identity(name).is_dir() for name in spec.identities):
        return "the secret that it shares with another guest is not kept here"
    try:
        stage = recipe.stages["volume"]
        inputs = recipe.inputs_of(stage, spec)
    except PipelineError as error:
        return f"its keys and passwords are not here: {error.brief}"
    made = recorded.get("volume")
    if made is None or {**made.inputs} != {**inputs}:
        return "its keys, passwords or disks are others now"
    return ""
