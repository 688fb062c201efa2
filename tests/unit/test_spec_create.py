"""New specs written from the command line, and the documents generated from the model."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SpecError, UsageError
from pipeline.spec import Spec, draft_spec, load_guest
from pipeline.spec.layers import Layer
from pipeline.spec.load import render_spec
from pipeline.spec.schema import documents

ROOT = Path(__file__).resolve().parents[2]


def test_a_created_spec_loads_as_what_was_asked_for(guests: Path) -> None:
    (guests / "defaults.toml").write_text('swap = "1G"\n')
    asked = {"dist": "trixie", "size": "8G", "dhcp": "", "packages": "vim,less", "vcpus": "2"}
    path = draft_spec("web1", {**asked, "description": 'a "quoted" \\ text'}, guests).write()
    assert path == guests / "web1.toml"
    spec = load_guest("web1", guests_dir=guests)
    assert (spec.suite, spec.size, spec.packages) == ("trixie", "8G", ("vim", "less"))
    assert spec.description == 'a "quoted" \\ text'
    assert spec.swap == "1G"
    assert "swap" not in path.read_text()


def test_a_created_spec_names_the_schema_for_editors(guests: Path) -> None:
    for place in ("", "docs", "."):
        (guests.parent / place).mkdir(exist_ok=True)
        if place:
            (guests.parent / place / "spec.schema.json").touch()
        name = f"web{place.count('.')}{len(place)}"
        path = draft_spec(name, {"size": "8G"}, guests).write()
        first = path.read_text().splitlines()[0]
        assert first.startswith("#:schema ")
        named = path.parent / first.removeprefix("#:schema ")
        assert named.is_file()
        assert named.resolve().parent == (guests.parent / place if place else ROOT / "docs")


def test_a_spec_that_would_be_wrong_is_not_written(guests: Path) -> None:
    with pytest.raises(SpecError):
        draft_spec("web1", {"size": "4X", "sutie": "sid"}, guests)
    assert list(guests.iterdir()) == []


def test_an_existing_spec_is_never_overwritten(guests: Path) -> None:
    path = guests / "web1.toml"
    path.write_text("# mine\n")
    with pytest.raises(UsageError, match="exists already"):
        draft_spec("web1", {"size": "8G"}, guests)
    assert path.read_text() == "# mine\n"


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc"))))
def test_any_text_that_is_written_reads_back_the_same(text: str) -> None:
    layer = Layer("command line", Path("/"), {"description": text, "packages": [text, "b"]})
    read = tomllib.loads(render_spec("web1", layer))
    assert read == {"description": text, "packages": [text, "b"]}


def test_the_schema_knows_every_key_and_no_other() -> None:
    schema = json.loads(documents()["spec.schema.json"])
    assert set(schema["properties"]) == set(Spec.model_fields)
    assert schema["additionalProperties"] is False
    assert all(part["description"] for part in schema["properties"].values())


def test_the_reference_explains_every_key() -> None:
    reference = documents()["reference/spec.md"]
    assert all(f"| `{key}` |" in reference for key in Spec.model_fields)


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_generated_documents_are_current(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == documents()[name], "python -m pipeline.spec.schema --write"
