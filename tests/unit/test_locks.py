"""Locks: held by one process at a time, and only while their file is in its place."""

import os
from pathlib import Path

import pytest

from pipeline import locks
from pipeline.errors import EnvironmentFault, InUseError, PipelineError


def hold_elsewhere(path: Path) -> int:
    """A lock of another open file, which flock(2) treats as that of another process."""
    return locks.make_locked(path, 0o600)


def test_a_lock_is_waited_for_and_that_is_told(tmp_path: Path) -> None:
    path, told = tmp_path / "locks/one", []
    path.parent.mkdir()
    held = hold_elsewhere(path)

    def let_go() -> None:
        told.append("waiting")
        os.close(held)

    assert locks.is_locked(path)
    with locks.try_locked(path) as is_ours:
        assert not is_ours
    with locks.locked(path, on_wait=let_go):
        assert told == ["waiting"]
        assert locks.is_locked(path)
    assert not locks.is_locked(path)


def test_shared_locks_go_together_and_keep_out_an_exclusive_one(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with (
        locks.locked(path, is_shared=True),
        locks.locked(path, is_shared=True),
        locks.try_locked(path) as is_ours,
    ):
        assert not is_ours


def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "one"
    held = hold_elsewhere(path)

    def remove() -> None:
        path.unlink()
        os.close(held)

    with locks.locked(path, on_wait=remove):
        assert path.exists()
        assert locks.is_locked(path)


def test_only_what_nobody_holds_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "one"
    held = hold_elsewhere(path)
    assert not locks.remove_unlocked(path)
    os.close(held)
    assert locks.remove_unlocked(path)
    assert not locks.remove_unlocked(path)


def test_what_is_no_file_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(PipelineError, match="is no lock file"), locks.locked(tmp_path / "link"):
        pass
    with pytest.raises(EnvironmentFault, match="cannot be locked"):
        locks.hold(tmp_path / "link", "somebody works", say=print)


def test_a_process_takes_its_own_lock_again_and_lets_it_go_as_often(tmp_path: Path) -> None:
    path, ended = tmp_path / "locks/one", []
    for _ in range(2):
        locks.hold(path, "somebody works", say=print)
    locks.release(path, lambda: ended.append(1))
    assert not ended
    assert locks.is_locked(path)
    locks.release(path, lambda: ended.append(locks.is_locked(path)))
    assert ended == [True], "still held when its end is told"
    assert not locks.is_locked(path)


def test_patience_ends_and_the_wait_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "one"
    told: list[str] = []
    held = hold_elsewhere(path)
    with pytest.raises(InUseError, match="another command is at work"):
        locks.hold(path, "another command is at work", patience_s=0.3, say=told.append)
    assert told == ["  waiting: another command is at work"]
    os.close(held)


def test_a_folder_is_kept_from_who_would_remove_it(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    with locks.try_folder_locked(folder) as is_ours:
        assert not is_ours, "it is not there"
    with (
        locks.folder_locked(folder),
        locks.folder_locked(folder),
        locks.try_folder_locked(folder) as is_ours,
    ):
        assert not is_ours
    with locks.try_folder_locked(folder) as is_ours:
        assert is_ours
