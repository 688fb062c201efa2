"""Bills of materials of a built guest, CycloneDX and SPDX, and what is known against its packages.

debsbom reads what strangers wrote: it runs in a cage without a network (bom_errand.py), its results
are taken out by name.
"""

import json
import tarfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.artifact.record import read_record
from pipeline.errors import PipelineError, UsageError
from pipeline.files import digest_file, read_bytes, write_durably
from pipeline.lockfile import LockedPackage
from pipeline.process import run
from pipeline.project import Project
from pipeline.scratch import scratch_folder
from pipeline.store.store import Store
from pipeline.suites import SUITES
from pipeline.walls.beneath import Beneath
from pipeline.walls.cage import make_room
from pipeline.walls.errand import send

CYCLONEDX, SPDX = "sbom.cdx.json", "sbom.spdx.json"
VULNERABILITIES, TRACKER = "vulnerabilities.json", "tracker.json"
_ERRAND = "pipeline.supply.bom_errand"
_MOST_BYTES = 64 << 20
_MOST_TRACKER_BYTES = 1 << 30
# the serial number of an SBOM is that of an image, not of a run
_SERIALS = uuid.UUID("5c1f5a0e-8d0c-5d3f-9d6e-1d1f1f3c0a51")


def describe_packages(
    project: Project,
    folder: Path,
    spec: Mapping[str, Any],
    packages: Iterable[LockedPackage],
    more: bytes = b"",
) -> Mapping[str, bytes]:
    """Both bills of materials of the artifact in `folder`, the same bytes for the same image.

    `spec` is its spec.json; `packages` give the digests; `more` are stanzas of what dpkg does not
    know of, as its status has them. Raises PipelineError.
    """
    name = str(spec["name"])
    made, image = _find_rootfs(project, folder, name)
    digests = [
        [package.name, package.version, package.architecture, package.sha256]
        for package in packages
    ]
    order = {
        "name": name,
        "suite": str(spec["suite"]),
        "arch": str(spec["arch"]),
        "vendor": vendor_of(spec),
        "serial": str(uuid.uuid5(_SERIALS, image)),
        "epoch": _epoch_of(made / "rootfs.tar"),
        "digests": digests,
    }
    status = read_bytes(made / "dpkg-status", limit=_MOST_BYTES).rstrip(b"\n")
    given = {"var/lib/dpkg/status": b"\n\n".join(filter(None, (status, more))) + b"\n"}
    return _ask(project, name, order, given, (CYCLONEDX, SPDX))


def find_vulnerabilities(
    project: Project, name: str, suite: str, bom: bytes, tracker: Path
) -> list[dict[str, Any]]:
    """What a file of Debian's security tracker says against a CycloneDX bill of materials."""
    try:
        known = read_bytes(tracker, limit=_MOST_TRACKER_BYTES, follow=True)
    except FileNotFoundError as error:
        raise UsageError(
            f"{tracker}: no such file", hint="db=FILE: data/json of Debian's security tracker"
        ) from error
    given = {CYCLONEDX: bom, TRACKER: known}
    told = _ask(project, name, {"suite": suite}, given, (VULNERABILITIES,))
    return list(json.loads(told[VULNERABILITIES]))


def _ask(
    project: Project,
    name: str,
    order: Mapping[str, Any],
    given: Mapping[str, bytes],
    results: Sequence[str],
) -> Mapping[str, bytes]:
    log = project.log(name, "bom")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    project.scratch.mkdir(parents=True, exist_ok=True)
    with scratch_folder(project.scratch, f"bom-{name}") as scratch:
        room, tree = make_room(scratch / "room"), scratch / "tree"
        for place, content in given.items():
            (tree / place).parent.mkdir(parents=True, exist_ok=True)
            write_durably(tree / place, content)
        told = {**order, "tree": str(tree), "room": str(room), "results": list(results)}
        caged = partial(run, log=log, env={"PYTHONHASHSEED": "0"})
        send(_ERRAND, told, file=scratch / "order", room=room, run=caged, readable=[tree])
        with Beneath(room, follow=False) as inside:
            return {result: inside.read(result, limit=_MOST_BYTES) for result in results}


def vendor_of(spec: Mapping[str, Any]) -> str:
    """Whose packages, as a package URL has it: debian, ubuntu."""
    suite = SUITES.get(str(spec["suite"]))
    return suite.distribution if suite else "debian"


def _find_rootfs(project: Project, folder: Path, name: str) -> tuple[Path, str]:
    """Where the tree is that it was made of, and the digest of that tree's archive."""
    again = f"build it again: doit build name={name}"
    made = read_record(folder).get("rootfs")
    if made is None:
        raise PipelineError(f"{folder} does not say what it was made of", hint=again)
    rootfs = Store.of(project).location("rootfs", made.fingerprint)
    try:
        status, image = (str(made.files[file]["sha256"]) for file in ("dpkg-status", "rootfs.tar"))
        is_kept = digest_file(rootfs / "dpkg-status") == status
    except (KeyError, OSError):
        is_kept = False
    if not is_kept:
        raise PipelineError(
            f"{name}: the store no longer has the tree that it was made of", hint=again
        )
    return rootfs, image


def _epoch_of(archive: Path) -> int:
    """When the image says that it was made: its root folder, in seconds since 1970."""
    try:
        with tarfile.open(archive, "r:") as opened:
            first = opened.next()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise PipelineError(f"{archive}: {error}", hint="build it again") from error
    return int(first.mtime) if first else 0
