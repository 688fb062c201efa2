"""What is said before a proof: another spec than the artifact's, a key that does not fit."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pipeline.errors import PipelineError, UsageError
from pipeline.project import Project
from pipeline.proof.readiness import choose_spec, find_changes, refuse_wrong_key
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stage import Stage
from tests.specs import make_spec

KEY = Ed25519PrivateKey.generate()


def written(key: Ed25519PrivateKey, lock: KeySerializationEncryption | None = None) -> bytes:
    # a locked OpenSSH key would want bcrypt of whoever writes it
    form = PrivateFormat.PKCS8 if lock else PrivateFormat.OpenSSH
    return key.private_bytes(Encoding.PEM, form, lock or NoEncryption())


def opened_by(key: Ed25519PrivateKey) -> Spec:
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return make_spec(authorized_keys=(f"{line} me",))


def test_an_artifact_of_the_same_spec_has_no_changes() -> None:
    spec = make_spec()
    assert find_changes(spec.as_json(), spec) == []


def test_every_other_value_is_named_before_and_now() -> None:
    before = make_spec(size="4G").as_json()
    now = make_spec(size="8G", packages=("vim",))
    assert find_changes(before, now) == ["packages: +vim", "size: 4G -> 8G"]


def test_a_key_of_the_spec_that_was_not_there_yet_had_its_default() -> None:
    spec = make_spec()
    before = {key: value for key, value in spec.as_json().items() if key != "vnc"}
    assert find_changes(before, spec) == []


def test_another_description_or_bootstrap_makes_no_other_artifact() -> None:
    before = make_spec().as_json()
    now = make_spec(description="new", bootstrap="debootstrap")
    assert find_changes(before, now) == []


def test_a_recorded_spec_is_read_back(tmp_path: Path) -> None:
    spec = make_spec(packages=("vim",), root_password_hash="$6$salt$abc", vnc=True)
    (tmp_path / "guests/web1").mkdir(parents=True)
    (tmp_path / "guests/web1/spec.json").write_text(json.dumps(spec.as_json()))
    recipe = Recipe(Project(tmp_path, tmp_path, tmp_path), ())

    read = choose_spec(recipe, make_spec(suite="trixie"), as_is=True)

    differing = {key for key in Spec.model_fields if getattr(read, key) != getattr(spec, key)}
    assert differing == {"root_password_hash", "root_password_file"}
    assert read.root_password_file == "-"


def test_a_host_that_knows_no_mirror_proves_all_the_same(tmp_path: Path) -> None:
    def ask_sources(_spec: object, _project: object) -> dict[str, object]:
        raise PipelineError("no debian archive among this machine's apt sources")

    spec = make_spec()
    (tmp_path / "guests/web1").mkdir(parents=True)
    (tmp_path / "guests/web1/spec.json").write_text(json.dumps(spec.as_json()))
    mirror = Stage("mirror", "packages", lambda _job: None, 1, inputs=ask_sources)
    recipe = Recipe(Project(tmp_path, tmp_path, tmp_path), (mirror,))

    assert choose_spec(recipe, spec, as_is=False) is spec


def test_a_key_that_opens_the_guest_is_taken() -> None:
    refuse_wrong_key(opened_by(KEY), written(KEY), Path("key"))


def test_a_stranger_s_key_is_refused_before_anything_boots() -> None:
    with pytest.raises(UsageError, match=r"key: this key does not open web1 \(its only key"):
        refuse_wrong_key(opened_by(KEY), written(Ed25519PrivateKey.generate()), Path("key"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (written(KEY, BestAvailableEncryption(b"secret")), "has a passphrase"),
        (b"ssh-ed25519 AAAA me\n", "is a public key"),
        (b"127.0.0.1 localhost\n", "is no private SSH key"),
    ],
    ids=["locked", "public", "something else"],
)
def test_what_is_no_usable_private_key_is_told(content: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        refuse_wrong_key(opened_by(KEY), content, Path("key"))
