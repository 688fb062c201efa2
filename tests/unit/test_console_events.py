"""The file of events: a JSON object a line, whoever else writes to it."""

import json
import os
import threading
from pathlib import Path

import pytest

from pipeline.console.events import Events
from pipeline.errors import UsageError


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    Events().emit("run started", {"tasks": []})
    assert list(tmp_path.iterdir()) == []


def test_runs_share_a_file_and_their_lines_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    runs = [Events(str(path)) for _ in range(4)]
    long = "x" * 3000
    threads = [
        threading.Thread(
            target=lambda one=one: [one.emit("ended", {"n": n, "error": long}) for n in range(50)]
        )
        for one in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    by_run: dict[str, list[int]] = {}
    for line in lines:
        assert line["form"] == 1 and line["error"] == long and line["time"] > 1e9
        by_run.setdefault(line["run"], []).append(line["n"])
    assert sorted(by_run.values()) == [list(range(50))] * 4


def test_events_that_cannot_be_written_end_with_one_error_and_not_the_run() -> None:
    events = Events("/dev/full")
    for _ in range(3):
        events.emit("ended", {"task": "image:web1"})
    assert events.trouble is not None
    assert events.trouble.brief.startswith("events=/dev/full: No space left on device")
    assert events.trouble.exit_code == 3


@pytest.mark.timeout(20)
def test_a_fifo_that_nobody_reads_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="events="):
        Events(str(tmp_path / "fifo"))


def test_a_file_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="events=.*No such file or directory"):
        Events(str(tmp_path / "absent" / "events.jsonl"))
