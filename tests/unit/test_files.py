"""Fingerprints, digests and durable writes."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.files import (
    canonical_json,
    digest_file,
    digest_tree,
    fingerprint,
    flatten,
    read_bytes,
    write_durably,
)
from pipeline.scratch import remove_dead_parts


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.text())))
def test_the_order_of_keys_does_not_change_a_fingerprint(table: dict[str, object]) -> None:
    backwards = dict(reversed(list(table.items())))
    assert fingerprint(table) == fingerprint(backwards)


def test_canonical_json_has_no_spaces_and_keeps_umlauts() -> None:
    assert canonical_json({"b": 1, "a": "ä"}) == '{"a":"ä","b":1}'.encode()


def test_a_file_with_holes_has_the_digest_of_its_zeros(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    content = bytearray(5 << 20)
    content[3 << 20 : (3 << 20) + 5] = b"hello"
    with open(path, "wb") as stream:
        stream.truncate(len(content))
        stream.seek(3 << 20)
        stream.write(b"hello")
    assert path.stat().st_blocks * 512 < len(content)
    assert digest_file(path) == hashlib.sha256(content).hexdigest()


def test_an_empty_file_has_the_digest_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert digest_file(tmp_path / "empty") == hashlib.sha256().hexdigest()


def test_a_tree_digest_sees_content_mode_and_link_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    (tmp_path / "link").symlink_to("file")
    before = digest_tree(tmp_path)
    (tmp_path / "file").chmod(0o755)
    executable = digest_tree(tmp_path)
    (tmp_path / "file").write_text("two")
    changed = digest_tree(tmp_path)
    assert before["file"] != executable["file"] != changed["file"]
    assert before["link"] == "link file"


def test_flatten_names_the_way_to_each_value() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a: b: c": 1, "d": 2}


def test_a_durable_write_replaces_and_leaves_no_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_durably(path, b"new", mode=0o600)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_durable_write_is_nobodys_leftover_while_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build beside `doit gc` ended in a traceback when both were at .taken at once."""
    sync = os.fsync

    def sync_beside_a_collection(descriptor: int) -> None:
        sync(descriptor)
        assert remove_dead_parts(tmp_path) == []

    monkeypatch.setattr(os, "fsync", sync_beside_a_collection)
    write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    (tmp_path / ".file.1.a").touch()
    assert remove_dead_parts(tmp_path) == [tmp_path / ".file.1.a"]


def test_a_setting_of_the_kernels_is_a_plain_file() -> None:
    assert read_bytes(Path("/proc/sys/kernel/ostype")) == b"Linux\n"
