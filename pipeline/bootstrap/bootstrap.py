"""The parallel bootstrap as the base stage sees it: a snapshot's lists in, a tar out."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pipeline.bootstrap.delivery import CONNECTIONS, Delivery
from pipeline.bootstrap.epoch import find_epoch
from pipeline.bootstrap.filters import PathFilter
from pipeline.bootstrap.order import Deb, Order, arrivals
from pipeline.bootstrap.resolution import TREE_MIB, Resolution, resolve
from pipeline.console.progress import progress_bar
from pipeline.errors import PipelineError, UsageError
from pipeline.mirror.apt_sources import installed_version
from pipeline.mirror.snapshot import Snapshot
from pipeline.namespace import has_memory_for_tmpfs, tmpfs
from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.suites import SUITES
from pipeline.walls.beneath import take
from pipeline.walls.cage import make_room
from pipeline.walls.errand import send

REVISION = 2  # raise when the same inputs would give a different tree
_OTHER_WAY = "bootstrap=mmdebstrap makes the same tree, one package after the other"


def version() -> str:
    """What changes the tree besides its packages: this recipe, and the apt that resolves."""
    return f"{REVISION}, apt {installed_version('apt')}"


def make_base(
    spec: Spec,
    snapshot: Snapshot,
    *,
    scratch: Path,
    tar: Path,
    cache: Path,
    run: Callable[..., str],
    unwanted: PathFilter | None = None,
    resolution: Resolution | None = None,
) -> int:
    """Make the base tree of a spec as `tar`; returns its epoch. `scratch` is for the meantime.

    `unwanted` says what is not unpacked; `resolution` is what `resolve_base` gave, if it was asked
    before; `cache` keeps packages by digest; `run` starts commands
    with the stage's log. Packages are fetched here and unpacked in a cage without a network.
    Raises UsageError for a suite that is not supported, PipelineError for what goes wrong.
    """
    _refuse_other_suites(spec)
    folder, room = scratch / "bootstrap", make_room(scratch / "room")
    found = resolution or resolve_base(spec, snapshot, folder=folder, run=run)
    folder.mkdir(exist_ok=True)
    debs = [deb for group in arrivals(found.waves) for deb in group]

    with Delivery(debs, partial(_fetch, snapshot, cache)) as delivery:
        order = Order(
            work=str(make_room(room / "work")),
            tar=str(room / tar.name),
            delivery=delivery.descriptor,
            arch=spec.arch,
            waves=found.waves,
            automatic=found.automatic,
            sources=tuple(source.one_line() for source in snapshot.sources),
            links=spec.suite_facts.merged_folders(spec.arch),
            unwanted=unwanted.rules if unwanted else (),
            unwanted_text=unwanted.config(spec.locale) if unwanted else "",
        )
        _carry_out(order, folder / "order.json", room, delivery, run)
    take(room, tar.name, tar, mode=0o644)
    remove_tree(room)
    remove_tree(folder)
    return find_epoch(cache / deb.sha256 for deb in found.debs)


def is_resolved_here(spec: Spec) -> bool:
    """Whether the packages of its base are known beforehand: docs/explanation/bootstrap.md."""
    is_known = spec.suite_facts.default_bootstrap(spec.arch) == "parallel"
    return is_known and spec.bootstrap != "debootstrap"


def resolve_base(
    spec: Spec, snapshot: Snapshot, *, folder: Path, run: Callable[..., str]
) -> Resolution:
    """The packages of its base; `folder` is for apt's files."""
    wanted = list(spec.suite_facts.base_packages(spec.init, spec.arch))
    wanted += ["usr-is-merged"] if spec.suite_facts.merged_folders(spec.arch) else []
    return resolve(wanted, snapshot, suite=spec.suite, arch=spec.arch, folder=folder, run=run)


def fetch_all(debs: Iterable[Deb], snapshot: Snapshot, cache: Path) -> list[Path]:
    """The files of these packages, several at once; raises PipelineError."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(partial(_fetch, snapshot, cache), debs))


def _fetch(snapshot: Snapshot, cache: Path, deb: Deb) -> Path:
    return snapshot.route.fetch(deb.url, cache / deb.sha256, size=deb.size, sha256=deb.sha256)


def _refuse_other_suites(spec: Spec) -> None:
    if spec.suite_facts.default_bootstrap(spec.arch) != "parallel":
        known = [name for name, facts in SUITES.items() if facts.has_parallel_bootstrap]
        raise UsageError(
            f"bootstrap=parallel is not known to make the right tree of {spec.suite} {spec.arch}",
            hint=f"use bootstrap=mmdebstrap; known are, on amd64, {', '.join(known)}",
        )


def _carry_out(
    order: Order, file: Path, room: Path, delivery: Delivery, run: Callable[..., str]
) -> None:
    mounts = [tmpfs(Path(order.work))] if has_memory_for_tmpfs(TREE_MIB) else []
    with progress_bar("bootstrapping", total=2 * sum(map(len, order.waves)), unit="steps") as bar:

        def count(line: str) -> None:
            if line.startswith(("Unpacking ", "Setting up ")):
                bar.advance()

        try:
            send(
                "pipeline.bootstrap.worker",
                asdict(order),
                file=file,
                room=room,
                run=run,
                mounts=mounts,
                keep_open=[delivery.descriptor],
                on_line=count,
            )
        except PipelineError as error:
            if delivery.error is not None:
                raise delivery.error from error
            error.hint = error.hint or _OTHER_WAY
            raise
