"""A published version verified with a public key alone: every file, every statement, no network.

The first thing that is not what it should be is the error (exit code 5).
"""

import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key

from pipeline.artifact.published import FACTS, MOST_STATEMENT_BYTES
from pipeline.artifact.record import RECORD, read_record
from pipeline.artifact.sums import DISK_SUMS, SUMS, is_as_summed, read_sum_file
from pipeline.errors import UsageError, VerificationError
from pipeline.files import Damaged, read_bytes, read_table
from pipeline.lockfile import PUBLISHED_LOCK
from pipeline.proof.names import FOLDER
from pipeline.store.store import BUILDINFO, read_buildinfo
from pipeline.supply.bom import CYCLONEDX
from pipeline.supply.envelope import digests_of, open_envelope
from pipeline.supply.provenance import (
    BUILD_TYPE,
    PROVENANCE,
    TEST_RESULT,
    describe_stages,
    describe_test,
)
from pipeline.supply.statements import PROOF_FILE, PROVENANCE_FILE, TEST_FILE

_TAKE_IT_AGAIN = "take this version again from where it was made"


@dataclass(frozen=True)
class Verified:
    """What was verified: whose guest, how many files, whether it was proven, who signed."""

    guest: str
    fingerprint: str
    files: int
    signer: str
    proof: str
    has_bom: bool
    has_lock: bool
    dependencies: int

    def as_json(self) -> dict[str, Any]:
        """For programs: docs/reference/output.md."""
        return {name: value for name, value in asdict(self).items() if name != "guest"}

    def describe(self) -> Iterator[str]:
        """A line for each thing that a person wants to know."""
        yield f"{self.files} files, signed by the key {self.signer[:16]}"
        yield f"made of {self.dependencies} things that are named with their digests"
        yield f"proof: {self.proof}"
        for what, is_there in (("an SBOM", self.has_bom), ("a lock", self.has_lock)):
            if not is_there:
                yield f"it has not got {what}"


def verify_version(folder: Path, key: Key) -> Verified:
    """All that is said of the version in `folder`, against its files.

    Raises VerificationError for the first that does not hold, UsageError for no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder", hint="name the folder of a published version")
    where = folder / PROVENANCE_FILE
    try:
        statement = open_envelope(_read(where), key, PROVENANCE, str(where))
        return _verify(folder, _list_names(folder), statement, key)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # of a key that is trusted, but not by us: another version, another program
        raise VerificationError(
            f"{where}: its form is not known here ({type(error).__name__}: {error})",
            hint="verify it with the version that made it",
        ) from error


def _verify(
    folder: Path, names: Collection[str], statement: Mapping[str, Any], key: Key
) -> Verified:
    build = statement["predicate"]["buildDefinition"]
    run = statement["predicate"]["runDetails"]
    if build["buildType"] != BUILD_TYPE:
        raise ValueError(f"buildType {build['buildType']!r:.60}")
    artifact = digests_of(statement["subject"])
    digests = {**artifact, **digests_of(run["byproducts"])}
    _compare_names(folder, names, {*digests, PROVENANCE_FILE})
    # small files first: what they say is known before gigabytes of disks are read
    for name in sorted(digests, key=lambda name: (digests[name].startswith("sha256:"), name)):
        if not is_as_summed(folder / name, digests[name]):
            raise _other(folder / name, f"is not what {PROVENANCE_FILE} says")
    sums = {**read_sum_file(folder / SUMS), **read_sum_file(folder / DISK_SUMS)}
    if not sums.items() <= artifact.items():
        raise _other(folder / SUMS, f"says something else than {PROVENANCE_FILE}")
    _compare_record(folder, build, run)
    return Verified(
        guest=str(build["externalParameters"]["spec"]["name"]),
        fingerprint=str(run["metadata"]["invocationId"]),
        files=len(digests) + 1,
        signer=key.keyid,
        proof=_verify_proof(folder, key, digests),
        has_bom=CYCLONEDX in digests,
        has_lock=PUBLISHED_LOCK in digests,
        dependencies=len(build["resolvedDependencies"]),
    )


def _list_names(folder: Path) -> set[str]:
    """Every file by its path in the folder; VerificationError for anything else than a file."""
    names: set[str] = set()
    for path in sorted((*folder.iterdir(), *(folder / FOLDER).glob("*"))):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and path == folder / FOLDER:
            continue
        if not stat.S_ISREG(mode):
            raise _other(path, "is no plain file")
        names.add(path.relative_to(folder).as_posix())
    return names


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, limit=MOST_STATEMENT_BYTES)
    except FileNotFoundError as error:
        raise VerificationError(
            f"{path} is missing", hint="doit publish writes it where the site has keys"
        ) from error
    except Damaged as error:
        raise VerificationError(error.brief, hint=_TAKE_IT_AGAIN) from error


def _compare_names(folder: Path, names: Collection[str], known: Collection[str]) -> None:
    for name in sorted({*known} - {*names}):
        raise _other(folder / name, "is missing")
    for name in sorted({*names} - {*known}):
        raise _other(folder / name, "is in no statement")


def _other(path: Path, what: str) -> VerificationError:
    return VerificationError(f"{path} {what}", hint=_TAKE_IT_AGAIN)


def _compare_record(folder: Path, build: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """What the artifact says of itself, against what the provenance says of it."""
    spec = read_table(folder / "spec.json", "a spec")
    own = read_buildinfo(folder)
    facts = read_table(folder / FACTS, "a published version's facts")
    fingerprint = run["metadata"]["invocationId"]
    for name, is_same in (
        ("spec.json", spec == build["externalParameters"]["spec"]),
        (RECORD, describe_stages(read_record(folder)) == build["internalParameters"]["stages"]),
        (BUILDINFO, own is not None and own.fingerprint == fingerprint),
        (FACTS, facts["fingerprint"] == fingerprint),
    ):
        if not is_same:
            raise _other(folder / name, f"says something else than {PROVENANCE_FILE}")


def _verify_proof(folder: Path, key: Key, digests: Mapping[str, str]) -> str:
    """`proven`, or why not; what the statement says has to be what proof.json says."""
    facts = read_table(folder / FACTS, "a published version's facts")
    where = folder / TEST_FILE
    if TEST_FILE not in digests:
        if facts["proof"] == "proven":
            raise _other(where, f"is missing, and {FACTS} says proven")
        return str(facts["proof"])
    statement = open_envelope(_read(where), key, TEST_RESULT, str(where))
    record = read_table(folder / PROOF_FILE, "a proof", limit=MOST_STATEMENT_BYTES)
    expected = describe_test(record, PROOF_FILE, digests[PROOF_FILE])
    tested = digests_of(statement["subject"])
    if statement["predicate"] != expected or not tested.items() <= digests.items() or not tested:
        raise _other(where, f"says something else than {PROOF_FILE}")
    if expected["result"] != "PASSED" or facts["proof"] != "proven":
        raise _other(folder / FACTS, f"says something else than {TEST_FILE}")
    return f"proven, {len(expected['passedTests'])} checks"
