"""`doit export`: a guest as other systems take it, its sums and its bill of materials beside it."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline import process
from pipeline.artifact.folder import Source, read_source, reading_artifact, require_backing
from pipeline.artifact.published import require_version
from pipeline.artifact.sums import SUMS, read_sum_file
from pipeline.caller import shorten_path
from pipeline.commands.delivery_options import STDOUT, Export, Form
from pipeline.commands.exported_disk import CONTAINERS, Bench, ExportedDisk, find_disks
from pipeline.commands.host import describe_fault
from pipeline.console.answer import ANSWER
from pipeline.console.progress import leave_stdout, print_line, progress_bar
from pipeline.diagnosis import describe_room, explain_os_error, is_disk_full
from pipeline.errors import DiskFull, PipelineError, UsageError
from pipeline.files import digest_file, read_bytes, sync_folder, write_durably
from pipeline.interruption import gate, passing
from pipeline.locks import locked, make_locked
from pipeline.project import Project
from pipeline.proof.readiness import read_built_spec
from pipeline.proof.seals import read_verdict
from pipeline.recipe import Recipe
from pipeline.scratch import remove_abandoned, remove_dead_parts, scratch_folder
from pipeline.supply.bom import CYCLONEDX, SPDX
from pipeline.supply.statements import describe_bills

_MOST_BILL = 64 << 20
_BILLS = {CYCLONEDX: ".cdx.json", SPDX: ".spdx.json"}
_ENDS = {"vhd": "vhd", "raw": "img"}  # others are called as they are


@dataclass(frozen=True)
class _Target:
    """A folder, and the name of the root disk's file in it."""

    folder: Path
    name: str

    @classmethod
    def of(cls, asked: Export) -> "_Target":
        """Raises UsageError for a folder that is not there."""
        path = Path(asked.to)
        if path.is_dir():
            return cls(path, f"{asked.name}.{_ENDS.get(asked.form, asked.form)}")
        if not path.parent.is_dir():
            raise UsageError(
                f"{path.parent}: no such folder", hint="make it first, or name another"
            )
        return cls(path.parent, path.name)

    def path(self, part: str = "") -> Path:
        """The file of a disk: web1.qcow2, web1-swap.qcow2."""
        name = Path(self.name)
        return self.folder / (f"{name.stem}-{part}{name.suffix}" if part else name)

    def beside(self, end: str) -> Path:
        """Another file of the same stem."""
        return self.folder / f"{Path(self.name).stem}{end}"


def export(recipe: Recipe, _specs: object, asked: Export) -> None:
    """Write it; what is there already, half written or in use is never lost or taken."""
    if asked.to == STDOUT:
        leave_stdout()
    try:
        _export(recipe, asked)
    except OSError as error:
        raise describe_fault(error) from error


def _export(recipe: Recipe, asked: Export) -> None:
    project, name = recipe.project, asked.name
    if asked.to != STDOUT:
        _refuse_existing([_Target.of(asked).path()], asked)
    folder = _source_folder(project, asked)
    with prepared(project, folder, name, asked.form) as (bench, disks):
        bench.refuse_bare(disks[0])
        if asked.to == STDOUT:
            _write_to_stdout(bench, disks)
            return
        _write_files(recipe, bench, disks, asked)


@contextmanager
def prepared(
    project: Project, folder: Path, name: str, form: Form
) -> Iterator[tuple[Bench, Sequence[ExportedDisk]]]:
    """The bench on which a guest's disks are written, and the disks, which nobody has open."""
    with ExitStack() as stack:
        stack.enter_context(reading_artifact(project, folder, name))
        source = read_source(folder, name=name)
        require_backing(source)
        disks = find_disks(source)
        log = project.log(name, "export")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        project.scratch.mkdir(parents=True, exist_ok=True)
        remove_abandoned(project.scratch)
        scratch = stack.enter_context(scratch_folder(project.scratch, f"export-{name}", mode=0o711))
        yield Bench(source, form, scratch, partial(process.run, log=log)), disks


def _write_files(
    recipe: Recipe, bench: Bench, disks: Sequence[ExportedDisk], asked: Export
) -> None:
    """Each under a name of its own until it is whole; bills and sums after them."""
    target = _Target.of(asked)
    chosen = {target.path(disk.part): disk for disk in disks}
    if asked.form in ("tar", *CONTAINERS):
        chosen = {target.path(): disks[0]}
    bills = _bills(recipe, bench.source)
    texts = {target.beside(_BILLS[kind]): text for kind, text in bills.items()}
    others = [path for path, text in texts.items() if not _has(path, text)]
    _refuse_existing([*chosen, *others], asked)
    with _room_told(target.folder):
        for path, disk in chosen.items():
            _write_file(bench, disks, disk, path)
        for path in others:
            write_durably(path, texts[path])
        _add_sums(target.folder, [*chosen, *texts])
        sync_folder(target.folder)
    _tell(bench.source, disks, [*chosen, *texts], asked)


def _write_file(
    bench: Bench, disks: Sequence[ExportedDisk], disk: ExportedDisk, path: Path
) -> None:
    with _aside(path) as aside, open(aside, "r+b") as stream, _bar(path.name, disk) as advance:
        if bench.form == "tar":
            bench.write_tree(disks, stream, is_pipe=False)
        else:
            bench.write_disk(disk, stream, path.name, advance, is_pipe=False)
        stream.flush()
        os.fsync(stream.fileno())
        with gate("export", path):
            os.replace(aside, path)


@contextmanager
def _room_told(folder: Path) -> Iterator[None]:
    """What is full is the folder that was named, whoever met that."""
    try:
        yield
    except (OSError, PipelineError) as error:
        known = explain_os_error(error) if isinstance(error, OSError) else error
        if known is None or not is_disk_full(known):
            raise
        raise DiskFull(
            f"no space left: {describe_room(folder)}", hint="make room there, or another to="
        ) from error


def _source_folder(project: Project, asked: Export) -> Path:
    if asked.source == "published":
        return require_version(project, asked.name).folder
    return asked.source or project.artifact(asked.name)


def _write_to_stdout(bench: Bench, disks: Sequence[ExportedDisk]) -> None:
    stream, name = sys.stdout.buffer, bench.source.name
    if stream.isatty():
        raise UsageError("standard output is a terminal", hint="to=FILE, or | another program")
    if bench.form == "tar":
        bench.write_tree(disks, stream, is_pipe=True)
    elif len(disks) > 1:
        raise UsageError(
            f"{name} has {len(disks)} disks, and standard output takes one",
            hint="to=FOLDER gets a file for each; format=tar puts their trees together",
        )
    else:
        with _bar("standard output", disks[0]) as advance:
            bench.write_disk(disks[0], stream, f"{name}.{bench.form}", advance, is_pipe=True)
    stream.flush()


def _refuse_existing(paths: Sequence[Path], asked: Export) -> None:
    there = [path for path in paths if os.path.lexists(path)]
    for path in there:
        if not asked.replace:
            raise UsageError(f"{path} is there already", hint="replace=yes, or another to=")
        if path.is_symlink() or not path.is_file():
            raise UsageError(f"{path} is no plain file", hint="move it away, or another to=")


def _has(path: Path, content: bytes) -> bool:
    """The same image has the same bill, in whichever format it was exported before."""
    return path.is_file() and path.read_bytes() == content


@contextmanager
def _bar(name: str, disk: ExportedDisk) -> Iterator[Callable[[int], None]]:
    with progress_bar(f"writing {name}", total=disk.size, unit="B") as bar:
        yield bar.advance


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A private file beside `path` that goes if it does not get its name, after a kill too."""
    remove_dead_parts(path.parent, path.name)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    with passing(aside):
        descriptor = make_locked(aside, 0o600)
        try:
            yield aside
        finally:
            os.close(descriptor)


def _bills(recipe: Recipe, source: Source) -> Mapping[str, bytes]:
    """Bills of materials: those that were published with it, or made now."""
    kept = {end: source.folder / end for end in (CYCLONEDX, SPDX)}
    if all(path.is_file() for path in kept.values()):
        return {end: read_bytes(path, limit=_MOST_BILL) for end, path in kept.items()}
    return describe_bills(recipe, read_built_spec(source.folder, source.name), source)


def _add_sums(folder: Path, paths: Sequence[Path]) -> None:
    """SHA256SUMS of what was written, beside the lines of what is there already."""
    lock = folder / f".{SUMS}.lock"
    made = {path.name: digest_file(path) for path in paths}
    with locked(lock):
        try:
            known = read_sum_file(folder / SUMS)
        except FileNotFoundError:
            known = {}
        lines = (f"{digest}  {name}\n" for name, digest in sorted({**known, **made}.items()))
        write_durably(folder / SUMS, "".join(lines).encode())
        lock.unlink()


def _tell(
    source: Source, disks: Sequence[ExportedDisk], paths: Sequence[Path], asked: Export
) -> None:
    verdict = read_verdict(source.folder)
    files = {str(path): path.stat().st_size for path in paths}
    ANSWER.add(asked.name, files=files, format=asked.form, proof=verdict.reason or "proven")
    if asked.json_form:
        return
    for path in paths:
        held = path.stat().st_blocks * 512 / 1e6
        print_line(f"{shorten_path(path)}: {held:.1f} MB")
    if not verdict.is_proven:
        print_line(f"  {asked.name} is not proven: {verdict.reason}")
    if not source.is_kernel_inside and asked.form != "tar":
        print_line(f"  its kernel is not in it: {source.folder / 'vmlinuz'}, initrd.img")
    others = len(disks) - 1 if asked.form in CONTAINERS else 0
    if others:
        print_line(f"  its further disks are not in it: {others}")
