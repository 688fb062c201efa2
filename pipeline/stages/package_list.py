"""dpkg's list of a tree, kept beside its tar, and whether it holds what apt was to bring."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.artifact.record import render_manifest
from pipeline.bootstrap.order import Deb
from pipeline.errors import PipelineError
from pipeline.stage import Job
from pipeline.walls.cage import caged_reader

STATUS = "dpkg-status"


def keep_status(job: Job, tar: Path) -> str:
    """Write it beside the tar; its text."""
    read = ["tar", "--occurrence=1", "-xOf", tar, "./var/lib/dpkg/status"]
    status = job.run(caged_reader(read, readable=[tar]))
    (job.scratch / STATUS).write_text(status)
    return status


def require_packages(
    status: str, debs: Iterable[Deb], *, before: str = "", removed: Iterable[str] = ()
) -> None:
    """PipelineError unless exactly these packages, and those of the tree before, are installed.

    What was resolved beforehand stands in the artifact's fingerprint.
    """
    expected = {deb.name: f"{deb.version} {deb.architecture}" for deb in debs}
    known = _read_manifest(before) if before else {}
    expected = {name: text for name, text in known.items() if name not in removed} | expected
    actual = _read_manifest(status)
    wrong = sorted(
        f"{name}: {actual.get(name, 'not installed')}, resolved was {expected.get(name, 'nothing')}"
        for name in expected.keys() | actual.keys()
        if expected.get(name) != actual.get(name)
    )
    if wrong:
        raise PipelineError(
            f"{len(wrong)} packages are not those that apt resolved beforehand: {wrong[0]}",
            details="\n".join(wrong[:20]),
            hint="this is a bug, report it with the spec; bootstrap=debootstrap does without",
        )


def _read_manifest(status: str) -> dict[str, str]:
    lines = (line.partition(" ") for line in render_manifest(status).splitlines())
    return {name: text for name, _, text in lines}
