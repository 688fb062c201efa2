"""Mirror: the archive's signed Release files and package indexes, verified and pinned."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.files import digest_file
from pipeline.mirror.apt_sources import Source
from pipeline.mirror.failover import Mirror
from pipeline.mirror.keyrings import choose_keyring, place_keyring
from pipeline.mirror.mirrors import Archive, find_archives, sources_of
from pipeline.mirror.proxy.control import require_proxy, with_cache
from pipeline.mirror.release import identity_of
from pipeline.mirror.snapshot import KEYRING, SNAPSHOT, read_snapshot
from pipeline.mirror.take_snapshot import Taking, Verified
from pipeline.preflight import require_feasible
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.stage import Inputs, Job, Stage
from pipeline.stages.given_tree import left_out

REVISION = 4
NAME = "mirror"


def inputs(spec: Spec, project: Project) -> Inputs:
    """The sources that the spec's mirror stands for on this machine, and who may sign them."""
    archives = find_archives(spec, project.mirrors)
    keyring = choose_keyring(spec, archives[0].keyring)
    terms = archives[0].terms
    return {
        "sources": [
            source.one_line() for archive in archives for source in sources_of(spec, archive)
        ],
        "keyring bytes": digest_file(keyring, follow=True) if keyring.is_file() else "borrowed",
        "terms": [str(value) for value in (terms.is_archived, terms.grace_s, terms.max_lag_s)],
    }


def build(job: Job) -> None:
    """Fetch and verify every Release file, then the indexes that they name."""
    archives = with_cache(job.spec, job.project, find_archives(job.spec, job.project.mirrors))
    cache = job.project.cache
    place_keyring(job.spec, archives[0].keyring, job.scratch / KEYRING, cache=cache, log=job.log)
    taking = Taking(job.scratch, job.project.store / NAME, cache, job.log, job.spec.arch)
    read = [taking.take(offers) for offers in _offers(job.spec, archives).values()]
    verified = [source for source in read if source is not None]
    digests = {each.source.suite: each.inrelease_sha256 for each in verified}
    components = sorted(job.spec.components)
    table = {
        "sources": [_describe(each) for each in verified],
        "indexes": [index for each in verified for index in each.indexes],
        "mirrors": [_mirror(job.spec, archive).to_table() for archive in archives],
        "epoch": max(int(each.release.date.timestamp()) for each in verified),
        "identity": identity_of({**digests, "": f"{job.spec.arch} {components}"}),
    }
    (job.scratch / SNAPSHOT).write_text(json.dumps(table, indent=1, sort_keys=True))


def _offers(spec: Spec, archives: tuple[Archive, ...]) -> dict[str, list[tuple[Archive, Source]]]:
    """For each role the mirrors that offer it, best first."""
    offers: dict[str, list[tuple[Archive, Source]]] = {}
    for archive in archives:
        for source in sources_of(spec, archive):
            offers.setdefault(source.role, []).append((archive, source))
    return offers


def _mirror(spec: Spec, archive: Archive) -> Mirror:
    roots = {source.role: source.uri for source in sources_of(spec, archive)}
    return Mirror(tuple(sorted(roots.items())), archive.way)


def _describe(verified: Verified) -> dict[str, Any]:
    release = verified.release
    return {
        **asdict(verified.source),
        "inrelease_sha256": verified.inrelease_sha256,
        "date": release.date.isoformat(),
        "valid_until": release.valid_until and release.valid_until.isoformat(),
        "signed_by": release.signed_by,
    }


def identity(artifact: Path) -> str:
    """The digests of the Release files: the same archive state through any mirror is the same."""
    return read_snapshot(artifact).identity


def is_stale(artifact: Path, spec: Spec) -> str:
    """Too old to be used again without asking the mirror, or from a time that has not come yet."""
    age_s = time.time() - (artifact / SNAPSHOT).stat().st_mtime
    if age_s < 0:
        return f"the snapshot is of {-age_s / 3600:.1f} h from now: a clock was wrong"
    if 0 < spec.snapshot_max_age_s >= age_s:
        return ""
    return f"the snapshot is {age_s / 3600:.1f} h old (snapshot_max_age={spec.snapshot_max_age})"


def outputs(_spec: Spec, _project: Project) -> Sequence[str]:
    """The signed files differ from suite to suite: what they are stands in the first one."""
    return (SNAPSHOT, "Packages-*")


_LEFT_OUT = left_out(NAME)
STAGE = Stage(
    name=NAME,
    summary="the mirror's signed state, verified",
    build=build,
    revision=REVISION,
    room_mib=60,
    keys=("suite", "arch", "mirror", "components", "updates", "security", "keyring"),
    reads={"snapshot_max_age": "it says when to ask again"},
    checks=(require_feasible, require_proxy),
    inputs=inputs,
    outputs=outputs,
    identity=identity,
    is_stale=is_stale,
    ages=True,
    other=lambda spec: _LEFT_OUT if spec.adopted and spec.is_kernel_inside else None,
    tools={"gpgv": "gpgv", "dpkg-deb": "dpkg"},
)
