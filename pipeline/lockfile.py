"""A guest's lock: the signed state of its mirror and each of its packages, by digest.

`guests/NAME.lock.json` says what; beside it are kept the snapshot (`output/locked/IDENTITY/`, a
copy of the mirror stage's artifact) and the packages (`cache/debs`, by sha256). With them a guest
can be built again from exactly the same packages after the mirror has moved on, and without a
network.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFault, PipelineError, UsageError, VerificationError
from pipeline.files import write_durably
from pipeline.mirror.fetch import OFFLINE
from pipeline.mirror.index import MOST_PACKAGE_BYTES, read_package
from pipeline.mirror.snapshot import read_snapshot
from pipeline.mirror.stanzas import select_stanzas
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.scratch import scratch_folder
from pipeline.spec import Spec
from pipeline.store.store import (
    BUILDINFO,
    BuildInfo,
    Store,
    compare_digests,
    publish_folder,
    read_buildinfo,
)
from pipeline.walls.package_names import (
    require_architecture,
    require_package,
    require_sha256,
    require_version,
)

FORM = 1
PUBLISHED_LOCK = "lock.json"
MOST_LOCK_BYTES = 16 << 20
# what reading JSON from a stranger can end in
_NO_LOCK = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, order=True)
class LockedPackage:
    """One .deb: what dpkg calls it, its size in bytes and sha256 (hex)."""

    name: str
    version: str
    architecture: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Lock:
    """`identity` is the snapshot's, `sources` its suites' InRelease digests.

    `unknown` are packages of the guest that no index of the snapshot has.
    """

    identity: str
    sources: dict[str, str]
    packages: tuple[LockedPackage, ...]
    unknown: tuple[str, ...] = ()


def lock_path(project: Project, guest: str) -> Path:
    """Beside the guest's spec."""
    return project.guests / f"{guest}.lock.json"


def kept_snapshot(project: Project, identity: str) -> Path:
    """Where the locked state of a mirror is kept."""
    return project.locked / identity[:32]


def read_lock(project: Project, guest: str) -> Lock:
    """The guest's lock; raises UsageError when there is none or it is not one.

    A lock comes from other machines: its words name files here, so each has the form of ours.
    """
    path = lock_path(project, guest)
    hint = f"write it with: doit lock name={guest}"
    if not path.exists():
        raise UsageError(f"{guest} has no lock ({path.name})", hint=hint)
    return _read(path, hint)


def list_locks(project: Project) -> Iterator[tuple[str, Lock]]:
    """The locks of guests, and those that published versions carry, each with whose it is."""
    for path in sorted(project.guests.glob("*.lock.json")):
        guest = path.name.removesuffix(".lock.json")
        yield f"lock of {guest}", read_lock(project, guest)
    for path in sorted(project.published.glob(f"*/2*/{PUBLISHED_LOCK}")):
        owner = f"published {path.parent.parent.name}/{path.parent.name}"
        yield owner, _read(path, f"publish it again: doit publish name={path.parent.parent.name}")


def _read(path: Path, hint: str) -> Lock:
    try:
        if not path.is_file() or path.stat().st_size > MOST_LOCK_BYTES:
            raise ValueError(f"no file of at most {MOST_LOCK_BYTES >> 20} MiB")
        return _parse(json.loads(path.read_bytes()))
    except (PipelineError, *_NO_LOCK) as error:
        raise UsageError(f"{path.name} is not a lock ({error})", hint=hint) from error


def _parse(table: Any) -> Lock:
    """Raises PipelineError, ValueError, KeyError, TypeError or AttributeError for no lock."""
    if table["form"] != FORM:
        raise ValueError(f"form {table['form']!r:.20} is not known here")
    require_sha256(table["identity"], where="identity")
    for digest in table["sources"].values():
        require_sha256(digest, where="sources")
    for text in table["unknown"]:
        name, version = text.split(" ")
        require_package(name, where="unknown")
        require_version(version, where="unknown")
    packages = tuple(LockedPackage(**entry) for entry in table["packages"])
    for package in packages:
        where = f"package {ascii(package.name)[:60]}"
        require_package(package.name, where=where)
        require_version(package.version, where=where)
        require_architecture(package.architecture, where=where)
        require_sha256(package.sha256, where=where)
        if type(package.size) is not int or not 0 < package.size <= MOST_PACKAGE_BYTES:
            raise ValueError(f"{where}: {ascii(package.size)[:40]} is no size")
    return Lock(table["identity"], dict(table["sources"]), packages, tuple(table["unknown"]))


def make_lock(recipe: Recipe, spec: Spec) -> Lock:
    """Lock a built guest and keep what it was made of. Raises PipelineError if it cannot be had."""
    lock = describe_lock(recipe, spec)
    write_durably(lock_path(recipe.project, spec.name), render_lock(lock))
    return lock


def describe_lock(recipe: Recipe, spec: Spec) -> Lock:
    """The lock of a built guest, and what it was made of is kept: nothing is written down."""
    _refuse_adopted(spec)
    snapshot = read_snapshot(recipe.state("mirror", spec).folder)
    artifact = recipe.project.artifact(spec.name)
    wanted = {
        *installed_packages(artifact / "manifest"),
        *kernel_packages(artifact / "kernel.json"),
    }
    urls: dict[LockedPackage, str] = {}
    for root, name in snapshot.index_files:
        urls.update(_find_packages((snapshot.folder / name).read_bytes(), root, wanted))
    found = {(one.name, one.version) for one in urls}
    unknown = sorted(f"{name} {version}" for name, version in wanted - found)
    debs = recipe.project.cache.debs
    for package, url in urls.items():
        target = debs / package.sha256
        snapshot.route.fetch(url, target, size=package.size, sha256=package.sha256)
    _keep_snapshot(recipe.project, snapshot.folder, snapshot.identity)
    return Lock(snapshot.identity, snapshot.digests, tuple(sorted(urls)), tuple(unknown))


def _refuse_adopted(spec: Spec) -> None:
    if spec.adopted:
        raise UsageError(
            f"{spec.name}: an adopted guest is made of a tree, there are no packages to lock",
            hint=f"keep output/adopted/{spec.adopted}: its digest is all that the guest depends on",
        )


def render_lock(lock: Lock) -> bytes:
    """A lock as its file has it."""
    text = json.dumps({"form": FORM, **asdict(lock)}, indent=1, sort_keys=True)
    return f"{text}\n".encode()


def installed_packages(manifest: Path) -> Iterator[tuple[str, str]]:
    """Name and version of each package of a manifest."""
    for line in manifest.read_text().splitlines():
        name, version, _architecture = line.split()
        yield name, version


def kernel_packages(path: Path) -> Iterator[tuple[str, str]]:
    """Name and version of what the kernel and the ramdisk of a kernel.json came from."""
    facts = json.loads(path.read_text())
    for table in (facts.get("packages", {}), facts.get("initrd_packages", {})):
        for name, (version, _sha256) in table.items():
            yield name, version


def _find_packages(
    text: bytes, root: str, wanted: set[tuple[str, str]]
) -> Iterator[tuple[LockedPackage, str]]:
    for stanza in select_stanzas(text, {name for name, _ in wanted}):
        found = read_package(root, stanza)
        if (found.name, found.version) in wanted:
            facts = (found.name, found.version, found.architecture, found.size, found.sha256)
            yield LockedPackage(*facts), found.url


def _keep_snapshot(project: Project, folder: Path, identity: str) -> None:
    """A copy: what damages the store's must not damage this one."""
    target = kept_snapshot(project, identity)
    found = read_buildinfo(folder)
    if target.is_dir() or found is None:
        return
    with _copied(project, folder, found) as scratch:
        shutil.copy2(folder / BUILDINFO, scratch / BUILDINFO)
        publish_folder(scratch, target)


@contextmanager
def _copied(project: Project, folder: Path, found: BuildInfo) -> Iterator[Path]:
    """A scratch folder with the files that a buildinfo names, each a plain file of that folder.

    A copy: one damaged block must not hit both.
    """
    with scratch_folder(project.scratch, "locked") as scratch:
        for name in found.files:
            path = folder / name
            if name != path.name or not stat.S_ISREG(path.lstat().st_mode):
                raise VerificationError(
                    f"{path} is no plain file", hint="remove that folder, and lock again"
                )
            shutil.copy2(path, scratch / name)
        yield scratch


def prepare_locked(recipe: Recipe, spec: Spec) -> Lock:
    """Make the mirror stage's artifact the locked state. Raises PipelineError when it is gone."""
    _refuse_adopted(spec)
    lock = read_lock(recipe.project, spec.name)
    state = recipe.state("mirror", spec)
    if state.buildinfo is not None and state.identity == lock.identity:
        return lock
    kept = kept_snapshot(recipe.project, lock.identity)
    if kept.is_dir():
        _restore_snapshot(recipe, spec, kept, lock)
        return lock
    if is_offline():
        raise EnvironmentFault(
            f"{spec.name}: the locked state of its mirror is not kept here",
            hint=f"copy output/locked/{kept.name} from where the lock was written",
        )
    state = recipe.build("mirror", spec)
    if state.identity != lock.identity:
        now = read_snapshot(state.folder).digests
        moved = sorted(name for name in lock.sources if now.get(name) != lock.sources[name])
        raise PipelineError(
            f"{spec.name} is locked to another state of its mirror ({', '.join(moved)} moved on)",
            hint=f"copy output/locked/{kept.name} from where the lock was written, name a mirror "
            f"that has that state, or lock again: doit lock name={spec.name}",
        )
    return lock


def _restore_snapshot(recipe: Recipe, spec: Spec, kept: Path, lock: Lock) -> None:
    state = recipe.state("mirror", spec)
    found = read_buildinfo(kept)
    if found is None or found.fingerprint != state.fingerprint:
        raise UsageError(
            f"{spec.name}: its lock was made from other sources than its spec names now",
            hint=f"undo the change of mirror, components or keyring; or doit lock name={spec.name}",
        )
    damaged = compare_digests(kept, found)
    signed = {facts["sha256"] for name, facts in found.files.items() if "Release-" in name}
    if missing := sorted(set(lock.sources.values()) - signed):
        damaged = damaged or f"InRelease {missing[0][:12]}"
    if damaged:
        raise VerificationError(
            f"{kept / damaged} is not what was kept: its bytes have changed",
            hint=f"copy output/locked/{kept.name} from where the lock was written, or lock again",
        )
    store = Store.of(recipe.project)
    with _copied(recipe.project, kept, found) as scratch, store.lock("mirror", state.fingerprint):
        store.publish(scratch, found)


def compare_with_lock(lock: Lock, manifest: Path) -> None:
    """Raises VerificationError when a built guest holds other packages than its lock says."""
    known = {(one.name, one.version) for one in lock.packages}
    known |= {(name, version) for name, version in map(str.split, lock.unknown)}
    other = sorted(
        f"{name} {version}" for name, version in set(installed_packages(manifest)) - known
    )
    if other:
        raise VerificationError(
            f"{len(other)} packages are not in the lock",
            details="\n".join(other[:20]),
            hint="the spec asks for more than when it was locked: lock it again",
        )


def is_offline() -> bool:
    """Whether the network is forbidden; the environment carries it to every process."""
    return os.environ.get(OFFLINE) == "1"
