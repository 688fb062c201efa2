"""Asking mirrors how they are: reachable, signed by whom, how old, how fast; and which is best."""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.mirror.credentials import Way
from pipeline.mirror.fetch import NotFound, fetch_bytes, measure
from pipeline.mirror.mirrors import Archive
from pipeline.mirror.release import Release, read_release
from pipeline.suites import Suite

SAMPLE_BYTES = 4 << 20
AT_ONCE = 4
_SAME_AGE_S = 6 * 3600  # mirrors are updated four times a day


@dataclass(frozen=True)
class Probe:
    """One mirror and suite: seconds, bytes a second, dates; `trouble` is why it is not usable."""

    name: str
    suite: str
    url: str
    trouble: str = ""
    signed_by: tuple[str, ...] = ()
    date: datetime | None = None
    valid_until: datetime | None = None
    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    lag_s: float = 0.0
    is_best: bool = False

    def as_json(self) -> dict[str, Any]:
        """For json=yes."""
        table = asdict(self)
        for key in ("date", "valid_until"):
            table[key] = table[key] and table[key].isoformat()
        return table


@dataclass(frozen=True)
class Question:
    """What to probe: a mirror under its name, a suite, and the keyring that judges it."""

    name: str
    archive: Archive
    suite: Suite
    keyring: Path


def probe_all(questions: Sequence[Question]) -> list[Probe]:
    """An answer to each question, those of one suite compared and the best one marked."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(_probe, questions))
    for suite in dict.fromkeys(one.suite for one in found):
        _compare(found, suite)
    return found


def _probe(question: Question) -> Probe:
    archive, suite = question.archive, question.suite
    empty = Probe(question.name, suite.name, archive.root)
    begun = time.monotonic()
    try:
        release = _read(archive, suite, question.keyring)
        latency_s = time.monotonic() - begun
        speed = _measure(archive, suite, release)
    except PipelineError as error:
        short = error.brief.removeprefix(f"{archive.root}/dists/{suite.name}/").partition(": ")
        return replace(empty, trouble=short[2] or error.brief)
    return replace(
        empty,
        signed_by=tuple(key[-16:] for key in release.signed_by),
        date=release.date,
        valid_until=release.valid_until,
        latency_s=round(latency_s, 3),
        bytes_per_s=round(speed),
    )


def _read(archive: Archive, suite: Suite, keyring: Path) -> Release:
    if not keyring.is_file():
        raise PipelineError(f"keyring: {keyring} is not installed")
    folder = f"{archive.root}/dists/{suite.name}"
    names = ("InRelease",) if suite.has_inrelease else ("Release", "Release.gpg")
    with tempfile.TemporaryDirectory(prefix="probe-") as scratch:
        paths = [Path(scratch) / name for name in names]
        for path in paths:
            path.write_bytes(fetch_bytes(f"{folder}/{path.name}", way=archive.way))
        where = f"{folder}/{names[0]}"
        return read_release(
            paths[0], keyring, suite.name, where=where, terms=archive.terms, log=None
        )


def _measure(archive: Archive, suite: Suite, release: Release) -> float:
    """Bytes a second over the first 4 MiB of the largest index."""
    names = [name for name in release.files if name.startswith("main/binary-amd64/Packages.")]
    if not names:
        return 0.0
    return _speed(f"{archive.root}/dists/{suite.name}/{sorted(names)[-1]}", archive.way)


def _speed(url: str, way: Way) -> float:
    try:
        return measure(url, way=way, limit=SAMPLE_BYTES)
    except NotFound:
        return 0.0


def _compare(found: list[Probe], suite: str) -> None:
    """Each one's lag behind the newest, and the best: fresh before fast."""
    ours = [at for at, one in enumerate(found) if one.suite == suite and one.date]
    if not ours:
        return
    newest = max(date for at in ours if (date := found[at].date))
    for at in ours:
        date = found[at].date
        lag_s = (newest - date).total_seconds() if date else 0.0
        found[at] = replace(found[at], lag_s=lag_s)
    best = min(ours, key=lambda at: (found[at].lag_s > _SAME_AGE_S, -found[at].bytes_per_s))
    found[best] = replace(found[best], is_best=True)
