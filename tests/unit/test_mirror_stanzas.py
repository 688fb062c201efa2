"""Stanzas are read into fields strictly, and large files are searched for those that are wanted."""

from pathlib import Path

import pytest

from pipeline.mirror.apt_sources import installed_version
from pipeline.mirror.stanzas import (
    find_lines,
    find_stanzas,
    read_fields,
    read_stanzas,
    select_stanzas,
    split_stanzas,
)

INDEX = b"""Package: a
Version: 1
Provides: mail, http

Package: ab
Depends: a
Description: Package: a

Package: a
Version: 2"""


def test_a_stanza_is_fields_by_name_and_lines() -> None:
    text = "# a comment\nPackage:  a \nSHA256:\n 1 x\n\t2 y\nDepends: b,\n c"
    assert read_fields(text) == {"package": "a", "sha256": "\n1 x\n2 y", "depends": "b,\nc"}
    assert read_fields(b"Package: \xff") == {"package": "\N{REPLACEMENT CHARACTER}"}


@pytest.mark.parametrize("text", ["no field", ": x", "A: 1\na: 2"])
def test_what_is_no_field_or_twice_there_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="line"):
        read_fields(text)


def test_stanzas_are_apart_by_blank_lines_of_any_kind() -> None:
    text = "\n\nA: 1\r\n\r\n# only a comment\n \t\nA: 2\n\n\n\nA: 3\n"
    assert [one["a"] for one in read_stanzas(text)] == ["1", "2", "3"]
    assert not list(read_stanzas(""))


@pytest.mark.parametrize("before", [b"", b"\n\n"])
def test_an_index_is_searched_from_its_first_stanza_to_its_last(before: bytes) -> None:
    text = before + INDEX
    found = list(find_stanzas(text, "a"))
    assert [read_fields(one)["version"] for one in found] == ["1", "2"]
    assert [one.partition(b"\n")[0] for one in find_stanzas(text, "a", field="Depends")] == [
        b"Package: ab"
    ]
    assert not list(find_stanzas(text, "b"))
    assert list(select_stanzas(text, {"a", "c"})) == found
    assert len(split_stanzas(text + b"\n\n\n")) == 3
    assert list(find_lines(text, b"Provides: ")) == [(b"a", b"mail, http")]


def test_only_what_is_installed_has_a_version(tmp_path: Path) -> None:
    status = tmp_path / "status"
    state = "Package: apt\nStatus: install ok installed\nVersion: 2.6\n\n"
    status.write_text(f"{state}Package: old\nStatus: deinstall ok config-files\nVersion: 1\n")
    assert installed_version("apt", status) == "2.6"
    assert installed_version("old", status) == installed_version("none", status) == ""
    assert installed_version("apt", tmp_path / "absent") == ""
