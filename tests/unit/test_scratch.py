"""Scratch folders: whoever clears up takes none that a living build has just made."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.scratch import remove_abandoned, scratch_folder


def test_a_folder_that_is_just_being_made_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    root.mkdir()

    def use_folders(number: int) -> int:
        lost = 0
        for _ in range(300):
            with scratch_folder(root, f"stage-{number}") as folder:
                remove_abandoned(root)
                lost += not folder.is_dir()
        return lost

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(use_folders, range(4))) == 0
    assert list(root.iterdir()) == []
