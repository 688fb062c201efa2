"""A published version with one thing changed: whatever it is, `doit verify` finds it."""

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from pipeline.errors import VerificationError
from pipeline.lockfile import PUBLISHED_LOCK
from pipeline.supply.bom import CYCLONEDX, SPDX
from pipeline.supply.envelope import sign
from pipeline.supply.keys import load_signer, make_key, public_key
from pipeline.supply.statements import PROVENANCE_FILE, TEST_FILE
from pipeline.supply.verification import verify_version
from tests.host.supply_bench import GUEST, SupplyBench, copy_version, statement_in
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]
PROOF = "proof/proof.json"


class Ground:
    """One version that is whole, copies to damage, another guest's statements."""

    def __init__(self, bench: SupplyBench, base: Path) -> None:
        self.keys = bench.site / "keys"
        self.key = public_key(self.keys, "statements")
        self.whole = bench.publish(bench.describe()).folder
        self.signer = load_signer(self.keys, "statements", None)
        make_key(base / "strange", "statements", None)
        self.stranger = load_signer(base / "strange", "statements", None)
        self._base, self._count = base, 0

    def copy(self) -> Path:
        self._count += 1
        return copy_version(self.whole, self._base / f"copy{self._count}")


@pytest.fixture(scope="module")
def ground(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    bench = SupplyBench.of(workshop, tmp_path_factory.mktemp("supply"))
    yield Ground(bench, tmp_path_factory.mktemp("copies"))


Seed = Callable[[Path, Ground], None]
Edit = Callable[[dict[str, Any]], None]


def write(path: Path, content: bytes) -> None:
    """Another file of that name: the whole version's is left alone."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def flip(name: str, at: float = 0.5, bit: int = 1) -> Seed:
    def change(folder: Path, _ground: Ground) -> None:
        content = bytearray((folder / name).read_bytes())
        content[int((len(content) - 1) * at)] ^= bit
        write(folder / name, bytes(content))

    return change


def flip_disk(folder: Path, _ground: Ground) -> None:
    aside = folder / "aside"
    subprocess.run(["cp", "--sparse=always", folder / "disk.img", aside], check=True)
    with open(aside, "r+b") as stream:
        stream.seek(64 << 20)
        was = stream.read(1)
        stream.seek(64 << 20)
        stream.write(bytes([was[0] ^ 1]))
    aside.replace(folder / "disk.img")


def grow_swap(folder: Path, _ground: Ground) -> None:
    size = (folder / "swap.img").stat().st_size
    write(folder / "swap.img", b"")
    with open(folder / "swap.img", "r+b") as stream:
        stream.truncate(size + 4096)


def remove(name: str) -> Seed:
    return lambda folder, _ground: (folder / name).unlink()


def add(name: str) -> Seed:
    return lambda folder, _ground: write(folder / name, b"more\n")


def link(name: str) -> Seed:
    def change(folder: Path, _ground: Ground) -> None:
        aside = folder.parent / f"{folder.name}-{Path(name).name}"
        (folder / name).rename(aside)
        (folder / name).symlink_to(aside)

    return change


def folder_for_file(folder: Path, _ground: Ground) -> None:
    (folder / "manifest").unlink()
    (folder / "manifest").mkdir()


def truncate(name: str) -> Seed:
    def change(folder: Path, _ground: Ground) -> None:
        content = (folder / name).read_bytes()
        write(folder / name, content[: len(content) * 2 // 3])

    return change


def in_envelope(name: str, edit: Edit) -> Seed:
    """The envelope's JSON changed, its signature as it was."""

    def change(folder: Path, _ground: Ground) -> None:
        envelope = json.loads((folder / name).read_bytes())
        edit(envelope)
        text = json.dumps(envelope, indent=1, sort_keys=True)
        write(folder / name, f"{text}\n".encode())

    return change


def in_statement(name: str, edit: Edit) -> Seed:
    """What is said changed, its signature as it was."""

    def change(folder: Path, ground: Ground) -> None:
        statement = statement_in((folder / name).read_bytes())
        edit(statement)
        payload = base64.b64encode(json.dumps(statement).encode()).decode()
        in_envelope(name, lambda envelope: envelope.update(payload=payload))(folder, ground)

    return change


def by_the_house(name: str, edit: Edit) -> Seed:
    """What is said changed and signed, by whoever has the key."""

    def change(folder: Path, ground: Ground) -> None:
        statement = statement_in((folder / name).read_bytes())
        edit(statement)
        write(folder / name, sign(statement, ground.signer))

    return change


def sign_again(name: str, signer: Callable[[Ground], CryptoSigner]) -> Callable[..., None]:
    def change(folder: Path, ground: Ground) -> None:
        statement = statement_in((folder / name).read_bytes())
        write(folder / name, sign(statement, signer(ground)))

    return change


def of_another_guest(folder: Path, ground: Ground) -> None:
    """A whole statement with its own good signature, of a guest of the same house."""
    statement = statement_in((folder / PROVENANCE_FILE).read_bytes())
    statement["predicate"]["buildDefinition"]["externalParameters"]["spec"]["name"] = "web9"
    for entry in statement["subject"]:
        entry["name"] = entry["name"].replace(GUEST, "web9")
        entry["digest"] = {kind: digest[::-1] for kind, digest in entry["digest"].items()}
    write(folder / PROVENANCE_FILE, sign(statement, ground.signer))


def sign_for_proven(folder: Path, _ground: Ground) -> None:
    """The statement of the test taken away where the provenance is."""
    write(folder / TEST_FILE, (folder / PROVENANCE_FILE).read_bytes())


def raise_case(entry: dict[str, Any]) -> None:
    digest = entry["subject"][0]["digest"]
    digest["sha256"] = digest["sha256"].upper()


def forget_file(entry: dict[str, Any]) -> None:
    entry["subject"] = [one for one in entry["subject"] if one["name"] != "vmlinuz"]


def forget_bom(entry: dict[str, Any]) -> None:
    run = entry["predicate"]["runDetails"]
    run["byproducts"] = [one for one in run["byproducts"] if one["name"] != CYCLONEDX]


def change_stage(entry: dict[str, Any]) -> None:
    stages = entry["predicate"]["buildDefinition"]["internalParameters"]["stages"]
    stages["rootfs"]["fingerprint"] = "0" * 64


def change_spec(entry: dict[str, Any]) -> None:
    entry["predicate"]["buildDefinition"]["externalParameters"]["spec"]["suite"] = "trixie"


def change_type(entry: dict[str, Any]) -> None:
    entry["predicate"]["buildDefinition"]["buildType"] = "https://example.org/other"


def pass_more(entry: dict[str, Any]) -> None:
    entry["predicate"]["passedTests"].append("ssh")


IN_NONE = "is in no statement"
# whoever has the key says one thing otherwise
SIGNED: dict[str, tuple[str, Edit, str]] = {
    "a digest in capitals, signed": (PROVENANCE_FILE, raise_case, "is not what"),
    "a file that is not named, signed": (
        PROVENANCE_FILE,
        forget_file,
        "vmlinuz is in no statement",
    ),
    "a bill that is not named, signed": (PROVENANCE_FILE, forget_bom, f"{CYCLONEDX} {IN_NONE}"),
    "another stage, signed": (PROVENANCE_FILE, change_stage, "stages.json says something else"),
    "another spec, signed": (PROVENANCE_FILE, change_spec, "spec.json says something else"),
    "another kind of build, signed": (PROVENANCE_FILE, change_type, "its form is not known here"),
    "a test that was not passed, signed": (TEST_FILE, pass_more, f"{TEST_FILE} is not what"),
}


SEEDS: dict[str, tuple[Seed, str]] = {
    "a bit of the kernel": (flip("vmlinuz"), "vmlinuz is not what"),
    "a bit of the ramdisk": (flip("initrd.img", 0.9), "initrd.img is not what"),
    "the disk": (flip_disk, "disk.img is not what"),
    "a larger swap": (grow_swap, "swap.img is not what"),
    "a bit of the configuration": (flip(f"{GUEST}.cfg"), f"{GUEST}.cfg is not what"),
    "a bit of the spec": (flip("spec.json"), "spec.json is not what"),
    "a bit of the record": (flip("stages.json", 0.1), "stages.json is not what"),
    "a bit of the build's facts": (flip("buildinfo.json"), "buildinfo.json is not what"),
    "a bit of the sums": (flip("SHA256SUMS", 0.2), "SHA256SUMS is not what"),
    "a bit of the disks' sums": (flip("FSVERITY", 0.2), "FSVERITY is not what"),
    "a bit of what was published": (flip("published.json", 0.9), "published.json is not what"),
    "a bit of the bill": (flip(CYCLONEDX), f"{CYCLONEDX} is not what"),
    "a bit of the other bill": (flip(SPDX, 0.0), f"{SPDX} is not what"),
    "a bit of the lock": (flip(PUBLISHED_LOCK), f"{PUBLISHED_LOCK} is not what"),
    "a bit of the proof": (flip(PROOF), "proof.json is not what"),
    "a bit of the console": (flip("proof/console.log"), "console.log is not what"),
    "a bit of the provenance": (flip(PROVENANCE_FILE, 0.3), PROVENANCE_FILE),
    "a blank of the provenance": (flip(PROVENANCE_FILE, 1.0, 2), PROVENANCE_FILE),
    "a bit of the signature": (flip(PROVENANCE_FILE, 0.999, 1), PROVENANCE_FILE),
    "a bit of the test's statement": (flip(TEST_FILE, 0.5), f"{TEST_FILE} is not what"),
    "no kernel": (remove("vmlinuz"), "vmlinuz is missing"),
    "no provenance": (remove(PROVENANCE_FILE), f"{PROVENANCE_FILE} is missing"),
    "no statement of the test": (remove(TEST_FILE), f"{TEST_FILE} is missing"),
    "no proof": (remove(PROOF), "proof.json is missing"),
    "no bill": (remove(CYCLONEDX), f"{CYCLONEDX} is missing"),
    "a file more": (add("initrd.img.new"), "initrd.img.new is in no statement"),
    "a hidden file more": (add(".hidden"), ".hidden is in no statement"),
    "a file more in the proof": (add("proof/more"), "proof/more is in no statement"),
    "a link for a file": (link("vmlinuz"), "vmlinuz is no plain file"),
    "a link for the provenance": (link(PROVENANCE_FILE), "no plain file"),
    "a folder for a file": (folder_for_file, "manifest is no plain file"),
    "half a provenance": (truncate(PROVENANCE_FILE), "no DSSE envelope"),
    "half a bill": (truncate(CYCLONEDX), f"{CYCLONEDX} is not what"),
    "a stranger's provenance": (
        sign_again(PROVENANCE_FILE, lambda ground: ground.stranger),
        "did not sign this",
    ),
    "a stranger's test": (sign_again(TEST_FILE, lambda ground: ground.stranger), TEST_FILE),
    "another guest's provenance": (of_another_guest, "is missing"),
    "a provenance for a test": (sign_for_proven, f"{TEST_FILE} is not what"),
    "another payload type": (
        in_envelope(PROVENANCE_FILE, lambda one: one.update(payloadType="text/plain")),
        "its signature is not of what it says",
    ),
    "no signature": (
        in_envelope(PROVENANCE_FILE, lambda one: one.update(signatures=[])),
        "nobody did",
    ),
    "a key more": (in_envelope(PROVENANCE_FILE, lambda one: one.update(more=1)), PROVENANCE_FILE),
    "another digest": (in_statement(PROVENANCE_FILE, raise_case), "its signature is not of"),
    **{name: (by_the_house(file, edit), words) for name, (file, edit, words) in SIGNED.items()},
}


def test_what_nobody_has_changed_is_verified(ground: Ground) -> None:
    verified = verify_version(ground.copy(), ground.key)
    assert verified.proof == "proven, 1 checks"
    assert len(SEEDS) >= 30


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_changed_is_found(ground: Ground, seed: str) -> None:
    change, words = SEEDS[seed]
    folder = ground.copy()
    change(folder, ground)
    with pytest.raises(VerificationError) as caught:
        verify_version(folder, ground.key)
    assert words in caught.value.brief, caught.value.brief
    assert caught.value.hint
