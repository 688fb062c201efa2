"""doit dom0: a host's files changed as one, taken back exactly, killed at every change."""

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from pipeline.dom0.setup.host_change import (
    HOST,
    apply_change,
    changing_host,
    host_site,
    list_changes,
    read_settings,
    require_last,
    undo_change,
)
from pipeline.dom0.setup.host_plan import plan_change
from pipeline.dom0.setup.host_settings import HostSettings, Lvm
from pipeline.errors import PipelineError, UsageError, VerificationError
from pipeline.files import Damaged
from pipeline.storage.transaction import list_unfinished, recover_all
from tests.conftest import ROOT, require
from tests.host.host_bench import TRIAL, HostBench
from tests.host.kill_points import SURVIVED, run_and_kill
from tests.turns import spread

pytestmark = pytest.mark.integration
MOST_STEPS = 500


def settings(*groups: str) -> HostSettings:
    return HostSettings(lvm=Lvm(groups=groups))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostBench:
    return HostBench(tmp_path / "root", monkeypatch, TRIAL)


def apply(bench: HostBench, *groups: str) -> None:
    with changing_host(bench.layout):
        plan, _ = plan_change(bench.layout, settings(*groups))
        if plan.files:
            apply_change(bench.layout, plan)


def undo(bench: HostBench, *, replaces: bool = False) -> None:
    with changing_host(bench.layout):
        undo_change(bench.layout, require_last(bench.layout), replaces=replaces)


def test_a_change_is_made_and_taken_back_to_the_byte(bench: HostBench) -> None:
    old = bench.look()
    apply(bench, "VG0")
    trial = bench.root / "etc/trial"
    assert (trial / "changed").read_bytes() == b"\xff\xfeforeign bytes\ngroups=VG0\n"
    status = (trial / "changed").stat()
    was = old["etc/trial/changed"]
    assert (status.st_mode, (status.st_uid, status.st_gid)) == was[:2]
    assert os.getxattr(trial / "changed", "user.domu-test") == b"etc/trial/changed"
    assert status.st_mtime_ns != was[2]
    assert (trial / "new.d/deep/made").stat().st_mode & 0o777 == 0o640
    assert os.readlink(trial / "link") == "/run/elsewhere"
    assert not (trial / "was-link").is_symlink()
    assert not (trial / "removed").exists()
    assert bench.look()["etc/trial/as-it-is"] == old["etc/trial/as-it-is"]
    assert read_settings(bench.layout) == settings("VG0")
    assert (bench.layout.state / HOST).stat().st_mode & 0o777 == 0o700
    undo(bench)
    assert bench.look() == old
    assert not (bench.root / "var/lib/domu").exists()


def test_every_setting_is_read_back_as_it_was(bench: HostBench) -> None:
    """The page's example, and tables with nothing in them."""
    lines = (ROOT / "docs/reference/dom0-toml.md").read_text().splitlines()
    page = tomllib.loads("\n".join(line[4:] for line in lines if line.startswith("    ")))
    empty: dict[str, object] = {
        "bridge": {"br0": {}},
        "boot": {},
        "guests": {},
        "lvm": {},
        "migration": {},
    }
    for table in (page, empty):
        wanted = HostSettings.model_validate(table)
        with changing_host(bench.layout):
            plan, _ = plan_change(bench.layout, wanted)
            apply_change(bench.layout, plan)
        assert read_settings(bench.layout) == wanted


def test_changes_are_taken_back_one_by_one(bench: HostBench) -> None:
    stands, steps = [bench.look()], ("VG0", "VG1", "VG2")
    for group in steps:
        apply(bench, group)
        stands.append(bench.look())
        apply(bench, group)
        assert bench.look() == stands[-1], "applied again there is nothing to do"
    assert [change.number for change in list_changes(bench.layout)] == [1, 2, 3]
    for group, stand in zip(["VG1", "VG0", ""], reversed(stands[:-1]), strict=True):
        undo(bench)
        assert bench.look() == stand
        assert read_settings(bench.layout) == (settings(group) if group else HostSettings())
    with pytest.raises(UsageError, match="nothing was changed"):
        require_last(bench.layout)


def test_a_refusal_of_a_reader_changes_nothing(bench: HostBench) -> None:
    old = bench.look()
    with pytest.raises(VerificationError, match="its reader refuses it"):
        apply(bench, "wrong")
    assert bench.look() == old
    assert not (bench.root / "var/lib/domu").exists()


def test_a_file_that_somebody_else_changed_is_not_lost(bench: HostBench) -> None:
    old = bench.look()
    apply(bench, "VG0")
    (bench.root / "etc/trial/changed").write_text("edited since\n")
    (bench.root / "etc/trial/link").unlink()
    (bench.root / "etc/trial/link").symlink_to("another")
    edited = bench.look()
    with pytest.raises(VerificationError, match="/etc/trial/changed was changed since") as caught:
        undo(bench)
    assert caught.value.details == "/etc/trial/link"
    assert bench.look() == edited
    undo(bench, replaces=True)
    assert bench.look() == old
    kept = bench.layout.state / HOST / "kept/etc/trial/changed"
    assert kept.read_text() == "edited since\n"


def test_an_edit_is_part_of_what_the_next_change_finds(bench: HostBench) -> None:
    apply(bench, "VG0")
    with open(bench.root / "etc/trial/changed", "a") as stream:
        stream.write("an administrator's line\n")
    edited = bench.look()
    apply(bench, "VG1")
    assert b"an administrator's line" in (bench.root / "etc/trial/changed").read_bytes()
    undo(bench)
    assert bench.look() == edited


@pytest.mark.parametrize("kind", ["folder", "FIFO", "a mount's folder"])
def test_what_is_no_file_is_refused(bench: HostBench, kind: str) -> None:
    path = bench.root / "etc/trial/removed"
    path.unlink()
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()
    old = bench.look()
    with pytest.raises(Damaged, match="is no plain file"):
        apply(bench, "VG0")
    assert bench.look() == old


def test_an_immutable_file_is_refused_before_anything_changes(bench: HostBench) -> None:
    path = bench.root / "etc/trial/was-link"
    path.unlink()
    path.write_text("a file")
    made = subprocess.run(["chattr", "+i", path], capture_output=True, check=False)
    require(made.returncode == 0, "this file system or user has no immutable files")
    try:
        old = bench.look()
        with pytest.raises(PipelineError, match="was-link cannot be changed"):
            apply(bench, "VG0")
        assert bench.look() == old
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.mark.parametrize("word", spread(["apply", "second", "undo", "replace"], 4))
def test_killed_at_every_change_it_is_the_old_host_or_the_new(
    bench: HostBench, tmp_path: Path, word: str
) -> None:
    """And the next command ends what was begun: no file is left between."""
    if word != "apply":
        apply(bench, "VG0")
    if word == "replace":
        (bench.root / "etc/trial/changed").write_text("edited since\n")
    old, before = bench.look(times=False), tmp_path / "before"
    subprocess.run(["cp", "-a", bench.root, before], check=True)

    def action() -> None:
        if word in ("undo", "replace"):
            undo(bench, replaces=word == "replace")
        else:
            apply(bench, "VG1")

    action()
    new = bench.look(times=False)
    exact = bench.look() if word in ("undo", "replace") else None
    ended, count = {"old": 0, "new": 0}, 0
    for at in range(1, MOST_STEPS):
        subprocess.run(["rm", "-rf", bench.root], check=True)
        subprocess.run(["cp", "-a", before, bench.root], check=True)
        status = run_and_kill(action, at)
        if status == SURVIVED:
            break
        assert status == -9, f"step {at}: ended with {status}"
        count += 1
        recover_all(host_site(bench.layout, []))
        assert list_unfinished(host_site(bench.layout, [])) in ([], [HOST])
        seen = bench.look(times=False)
        assert seen in (old, new), f"step {at}: {set(seen.items()) ^ set(new.items())}"
        ended["old" if seen == old else "new"] += 1
        if seen == new and exact is not None:
            assert bench.look() == exact, f"step {at}: times"
        if word == "replace" and seen == new:
            (kept,) = (bench.layout.state / HOST / "kept/etc/trial").iterdir()
            assert kept.read_text() == "edited since\n"
        if seen == old and at % 5 == 0:
            action()
            assert bench.look(times=False) == new, f"step {at}: the same command again"
    print(f"{count} kills: {ended}")
    assert count > 20
    assert min(ended.values()) > 3


FORGED = {
    "another file": {"kind": "host-file", "path": "/etc/shadow", "source": "0001/old/0"},
    "a way out": {"kind": "host-file", "path": "/etc/trial/../shadow", "source": ""},
    "another source": {
        "kind": "host-file",
        "path": "/etc/trial/x",
        "source": "../../../etc/passwd",
    },
    "another folder": {"kind": "host-folder", "path": "/root", "what": "drop"},
    "another time": {"kind": "host-time", "path": "/etc/shadow", "source": "0001/old/0"},
    "a command": {"kind": "host-after", "change": "../0001", "to": "new"},
    "a tree": {"kind": "remove-tree", "path": "/etc"},
}


@pytest.mark.parametrize("step", FORGED.values(), ids=FORGED)
def test_a_forged_journal_changes_nothing(bench: HostBench, step: dict[str, str]) -> None:
    if step["kind"] == "host-file":
        step = {**step, "was": "", "becomes": "x"}
    apply(bench, "VG0")
    path = bench.layout.state / HOST / f"{HOST}.journal"
    table = {"word": "set-up", "phase": "committed", "undo": [], "finish": [step]}
    path.write_text(json.dumps(table))
    old = bench.look()
    (told,) = recover_all(host_site(bench.layout, []))
    assert "not a journal of doit's" in told
    assert bench.look() == old
    assert path.exists()


@pytest.mark.parametrize("text", ["{}", "[", '{"number": 1}', '{"number": "1", "files": []}'])
def test_a_change_that_we_never_wrote_is_refused(bench: HostBench, text: str) -> None:
    apply(bench, "VG0")
    (bench.layout.state / HOST / "changes/0001/change.json").write_text(text)
    with pytest.raises(Damaged, match="is not a change of the host"):
        list_changes(bench.layout)
