"""What a repository says of a guest: enough to make it elsewhere, and nothing secret."""

import json

import pytest

from pipeline.errors import PipelineError, VerificationError
from pipeline.repository import catalog
from pipeline.repository.catalog import Index, Manifest
from pipeline.repository.export import portable_spec
from pipeline.spec import Spec
from tests.replicated import make_node
from tests.unit.test_ssh_keys import ed25519_line

HASH = "$6$saltsalt$" + "x" * 86
KEY = ed25519_line()
VERSION = "20261129T182020Z-311f5afc"


def spec_of(**keys: object) -> dict[str, object]:
    """As spec.json of an artifact has it."""
    return Spec.model_validate({"name": "web1", "suite": "bookworm", **keys}).as_json()


def test_secrets_and_the_builders_own_places_stay_where_they_are() -> None:
    kept = portable_spec(
        spec_of(
            root_password_hash=HASH,
            root_password_file="secrets/web1",
            lvm="VG0",
            authorized_keys=[KEY],
            address=["10.0.0.2/24"],
        )
    )
    text = json.dumps(kept)
    for word in ("password", "sha256:", "secrets/web1", "VG0", "clone"):
        assert word not in text
    again = Spec.model_validate(kept)
    assert again.authorized_keys == (KEY,)
    assert [str(card.addresses[0]) for card in again.cards] == ["10.0.0.2/24"]


def test_a_second_card_and_partitions_are_read_again() -> None:
    cards = [{"bridge": "br-db", "address": ["10.1.1.1/24"]}]
    parts = [{"name": "root", "size": "2G", "mountpoint": "/"}]
    kept = portable_spec(spec_of(interfaces=cards, partitions=parts))
    again = Spec.model_validate(kept)
    assert [card.device.bridge for card in again.cards] == ["br-xen", "br-db"]
    assert [part.name for part in again.partitions] == ["root"]


def test_a_node_of_a_replicated_disk_is_not_served() -> None:
    with pytest.raises(PipelineError, match="share a secret"):
        portable_spec(make_node().as_json())


@pytest.mark.parametrize(
    "keys",
    [
        {"fs": "xfs"},
        {"fs": "btrfs"},
        {"authorized_keys": ["/gone/key.pub"]},
        {"type": "hvm", "boot": "firmware", "cloud_init": True, "seed": {}},
    ],
    ids=str,
)
def test_what_cannot_be_made_elsewhere_is_not_served(keys: dict[str, object]) -> None:
    with pytest.raises(PipelineError):
        portable_spec(spec_of(**keys))


MANIFEST = {
    "form": 1,
    "guest": "web1",
    "version": VERSION,
    "proof": "proven",
    "epoch": 1,
    "spec": {},
    "origin": {},
    "images": {"golden.img": {"size": 5, "digest": "sha256:" + "a" * 64, "deltas": {}}},
    "files": {"vmlinuz": "sha256:" + "b" * 64},
    "packed": 5,
}


def test_a_manifest_is_read_as_it_was_written() -> None:
    manifest = catalog.read(Manifest, json.dumps(MANIFEST).encode(), source="here")
    assert catalog.read(Manifest, manifest.to_bytes(), source="here") == manifest
    newer = json.dumps({**MANIFEST, "more": 1}).encode()
    assert catalog.read(Manifest, newer, source="here") == manifest


@pytest.mark.parametrize(
    "change",
    [
        {"form": 2},
        {"guest": "../web1"},
        {"version": "../x"},
        {"packed": -1},
        {"packed": "5"},
        {"files": {"../vmlinuz": "sha256:" + "b" * 64}},
        {"files": {"vmlinuz": "../" + "b" * 64}},
        {"images": {"golden/../../x.img": MANIFEST["images"]}},
        {"images": {"golden.img": {"size": 1 << 60, "digest": "sha256:" + "a" * 64}}},
    ],
    ids=str,
)
def test_what_was_signed_is_checked_all_the_same(change: dict[str, object]) -> None:
    content = json.dumps({**MANIFEST, **change}).encode()
    with pytest.raises(VerificationError, match="nothing that is understood here"):
        catalog.read(Manifest, content, source="here")


def test_an_index_of_nonsense_is_refused() -> None:
    for content in (b"", b"[]", b'{"guests": {"web1": {}}}', b"\xff", b'{"guests": {"..": {}}}'):
        with pytest.raises(VerificationError):
            catalog.read(Index, content, source="here")
