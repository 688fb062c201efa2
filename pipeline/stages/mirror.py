"""Mirror: the archive's signed Release files and package indexes, verified and pinned."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.archive.index import fetch_index
from pipeline.archive.keyring import place_keyring
from pipeline.archive.release import (
    Release,
    check_release,
    identity_of,
    parse_release,
    present_time,
    verify_signature,
)
from pipeline.archive.snapshot import KEYRING, SNAPSHOT, read_snapshot
from pipeline.archive.sources import Source, find_archive, sources_of
from pipeline.fetch import NotFound, fetch_bytes, without_credentials
from pipeline.progress import print_line
from pipeline.project import Project
from pipeline.recipe import Inputs, Job, Stage
from pipeline.spec import Spec

REVISION = 1


def inputs(spec: Spec, project: Project) -> Inputs:
    """The sources that the spec's mirror stands for on this machine."""
    archive = find_archive(spec, project.mirrors)
    return {"sources": [source.one_line() for source in sources_of(spec, archive)]}


def build(job: Job) -> None:
    """Fetch and verify every Release file, then the indexes that they name."""
    archive = find_archive(job.spec, job.project.mirrors)
    cache = job.project.output / "cache"
    place_keyring(job.spec, archive.keyring, job.scratch / KEYRING, cache=cache, log=job.log)
    used: list[dict[str, Any]] = []
    indexes: list[tuple[str, str]] = []
    newest = 0
    for source in sources_of(job.spec, archive):
        content = _fetch_inrelease(source)
        if content is None:
            continue
        release = _verify(job, source, content)
        newest = max(newest, int(release.date.timestamp()))
        used.append(_describe(source, release, content))
        indexes += _place_indexes(job, source, release, cache / "indexes")
    digests = {entry["suite"]: entry["inrelease_sha256"] for entry in used}
    components = sorted(job.spec.components)
    table = {
        "sources": used,
        "indexes": indexes,
        "epoch": newest,
        "identity": identity_of({**digests, "": f"{job.spec.arch} {components}"}),
    }
    (job.scratch / SNAPSHOT).write_text(json.dumps(table, indent=1, sort_keys=True))


def _fetch_inrelease(source: Source) -> bytes | None:
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


def _verify(job: Job, source: Source, content: bytes) -> Release:
    suite = job.spec.suite_facts
    path = job.scratch / f"InRelease-{source.role}"
    path.write_bytes(content)
    where = without_credentials(source.inrelease_url)
    text, signers = verify_signature(
        path,
        job.scratch / KEYRING,
        where=where,
        accepts_expired_keys=suite.is_archived,
        log=job.log,
    )
    release = parse_release(text, signers, where=where)
    check_release(
        release,
        source.suite,
        now=present_time(),
        checks_valid_until=suite.checks_valid_until,
        where=where,
    )
    return release


def _describe(source: Source, release: Release, content: bytes) -> dict[str, Any]:
    return {
        **asdict(source),
        "inrelease_sha256": hashlib.sha256(content).hexdigest(),
        "date": release.date.isoformat(),
        "valid_until": release.valid_until and release.valid_until.isoformat(),
        "signed_by": release.signed_by,
    }


def _place_indexes(
    job: Job, source: Source, release: Release, cache: Path
) -> list[tuple[str, str]]:
    placed: list[tuple[str, str]] = []
    for component in source.components:
        path = fetch_index(source, release, component, job.spec.arch, cache=cache)
        if path is not None:
            name = f"Packages-{source.role}-{component.replace('/', '-')}{path.suffix}"
            os.link(path, job.scratch / name)
            placed.append((source.uri, name))
    return placed


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
