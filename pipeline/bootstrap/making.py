"""The parallel bootstrap as the base stage sees it: a snapshot's lists in, a tar out."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.archive.snapshot import Snapshot
from pipeline.bootstrap.order import FAILURE, Order
from pipeline.bootstrap.resolution import resolve
from pipeline.errors import CommandFailed, PipelineError
from pipeline.host.namespace import Mount, isolated
from pipeline.progress import progress_bar
from pipeline.suites import Suite

SUPPORTED = ("bookworm",)
_ROOT = Path(__file__).resolve().parent.parent.parent
_MERGED = {
    "amd64": ("bin", "sbin", "lib", "lib32", "lib64", "libx32"),
    "i386": ("bin", "sbin", "lib", "lib64", "libx32"),
}


def is_supported(suite: str) -> bool:
    """Whether this bootstrap is known to make the same tree of a suite as mmdebstrap."""
    return suite in SUPPORTED


def make_base(
    packages: Sequence[str],
    snapshot: Snapshot,
    *,
    suite: Suite,
    arch: str,
    scratch: Path,
    tar: Path,
    lists: Path,
    cache: Path,
    mounts: Sequence[Mount],
    run: Callable[..., str],
) -> None:
    """Make the base tree of a suite with these packages as `tar`.

    `lists` is the snapshot as apt's lists folder; `mounts` cover `scratch`/work; `run` starts
    commands with the stage's log. Raises PipelineError, UsageError for a suite without support.
    """
    extra = ("usr-is-merged",) if suite.needs_merged_usr else ()
    found = resolve(
        [*packages, *extra],
        snapshot.sources,
        suite=suite.name,
        arch=arch,
        lists=lists,
        keyring=snapshot.keyring,
        folder=scratch / "apt",
        run=run,
    )
    order = Order(
        work=str(scratch / "work"),
        tar=str(tar),
        cache=str(cache),
        arch=arch,
        epoch=snapshot.epoch,
        debs=found.debs,
        automatic=found.additional,
        sources=tuple(source.one_line() for source in snapshot.sources),
        links=_MERGED[arch] if suite.needs_merged_usr else (),
    )
    order.write(scratch / "order.json")
    argv = [sys.executable, "-m", "pipeline.bootstrap.inside", scratch / "order.json"]
    with progress_bar("bootstrapping", total=2 * len(order.debs), unit="steps") as bar:

        def count(line: str) -> None:
            if re.match(r"Unpacking |Setting up ", line):
                bar.advance()

        try:
            run(isolated(argv, mounts=mounts), cwd=_ROOT, on_line=count)
        except CommandFailed as error:
            raise _reported(error) from error


def _reported(error: CommandFailed) -> PipelineError:
    """The failure that the process inside printed as its last line, if it got so far."""
    last = error.details.splitlines()[-1:] or [""]
    if not last[0].startswith(FAILURE):
        return error
    return PipelineError(**json.loads(last[0].removeprefix(FAILURE)))
