"""The host's own programs read the new files in the place of the old ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline import process
from pipeline.dom0.setup.host_view import HostView
from pipeline.errors import Finding, PipelineError
from pipeline.namespace import Mount, bind, isolated


def read_by(argv: Sequence[str], host: HostView, tree: Path) -> str:
    """What a program of the host says where `tree`/etc stands at /etc, for it alone.

    Raises CommandFailed when it refuses, EnvironmentFault without it.
    """
    root = host.root
    mounts, words = [bind(tree / "etc", root / "etc")], [*argv]
    if root != Path("/"):
        mounts += [Mount(root / "proc", "proc", "proc")]
        mounts += [bind(Path("/", name), root / name) for name in ("dev", "sys")]
        words = ["chroot", str(root), *words]
    return process.run(isolated(words, mounts=mounts))


def refusals(argv: Sequence[str], host: HostView, tree: Path, *, path: str) -> Iterator[Finding]:
    """An error where that program does not take the new file at `path`."""
    try:
        read_by(argv, host, tree)
    except PipelineError as error:
        yield refused(argv[0], path, error)


def refused(program: str, path: str, error: PipelineError) -> Finding:
    """What a program said against a file."""
    said = [line for line in error.details.splitlines() if line.strip()]
    hint = error.hint or f"what {program} says is of the file as it would be"
    said = [line for line in said if "dmesg(1) may have" not in line]  # mount(8)'s last word
    return Finding("error", path, f"{program}: {said[-1] if said else error.brief}", hint)
