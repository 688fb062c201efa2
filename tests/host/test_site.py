"""A user's own folder as they work in it: specs that are broken, what is deleted, where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.program import Ground

pytestmark = pytest.mark.integration

GUEST = "one"


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground.make(tmp_path / "ground", GUEST, "two")


def test_a_broken_spec_is_listed_and_stops_itself_alone(ground: Ground) -> None:
    (ground.root / "guests/bad.toml").write_text('suit = "bookworm"\n')
    code, said = ground.run("guests")
    assert code == 0, said
    assert "  bad  BROKEN: suit: no such key (did you mean 'suite')\n" in said
    code, said = ground.run("build", f"name={GUEST}")
    assert code == 0, said
    assert "warning: guests/bad.toml: broken, and not compared with one" in said
    code, said = ground.run("build", "name=bad")
    assert code == 2, said
    assert (ground.output / "guests/one").is_dir()
    code, said = ground.run("build")
    assert code == 2, said
    assert (ground.output / "guests/two/disk.img").is_file()
    assert said.count("error: ") == 1
    assert said.index("two is ready") < said.index("error: guests/bad.toml: suit: no such key")
    code, said = ground.run("create", "name=three", "size=256M")
    assert code == 0, said
    for word in ("list", "why", "gc"):
        assert ground.run(word)[0] == (2 if word == "why" else 0)
