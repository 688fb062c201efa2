"""All that is said of a built artifact when it is published: SBOMs, its lock, signed statements."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.artifact.folder import Source
from pipeline.artifact.published import FACTS, render_facts
from pipeline.artifact.record import read_record
from pipeline.artifact.sums import DISK_SUMS, SUMS, read_sum_file
from pipeline.console.progress import print_line
from pipeline.errors import PipelineError
from pipeline.files import digest_file, read_table
from pipeline.lockfile import (
    PUBLISHED_LOCK,
    Lock,
    describe_lock,
    installed_packages,
    kernel_packages,
    render_lock,
)
from pipeline.mirror.index import read_package
from pipeline.mirror.snapshot import read_snapshot
from pipeline.mirror.stanzas import select_stanzas
from pipeline.project import Project
from pipeline.proof.names import FOLDER, PROOF
from pipeline.proof.seals import read_verdict
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.store.store import BUILDINFO, read_buildinfo
from pipeline.supply.bom import describe_packages, vendor_of
from pipeline.supply.envelope import make_statement, sign
from pipeline.supply.keys import has_keys, load_signer
from pipeline.supply.provenance import PROVENANCE, TEST_RESULT, describe_build, describe_test

PROVENANCE_FILE, TEST_FILE = "provenance.dsse.json", "test-result.dsse.json"
PROOF_FILE = f"{FOLDER}/{PROOF}"
APPLIANCE = "urn:domu-pipeline:appliance:1"
_MOST_PROOF_BYTES = 64 << 20


def describe(
    recipe: Recipe, spec: Spec, source: Source, *, passphrase: Path | None = None
) -> Mapping[str, bytes]:
    """Names and bytes of the files that speak of a built artifact, for `publish`.

    Statements are among them where this site has keys; `passphrase` is the file with that of the
    key. What cannot be said of an artifact any more is told in a line. Raises PipelineError.
    """
    project = recipe.project
    lock, why = _describe_lock(recipe, spec, source.folder)
    if why:
        print_line(f"  {spec.name} gets no lock, and cannot be reproduced from here: {why}")
    files: dict[str, bytes] = {}
    if lock.identity:
        files[PUBLISHED_LOCK] = render_lock(lock)
    files |= _describe_bills(recipe, spec, source, lock)
    if has_keys(project.keys):
        files |= _sign_statements(recipe, source, lock, files, passphrase)
    return files


def describe_bills(recipe: Recipe, spec: Spec, source: Source) -> Mapping[str, bytes]:
    """The bills of materials alone; without them where they cannot be made, which a line says."""
    lock, _why = _describe_lock(recipe, spec, source.folder)
    return _describe_bills(recipe, spec, source, lock)


def _describe_bills(recipe: Recipe, spec: Spec, source: Source, lock: Lock) -> Mapping[str, bytes]:
    folder = source.folder
    try:
        stanzas = _find_kernel_stanzas(recipe, spec, folder)
        return describe_packages(recipe.project, folder, source.spec, lock.packages, stanzas)
    except (PipelineError, FileNotFoundError) as error:
        why = error.brief if isinstance(error, PipelineError) else "its mirror's state is gone"
        print_line(f"  {spec.name} gets no SBOM: {why}")
        return {}


def _describe_lock(recipe: Recipe, spec: Spec, folder: Path) -> tuple[Lock, str]:
    """The lock; where its packages cannot be had any more, one that only names them, and why."""
    try:
        return describe_lock(recipe, spec), ""
    except (PipelineError, OSError) as error:
        why = error.brief if isinstance(error, PipelineError) else "its mirror's state is gone"
    wanted = {*installed_packages(folder / "manifest"), *kernel_packages(folder / "kernel.json")}
    return Lock("", {}, (), tuple(sorted(f"{name} {version}" for name, version in wanted))), why


def _find_kernel_stanzas(recipe: Recipe, spec: Spec, folder: Path) -> bytes:
    """As dpkg would have them, had it installed the kernel beside the guest."""
    wanted = set(kernel_packages(folder / "kernel.json"))
    if not wanted:
        return b""
    snapshot = read_snapshot(recipe.state("mirror", spec).folder)
    known: dict[tuple[str, str], bytes] = {}
    for root, index in snapshot.index_files:
        text = (snapshot.folder / index).read_bytes()
        for stanza in select_stanzas(text, {name for name, _ in wanted}):
            package = read_package(root, stanza)
            known.setdefault((package.name, package.version), stanza)
    missing = sorted(f"{name} {version}" for name, version in wanted - set(known))
    if missing:
        raise PipelineError(f"the mirror's state no longer has {missing[0]}")
    return b"\n\n".join(_as_installed(known[key]) for key in sorted(wanted))


def _as_installed(stanza: bytes) -> bytes:
    """An index's stanza as dpkg's status has it; a digest of MD5 is none."""
    lines = [line for line in stanza.splitlines() if not line.startswith((b"MD5sum:", b"SHA1:"))]
    return b"\n".join([*lines, b"Status: install ok installed"])


def _sign_statements(
    recipe: Recipe, source: Source, lock: Lock, files: Mapping[str, bytes], passphrase: Path | None
) -> Mapping[str, bytes]:
    signer = load_signer(recipe.project.keys, "statements", passphrase)
    folder, stages = source.folder, read_record(source.folder)
    own = read_buildinfo(folder)
    if own is None:
        raise PipelineError(f"{folder / BUILDINFO} is missing or damaged", hint="build it again")
    sums = {**read_sum_file(folder / SUMS), **read_sum_file(folder / DISK_SUMS)}
    subject = {**sums, **_digest(folder, (SUMS, DISK_SUMS, BUILDINFO))}
    proof = sorted(path for path in (folder / FOLDER).rglob("*") if path.is_file())
    others = _digest(folder, (path.relative_to(folder).as_posix() for path in proof))
    verdict = read_verdict(folder)
    signed: dict[str, bytes] = {}
    if verdict.is_proven:
        record = read_table(folder / PROOF_FILE, "a proof", limit=_MOST_PROOF_BYTES)
        booted = {name: subject[name] for name in record["digests"] if name in subject}
        predicate = describe_test(record, PROOF_FILE, others[PROOF_FILE])
        signed[TEST_FILE] = sign(make_statement(booted, TEST_RESULT, predicate), signer)
    facts = render_facts(own.fingerprint, verdict.reason or "proven")
    for name, content in {**files, **signed, FACTS: facts}.items():
        others[name] = hashlib.sha256(content).hexdigest()
    build = describe_build(source.spec, stages, own, lock, vendor_of(source.spec), others)
    signed[PROVENANCE_FILE] = sign(make_statement(subject, PROVENANCE, build), signer)
    return signed


def sign_manifest(
    project: Project, said: Mapping[str, Any], folders: Iterable[Path], passphrase: Path | None
) -> bytes:
    """The statement that these published versions belong together as `said`; b"" without keys."""
    if not has_keys(project.keys):
        return b""
    files = {
        f"{folder.parent.name}/{folder.name}/{BUILDINFO}": digest_file(folder / BUILDINFO)
        for folder in folders
    }
    signer = load_signer(project.keys, "statements", passphrase)
    return sign(make_statement(files, APPLIANCE, said), signer)


def _digest(folder: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: digest_file(folder / name) for name in names}
