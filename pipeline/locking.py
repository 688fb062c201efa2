"""A guest's lock: the signed state of its mirror and each of its packages, by digest.

`guests/NAME.lock.json` says what; beside it are kept the snapshot (`output/locked/IDENTITY/`, a
copy of the mirror stage's artifact) and the packages (`cache/debs`, by sha256). With them a guest
can be built again from exactly the same packages after the mirror has moved on, and without a
network.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.archive.route import Route
from pipeline.archive.snapshot import read_snapshot
from pipeline.bootstrap.relations import read_fields
from pipeline.canonical import digest_file, write_durably
from pipeline.errors import EnvironmentFault, PipelineError, UsageError, VerificationError
from pipeline.fetch import OFFLINE
from pipeline.host.scratch import scratch_folder
from pipeline.interruption import passing
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.store import compare_digests, publish_folder, read_buildinfo

FORM = 1


@dataclass(frozen=True, order=True)
class LockedPackage:
    """One .deb: what dpkg calls it, its size in bytes and sha256 (hex)."""

    name: str
    version: str
    architecture: str
    size: int
    sha256: str

    @property
    def apt_name(self) -> str:
        """Its name in apt's package cache: no colon in the version."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


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
    return project.output / "locked" / identity[:32]


def read_lock(project: Project, guest: str) -> Lock:
    """The guest's lock; raises UsageError when there is none or it is not one."""
    path = lock_path(project, guest)
    hint = f"write it with: doit lock name={guest}"
    try:
        table = json.loads(path.read_bytes())
        if table["form"] != FORM:
            raise UsageError(f"{path.name}: form {table['form']} is not known here", hint=hint)
        packages = tuple(LockedPackage(**found) for found in table["packages"])
        return Lock(table["identity"], table["sources"], packages, tuple(table["unknown"]))
    except FileNotFoundError:
        raise UsageError(f"{guest} has no lock ({path.name})", hint=hint) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path.name} is not a lock ({error})", hint=hint) from error


def make_lock(recipe: Recipe, spec: Spec) -> Lock:
    """Lock a built guest and keep what it was made of. Raises PipelineError if it cannot be had."""
    snapshot = read_snapshot(recipe.state("mirror", spec).folder)
    artifact = recipe.project.artifact(spec.name)
    wanted = set(_installed(artifact / "manifest"))
    wanted |= set(_kernel_packages(artifact / "kernel.json"))
    urls: dict[LockedPackage, str] = {}
    for root, name in snapshot.index_files:
        text = (snapshot.folder / name).read_text(encoding="utf-8", errors="replace")
        urls.update(_find_packages(text, root, wanted))
    found = {(one.name, one.version) for one in urls}
    unknown = sorted(f"{name} {version}" for name, version in wanted - found)
    for package, url in urls.items():
        _keep(recipe.project, snapshot.route, package, url)
    _keep_snapshot(recipe.project, snapshot.folder, snapshot.identity)
    lock = Lock(snapshot.identity, snapshot.digests, tuple(sorted(urls)), tuple(unknown))
    text = json.dumps({"form": FORM, **asdict(lock)}, indent=1, sort_keys=True)
    write_durably(lock_path(recipe.project, spec.name), f"{text}\n".encode())
    return lock


def _installed(manifest: Path) -> Iterator[tuple[str, str]]:
    for line in manifest.read_text().splitlines():
        name, version, _architecture = line.split()
        yield name, version


def _kernel_packages(path: Path) -> Iterator[tuple[str, str]]:
    facts = json.loads(path.read_text())
    for table in (facts.get("packages", {}), facts.get("initrd_packages", {})):
        for name, (version, _sha256) in table.items():
            yield name, version


def _find_packages(
    text: str, root: str, wanted: set[tuple[str, str]]
) -> Iterator[tuple[LockedPackage, str]]:
    names = {name for name, _ in wanted}
    for stanza in text.split("\n\n"):
        if stanza[9 : stanza.find("\n")] not in names:  # after "Package: "
            continue
        fields = read_fields(stanza)
        if (fields["Package"], fields["Version"]) in wanted:
            package = LockedPackage(
                fields["Package"],
                fields["Version"],
                fields["Architecture"],
                int(fields["Size"]),
                fields["SHA256"],
            )
            yield package, f"{root}/{fields['Filename']}"


def _keep(project: Project, route: Route, package: LockedPackage, url: str) -> None:
    """The package in cache/debs, from apt's cache where it is there, else from the mirror."""
    target = project.output / "cache/debs" / package.sha256
    from_apt = project.output / "cache/apt" / package.apt_name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() and from_apt.is_file() and digest_file(from_apt) == package.sha256:
        with passing(target.with_name(f".{target.name}.{os.getpid()}.lock")) as part:
            shutil.copyfile(from_apt, part)
            os.replace(part, target)
    route.fetch(url, target, size=package.size, sha256=package.sha256)


def _keep_snapshot(project: Project, folder: Path, identity: str) -> None:
    target = kept_snapshot(project, identity)
    if target.is_dir():
        return
    # copies: one damaged block must not hit both
    with scratch_folder(project.output / "scratch", "lock") as scratch:
        shutil.copytree(folder, scratch, copy_function=shutil.copy2, dirs_exist_ok=True)
        publish_folder(scratch, target)


def prepare_locked(recipe: Recipe, spec: Spec) -> Lock:
    """Make the mirror stage's artifact the locked state. Raises PipelineError when it is gone."""
    lock = read_lock(recipe.project, spec.name)
    _offer_packages(recipe.project, lock.packages)
    state = recipe.state("mirror", spec)
    if state.buildinfo is not None and state.identity == lock.identity:
        return lock
    kept = kept_snapshot(recipe.project, lock.identity)
    if kept.is_dir():
        _restore_snapshot(recipe, spec, kept)
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


def _restore_snapshot(recipe: Recipe, spec: Spec, kept: Path) -> None:
    state = recipe.state("mirror", spec)
    found = read_buildinfo(kept)
    if found is None or found.fingerprint != state.fingerprint:
        raise UsageError(
            f"{spec.name}: its lock was made from other sources than its spec names now",
            hint=f"undo the change of mirror, components or keyring; or doit lock name={spec.name}",
        )
    damaged = compare_digests(kept, found)
    if damaged:
        raise VerificationError(
            f"{kept / damaged} is not what was kept: its bytes have changed",
            hint=f"copy output/locked/{kept.name} from where the lock was written, or lock again",
        )
    with scratch_folder(recipe.project.output / "scratch", "locked") as scratch:
        shutil.copytree(kept, scratch, copy_function=shutil.copy2, dirs_exist_ok=True)
        (scratch / "buildinfo.json").unlink()
        with recipe.project.store.lock("mirror", state.fingerprint):
            recipe.project.store.publish(scratch, found)


def _offer_packages(project: Project, packages: Iterable[LockedPackage]) -> None:
    """Kept packages under the names by which apt looks for them in its cache."""
    folder = project.output / "cache/apt"
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        kept, offered = project.output / "cache/debs" / package.sha256, folder / package.apt_name
        if kept.is_file() and not offered.exists():
            os.link(kept, offered)


def compare_with_lock(lock: Lock, manifest: Path) -> None:
    """Raises VerificationError when a built guest holds other packages than its lock says."""
    known = {(one.name, one.version) for one in lock.packages}
    known |= {(name, version) for name, version in map(str.split, lock.unknown)}
    other = sorted(f"{name} {version}" for name, version in set(_installed(manifest)) - known)
    if other:
        raise VerificationError(
            f"{len(other)} packages are not in the lock",
            details="\n".join(other[:20]),
            hint="the spec asks for more than when it was locked: lock it again",
        )


def is_offline() -> bool:
    """Whether the network is forbidden; the environment carries it to every process."""
    return os.environ.get(OFFLINE) == "1"
