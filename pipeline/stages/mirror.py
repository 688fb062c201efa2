"""Mirror: the archive's signed Release files and package indexes, verified and pinned."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.archive.credentials import without_credentials
from pipeline.archive.index import fetch_index, read_index
from pipeline.archive.keyring import choose_keyring, place_keyring
from pipeline.archive.release import Release, identity_of, read_release
from pipeline.archive.snapshot import KEYRING, SNAPSHOT, index_name, read_snapshot
from pipeline.archive.sources import Source, find_archive, sources_of
from pipeline.canonical import digest_file
from pipeline.errors import PipelineError, VerificationError
from pipeline.fetch import NotFound, fetch_bytes
from pipeline.progress import print_line
from pipeline.project import Project
from pipeline.recipe import Inputs, Job, Stage
from pipeline.spec import Spec

REVISION = 3
RACE_PAUSE_S = 2.0


@dataclass(frozen=True)
class _Verified:
    """A source whose Release was verified, and its indexes: (archive root, file in scratch)."""

    source: Source
    release: Release
    inrelease_sha256: str
    indexes: tuple[tuple[str, str], ...]


def inputs(spec: Spec, project: Project) -> Inputs:
    """The sources that the spec's mirror stands for on this machine, and who may sign them."""
    archive = find_archive(spec, project.mirrors)
    keyring = choose_keyring(spec, archive.keyring)
    return {
        "sources": [source.one_line() for source in sources_of(spec, archive)],
        "keyring bytes": digest_file(keyring) if keyring.is_file() else "borrowed",
    }


def build(job: Job) -> None:
    """Fetch and verify every Release file, then the indexes that they name."""
    archive = find_archive(job.spec, job.project.mirrors)
    cache = job.project.output / "cache"
    place_keyring(job.spec, archive.keyring, job.scratch / KEYRING, cache=cache, log=job.log)
    read = [_read_source(job, source) for source in sources_of(job.spec, archive)]
    verified = [one for one in read if one is not None]
    digests = {one.source.suite: one.inrelease_sha256 for one in verified}
    components = sorted(job.spec.components)
    table = {
        "sources": [_describe(one) for one in verified],
        "indexes": [index for one in verified for index in one.indexes],
        "epoch": max(int(one.release.date.timestamp()) for one in verified),
        "identity": identity_of({**digests, "": f"{job.spec.arch} {components}"}),
    }
    (job.scratch / SNAPSHOT).write_text(json.dumps(table, indent=1, sort_keys=True))


def _read_source(job: Job, source: Source) -> _Verified | None:
    """A source's verified state; None where a mirror has no such updates or security.

    A mirror without by-hash that is updated meanwhile shows a Release and an index of different
    hours: if its InRelease has changed a moment later, that one is tried.
    """
    content = _fetch_inrelease(job, source)
    if content is None:
        return None
    try:
        return _verify(job, source, content)
    except (VerificationError, NotFound):
        time.sleep(RACE_PAUSE_S)
        again = _fetch_inrelease(job, source)
        if again is None or again == content:
            raise
        return _verify(job, source, again)


def _fetch_inrelease(job: Job, source: Source) -> bytes | None:
    with open(job.log, "a") as log:
        log.write(f"fetching {without_credentials(source.inrelease_url)}\n")
    try:
        return fetch_bytes(source.inrelease_url)
    except NotFound:
        if source.role == "main":
            raise
        shown = without_credentials(source.uri)
        print_line(
            f"     {shown} has no {source.suite}: the guest is built without its {source.role}"
        )
        return None


def _verify(job: Job, source: Source, content: bytes) -> _Verified:
    path = job.scratch / f"InRelease-{source.role}"
    path.write_bytes(content)
    release = read_release(
        path,
        job.scratch / KEYRING,
        source.suite,
        where=without_credentials(source.inrelease_url),
        is_archived=job.spec.suite_facts.is_archived,
        log=job.log,
    )
    indexes = tuple(_place_indexes(job, source, release))
    return _Verified(source, release, hashlib.sha256(content).hexdigest(), indexes)


def _describe(verified: _Verified) -> dict[str, Any]:
    release = verified.release
    return {
        **asdict(verified.source),
        "inrelease_sha256": verified.inrelease_sha256,
        "date": release.date.isoformat(),
        "valid_until": release.valid_until and release.valid_until.isoformat(),
        "signed_by": release.signed_by,
    }


def _place_indexes(job: Job, source: Source, release: Release) -> Iterator[tuple[str, str]]:
    cache = job.project.output / "cache" / "indexes"
    for component in source.components:
        path = fetch_index(source, release, component, job.spec.arch, cache=cache)
        if path is not None:
            name = index_name(source, component)
            (job.scratch / name).write_bytes(read_index(path))
            yield source.uri, name
        elif source.role == "main":
            raise PipelineError(
                f"{without_credentials(source.uri)}: {source.suite} has no component "
                f"'{component}' for {job.spec.arch}",
                hint="correct `components` or `arch`",
            )


def identity(artifact: Path) -> str:
    """The digests of the Release files: the same archive state through any mirror is the same."""
    return read_snapshot(artifact).identity


def is_stale(artifact: Path, spec: Spec) -> str:
    """Too old to be used again without asking the mirror."""
    age_s = time.time() - (artifact / SNAPSHOT).stat().st_mtime
    if age_s <= spec.snapshot_max_age_s:
        return ""
    return f"the snapshot is {age_s / 3600:.1f} h old (snapshot_max_age={spec.snapshot_max_age})"


STAGE = Stage(
    name="mirror",
    summary="the mirror's signed state, verified",
    build=build,
    revision=REVISION,
    keys=("suite", "arch", "mirror", "components", "updates", "security", "keyring"),
    inputs=inputs,
    identity=identity,
    is_stale=is_stale,
    tools={"gpgv": "gpgv", "dpkg-deb": "dpkg"},
)
