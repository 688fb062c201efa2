"""The parallel bootstrap as the base stage sees it: a snapshot's lists in, a tar out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.archive.snapshot import Snapshot
from pipeline.bootstrap.filters import PathFilter
from pipeline.bootstrap.order import FAILURE, NOTE, Order
from pipeline.bootstrap.resolution import resolve
from pipeline.errors import (
    CommandFailed,
    EnvironmentFault,
    PipelineError,
    UsageError,
    VerificationError,
)
from pipeline.host.namespace import has_memory_for_tmpfs, isolated, tmpfs
from pipeline.host.packages import installed_version
from pipeline.host.scratch import remove_tree
from pipeline.progress import print_line, progress_bar
from pipeline.spec import Spec
from pipeline.suites import SUITES

REVISION = 1  # raise when the same inputs would give a different tree
TREE_MIB = 1500
_ROOT = Path(__file__).resolve().parent.parent.parent
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # debootstrap's for amd64
_FAILURES: tuple[type[PipelineError], ...] = (PipelineError, EnvironmentFault, VerificationError)
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
) -> None:
    """Make the base tree of a spec as `tar`, with `scratch` for what is needed meanwhile.

    `unwanted` says what is not unpacked; `cache` keeps packages by digest; `run` starts commands
    with the stage's log. Raises UsageError for a suite that is not supported, PipelineError for
    what goes wrong.
    """
    if spec.suite_facts.default_bootstrap(spec.arch) != "parallel":
        known = [name for name, facts in SUITES.items() if facts.has_parallel_bootstrap]
        raise UsageError(
            f"bootstrap=parallel is not known to make the right tree of {spec.suite} {spec.arch}",
            hint=f"use bootstrap=mmdebstrap; known are, on amd64, {', '.join(known)}",
        )
    merges = spec.suite_facts.needs_merged_usr
    wanted = list(spec.suite_facts.base_packages(spec.init, spec.arch))
    wanted += ["usr-is-merged"] if merges else []
    folder, work = scratch / "bootstrap", scratch / "work"
    found = resolve(wanted, snapshot, suite=spec.suite, arch=spec.arch, folder=folder, run=run)
    order = Order(
        work=str(work),
        tar=str(tar),
        cache=str(cache),
        arch=spec.arch,
        epoch=snapshot.epoch,
        waves=found.waves,
        automatic=found.automatic,
        sources=tuple(source.one_line() for source in snapshot.sources),
        links=_LINKS if merges else (),
        route=snapshot.route.to_table(),
        unwanted=unwanted.rules if unwanted else (),
        unwanted_text=unwanted.config(spec.locale) if unwanted else "",
    )
    work.mkdir()
    _carry_out(order, folder / "order.json", run)
    remove_tree(work)
    remove_tree(folder)


def _carry_out(order: Order, path: Path, run: Callable[..., str]) -> None:
    order.write(path)
    mounts = [tmpfs(Path(order.work))] if has_memory_for_tmpfs(TREE_MIB) else []
    argv = [sys.executable, "-m", "pipeline.bootstrap.inside", path]
    with progress_bar("bootstrapping", total=2 * sum(map(len, order.waves)), unit="steps") as bar:

        def count(line: str) -> None:
            if line.startswith(("Unpacking ", "Setting up ")):
                bar.advance()
            elif line.startswith(NOTE):
                print_line(line.removeprefix(NOTE).rstrip("\n"))

        try:
            run(isolated(argv, mounts=mounts), cwd=_ROOT, on_line=count)
        except CommandFailed as error:
            raise _reported(error) from error


def _reported(error: CommandFailed) -> PipelineError:
    """The failure that the process inside printed as its last line, if it got so far."""
    last = error.details.splitlines()[-1:] or [""]
    if not last[0].startswith(FAILURE):
        error.hint = error.hint or _OTHER_WAY
        return error
    table = json.loads(last[0].removeprefix(FAILURE))
    known = {kind.exit_code: kind for kind in _FAILURES}
    kind = known.get(table["exit_code"], PipelineError)
    return kind(table["brief"], details=table["details"], hint=table["hint"] or _OTHER_WAY)
