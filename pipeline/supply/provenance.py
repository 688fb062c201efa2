"""What an artifact was made from, and that it was proven: the predicates of its statements.

docs/reference/statements.md describes them; https://slsa.dev/spec/v1.1/provenance and
https://in-toto.io/attestation/test-result/v0.1 define them.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from pipeline.files import fingerprint
from pipeline.lockfile import Lock
from pipeline.store.store import BuildInfo
from pipeline.supply.envelope import describe_file

PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
BUILD_TYPE = "urn:domu-pipeline:guest:v1"
BUILDER = "urn:domu-pipeline:builder:v1"
_SIGNED = ("InRelease-", "Release-")
# stages' inputs that are versions of tools
_TOOLS = ("diskimage-builder", "e2fsprogs", "mmdebstrap", "parallel")


def describe_build(
    spec: Mapping[str, Any],
    stages: Mapping[str, BuildInfo],
    own: BuildInfo,
    lock: Lock,
    vendor: str,
    others: Mapping[str, str],
) -> dict[str, Any]:
    """SLSA provenance v1: `own` is the artifact's buildinfo, `stages` those of what is below.

    `others` are files that were made beside the artifact, with their digests.
    """
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"spec": dict(spec)},
            "internalParameters": {"stages": describe_stages(stages)},
            "resolvedDependencies": [
                *_describe_archives(stages),
                *_describe_packages(lock, vendor, str(spec["suite"])),
                *_describe_elements(stages),
            ],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": dict(_find_tools(stages))},
            "metadata": {
                "invocationId": own.fingerprint,
                "finishedOn": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(own.built_at)),
            },
            "byproducts": [describe_file(name, others[name]) for name in sorted(others)],
        },
    }


def describe_stages(stages: Mapping[str, BuildInfo]) -> dict[str, Any]:
    """What stages.json and the provenance have to agree on."""
    return {
        name: {
            "fingerprint": made.fingerprint,
            "revision": made.revision,
            "upstream": made.upstream,
        }
        for name, made in sorted(stages.items())
    }


def package_url(name: str, version: str, architecture: str, vendor: str, suite: str) -> str:
    """As debsbom writes it (https://github.com/package-url/purl-spec, deb)."""
    qualifiers = f"arch={architecture}&" if architecture else ""
    return f"pkg:deb/{vendor}/{quote(name)}@{quote(version, safe=':')}?{qualifiers}distro={suite}"


def _describe_archives(stages: Mapping[str, BuildInfo]) -> Iterator[dict[str, Any]]:
    """What was signed: the state of each suite, and the keyring that it was verified with."""
    files = stages["mirror"].files if "mirror" in stages else {}
    for name, facts in sorted(files.items()):
        if name.startswith(_SIGNED) or name == "keyring.gpg":
            yield describe_file(name, str(facts["sha256"]))


def _describe_packages(lock: Lock, vendor: str, suite: str) -> Iterator[dict[str, Any]]:
    for package in lock.packages:
        url = package_url(package.name, package.version, package.architecture, vendor, suite)
        yield {"name": package.name, "uri": url, "digest": {"sha256": package.sha256}}
    for text in lock.unknown:
        name, version = text.split(" ")
        # from elsewhere than the mirror: nobody vouches for a digest
        yield {"name": name, "uri": package_url(name, version, "", vendor, suite)}


def _describe_elements(stages: Mapping[str, BuildInfo]) -> Iterator[dict[str, Any]]:
    """Each element by the digest of its files, modes and names."""
    elements = stages["rootfs"].inputs.get("elements") if "rootfs" in stages else None
    if isinstance(elements, dict):
        for name, files in sorted(elements.items()):
            yield {"name": f"element {name}", "digest": {"domu_tree": fingerprint(files)}}


def _find_tools(stages: Mapping[str, BuildInfo]) -> Iterator[tuple[str, str]]:
    for made in stages.values():
        for name in _TOOLS:
            if isinstance(made.inputs.get(name), str):
                yield name, made.inputs[name]


def describe_test(record: Mapping[str, Any], proof: str, digest: str) -> dict[str, Any]:
    """A proof as a test result: `record` is proof.json, `proof` its path, `digest` its sha256."""
    names: dict[bool, list[str]] = {True: [], False: []}
    for check in record["checks"]:
        if check["ok"] is not None:
            names[bool(check["ok"])].append(str(check["name"]))
    return {
        "result": "PASSED" if record["verdict"] == "proven" else "FAILED",
        "configuration": [describe_file(proof, digest)],
        "passedTests": names[True],
        "failedTests": names[False],
    }
