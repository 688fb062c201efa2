"""nightly.toml: what it may say, and that every mistake has its key and a way out."""

from pathlib import Path

import pytest

from pipeline.errors import PipelineError, SpecError, UsageError
from pipeline.night.nightly_file import EXAMPLE, NightlyFile, read_nightly_file
from tests.unit.test_docs_commands import ROOT

WRONG = {
    "": ("guests", "is missing"),
    'guests = "web1"': ("guests", "no list of guests"),
    "guests = []": ("guests", "no list of guests"),
    'guests = ["a/b"]': ("guests.0", "cannot be a guest's name"),
    "guests = [1]": ("guests.0", "not a text"),
    'guests = "all"\nkepe = 3': ("kepe", "no such key"),
    'guests = "all"\nlimit = "6x"': ("limit", "not a time"),
    'guests = "all"\nkeep = 0': ("keep", "greater than or equal to 1"),
    'guests = "all"\nkeep_reports = 30': ("keep_reports", "greater than or equal to 31"),
    'guests = "all"\nkeep_size = "4X"': ("keep_size", "not a size"),
    'guests = "all"\nstable_after = -1': ("stable_after", "greater than or equal to 0"),
    'guests = "all"\nunproven = "yes"': ("unproven", "neither true nor false"),
    'guests = "all"\nscan = "~nobody-of-this-name/x"': ("scan", "no path here"),
    'guests = "all"\nnotify = "mail"': ("notify", "not a list"),
    'guests = "all"\nnotify = []': ("notify", "at least 1"),
    'guests = "all"\nnotify = ["a\\u0007b"]': ("notify.0", "printable"),
    'guests = "all"\nguest.web1.kep = 3': ("guest.web1.kep", "no such key"),
    'guests = "all"\nguest.web1.limit = "6h"': ("guest.web1.limit", "no such key"),
    'guests = "all"\n[guest."../x"]': ("guest.../x", "cannot be a guest's name"),
    "guests": ("", "not TOML"),
}


def write(folder: Path, text: str) -> Path:
    path = folder / "nightly.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text.splitlines()[-1] if text else "empty")
def test_a_mistake_is_named_with_its_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_nightly_file(write(tmp_path, text))
    (problem, *_more) = caught.value.problems
    assert (problem.subject, WRONG[text][1] in problem.message) == (WRONG[text][0], True), problem
    assert problem.source == f"{tmp_path.name}/nightly.toml"


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there") as caught:
        read_nightly_file(tmp_path / "nightly.toml")
    assert 'guests = "all"' in caught.value.details
    (tmp_path / "nightly.toml").mkdir()
    with pytest.raises(PipelineError):
        read_nightly_file(tmp_path / "nightly.toml")


def test_a_guests_own_terms_win(tmp_path: Path) -> None:
    text = f'{EXAMPLE}keep_size = "2G"\n[guest.web1]\nkeep = 14\nunproven = true\n'
    file = read_nightly_file(write(tmp_path, text))
    own, general = file.terms_of("web1"), file.terms_of("db1")
    assert (own.keep, own.unproven, own.stable_after) == (14, True, 3)
    assert (general.keep, general.unproven, general.keep_bytes) == (7, False, 2 << 30)


def test_paths_are_meant_from_its_folder(tmp_path: Path) -> None:
    text = 'guests = "all"\nnotify = ["./tell", "./me"]\n'
    assert read_nightly_file(write(tmp_path, text)).notify == (f"{tmp_path}/tell", "./me")
    file = read_nightly_file(write(tmp_path, 'guests = "all"\npassphrase_file = "../a b"\n'))
    assert file.passphrase == tmp_path.parent / "a b"
    text = 'guests = "all"\nnotify = ["mail"]\n'
    assert read_nightly_file(write(tmp_path, text)).notify == ("mail",)


def test_guests_are_made_in_the_order_of_the_file() -> None:
    file = NightlyFile.model_validate({"guests": ["b", "a", "b"]})
    assert file.choose(["a", "b", "c"]) == ("b", "a")
    assert file.choose(["a", "b", "c"], ["a"]) == ("a",)
    assert NightlyFile.model_validate({"guests": "all"}).choose(["a", "b"]) == ("a", "b")
    with pytest.raises(UsageError) as caught:
        file.choose(["a", "b", "c"], ["c"])
    assert "b, a" in caught.value.hint


def test_the_page_has_every_key() -> None:
    page = (ROOT / "docs/reference/nightly.md").read_text()
    undocumented = {"guest"}
    assert not [
        key
        for key in NightlyFile.model_fields
        if f"| `{key}` |" not in page and key not in undocumented
    ]
