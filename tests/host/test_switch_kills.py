"""A build's switch, killed at every single step: the old folder is the guest's, or the new one.

Without volumes: those are renamed in tests/lvm. The journals of earlier versions are read too.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from pipeline import process
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.layout import Layout
from pipeline.errors import PipelineError
from pipeline.files import digest_file
from pipeline.project import Project
from pipeline.storage import switch
from pipeline.storage.transaction import list_unfinished, recover_all
from tests.host.kill_points import SURVIVED, run_and_kill

pytestmark = pytest.mark.integration
NAME = "web1"
JOURNALS = Path(__file__).with_name("old") / "journals.json"


def make_folder(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "buildinfo.json").write_text(json.dumps({"version": version}))
    (folder / "web1.cfg").write_text(version)
    return folder


def version_of(project: Project) -> str:
    """The artifact's version, both of its files are of one."""
    folder = project.artifact(NAME)
    (version,) = {
        json.loads((folder / "buildinfo.json").read_text())["version"],
        (folder / "web1.cfg").read_text(),
    }
    return str(version)


class Done:
    """A program that has ended well."""

    def wait(self) -> int:
        return 0


def switch_here(project: Project, scratch: Path) -> None:
    """The switch with its own process's work done in this one, so that all of it is killed."""

    def carry_out(argv: list[str], **_options: object) -> Done:
        switch.main(*argv[3:])
        return Done()

    process.start_daemon = carry_out  # type: ignore[assignment]
    folder = (scratch, project.artifact(NAME))
    switch._switch(project, NAME, [], scratch.with_name("log"), folder=folder)


def test_a_switch_is_undone_or_finished_whenever_it_was_killed(tmp_path: Path) -> None:
    ended = {"1": 0, "2": 0}
    for at in range(1, 200):
        root = tmp_path / str(at)
        project = Project(root, root / "output", root / "guests")
        make_folder(project.artifact(NAME), "1")
        scratch = make_folder(root / "output/scratch/new", "2")
        status = run_and_kill(partial(switch_here, project, scratch), at)
        if status == SURVIVED:
            break
        assert status == -9, f"step {at}: ended with {status}"
        switch.finish_switches(project)
        assert not list_unfinished(switch.site_of(project.output)), f"step {at}"
        left = [path for path in (project.output / "switches").rglob("*") if not path.is_dir()]
        assert not left, f"step {at}"
        ended[version_of(project)] += 1
        shutil.rmtree(root)
    assert version_of(project) == "2"
    print(f"{at - 1} kills: {ended['1']} times the old guest, {ended['2']} times the new one")
    assert ended["1"] > 5 and ended["2"] > 5


@pytest.mark.parametrize("done", ["nothing", "exchanged", "no guest before"])
def test_a_switch_of_an_earlier_version_is_finished(tmp_path: Path, done: str) -> None:
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    final, waiting = project.artifact(NAME), project.output / "switches" / NAME / "folder"
    if done != "no guest before":
        make_folder(waiting if done == "exchanged" else final, "1")
    new = make_folder(final if done == "exchanged" else waiting, "2")
    final.parent.mkdir(parents=True, exist_ok=True)
    journal = {
        "guest": NAME,
        "waiting": str(waiting),
        "final": str(final),
        "buildinfo": digest_file(new / "buildinfo.json"),
        "volumes": [],
    }
    (waiting.parent / "switch.json").write_text(json.dumps(journal))
    assert switch.finish_switches(project) == [f"switch of {NAME}: finished"]
    assert version_of(project) == "2"
    assert not (project.output / "switches").exists()


@pytest.mark.parametrize("key", ["waiting", "final"])
def test_a_switch_moves_nothing_but_the_guests_own_folders(tmp_path: Path, key: str) -> None:
    project = Project(tmp_path, tmp_path / "output", tmp_path / "guests")
    place = project.output / "switches" / NAME
    journal = {
        "guest": NAME,
        "waiting": str(place / "folder"),
        "final": str(project.artifact(NAME)),
        "buildinfo": "",
        "volumes": [],
    }
    foreign = make_folder(tmp_path / "foreign", "3")
    make_folder(place / "folder", "2")
    (place / "switch.json").write_text(json.dumps({**journal, key: str(foreign)}))
    with pytest.raises(PipelineError, match="exchange of"):
        switch.finish_switch(project, NAME)
    assert (foreign / "web1.cfg").read_text() == "3"


def old_journals() -> dict[str, dict[str, object]]:
    """Journals as the version before wrote them, when it was killed; ROOT is the host's folder."""
    return dict(json.loads(JOURNALS.read_text()))


@pytest.mark.parametrize("name", old_journals())
def test_a_journal_of_an_earlier_version_is_undone_or_finished(tmp_path: Path, name: str) -> None:
    layout = Layout(tmp_path)
    journal = layout.state / "journal" / f"{NAME}.json"
    journal.parent.mkdir(parents=True)
    text = json.dumps(old_journals()[name]).replace("ROOT", str(tmp_path))
    journal.write_text(text)
    table = json.loads(text)
    steps = table["finish"] if table["phase"] == "committed" else table["undo"]
    for step in steps:
        for path in (Path(step[key]) for key in ("source", "path") if key in step):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not step["kind"].startswith("remove-"):
                path.write_text(step["kind"] if path == Path(step["path"]) else "new")
    ended = "finished" if table["phase"] == "committed" else "undone"
    assert recover_all(site_of(layout)) == [f"{table['word']} of {NAME}: {ended}"]
    removed = {step["path"] for step in steps if step["kind"].startswith("remove")}
    for step in steps:
        if step["kind"] == "rename":
            assert not Path(step["source"]).exists()
            if step["path"] not in removed:
                assert Path(step["path"]).read_text() == "new"
    assert not [path for path in removed if Path(path).exists()]
    assert not list_unfinished(site_of(layout))
