"""A change on trial: kept by a word or an answer, else taken back by a process of its own."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.dom0.setup import watchdog
from pipeline.dom0.setup.connection import Connection, find_connection
from pipeline.dom0.setup.host_change import (
    HOST,
    apply_change,
    changing_host,
    list_changes,
    next_number,
    read_settings,
    require_last,
    undo_change,
)
from pipeline.dom0.setup.host_plan import plan_change
from pipeline.dom0.setup.host_settings import HostSettings, Lvm
from pipeline.dom0.setup.watchdog import Watch
from pipeline.errors import EnvironmentFault, InUseError
from pipeline.files import Damaged
from tests.conftest import ROOT, require
from tests.host.host_bench import TRIAL, HostBench
from tests.patience import PATIENCE_S, wait_for

pytestmark = pytest.mark.integration
SETTINGS = HostSettings(lvm=Lvm(groups=("VG0",)))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostBench:
    return HostBench(tmp_path / "root", monkeypatch, TRIAL)


def begin(bench: HostBench, seconds: int) -> Watch:
    """The watch of the change that comes next; the daemon has no such part: files alone."""
    number = next_number(bench.layout)
    return watchdog.begin_watch(
        number, "old", (), left=HostSettings(), entered=SETTINGS, seconds=seconds
    )


def try_out(bench: HostBench, seconds: int) -> Watch:
    with changing_host(bench.layout):
        plan, _ = plan_change(bench.layout, SETTINGS)
        watch = begin(bench, seconds)
        watchdog.start_watchdog(bench.layout, watch, log=bench.root.parent / "log")
        apply_change(bench.layout, plan)
    return watch


def wait(bench: HostBench) -> None:
    """Until the watchdog has ended."""

    def is_over() -> bool:
        return not (watchdog.is_watched(bench.layout) or watchdog.is_on_trial(bench.layout))

    wait_for(is_over, f"the watchdog's end: {bench.root.parent / 'log'}")


def test_nobody_confirms_and_every_file_is_as_it_was(bench: HostBench) -> None:
    old = bench.look()
    try_out(bench, 8)
    assert bench.look() != old
    with changing_host(bench.layout), pytest.raises(InUseError, match="on trial"):
        watchdog.refuse_while_watched(bench.layout)
    wait(bench)
    assert bench.look() == old
    assert not (bench.layout.state / HOST / "changes").exists()


def test_a_confirmed_change_stays(bench: HostBench) -> None:
    try_out(bench, 3600)
    new = bench.look()
    with changing_host(bench.layout):
        assert watchdog.keep_change(bench.layout)
        assert not watchdog.keep_change(bench.layout)
    wait(bench)
    assert bench.look() == new
    assert read_settings(bench.layout) == SETTINGS


def test_an_undo_on_trial_is_taken_back_or_kept(bench: HostBench) -> None:
    old = bench.look()
    with changing_host(bench.layout):
        plan, _ = plan_change(bench.layout, SETTINGS)
        apply_change(bench.layout, plan)
    new = bench.look(times=False)
    for is_kept in (False, True):
        with changing_host(bench.layout):
            change = require_last(bench.layout)
            watch = watchdog.begin_watch(
                change.number, "new", (), left=SETTINGS, entered=HostSettings(), seconds=3600
            )
            watchdog.start_watchdog(bench.layout, watch, log=bench.root.parent / "log")
            undo_change(bench.layout, change, replaces=False, keeps=True)
            assert bench.look() == old
            assert read_settings(bench.layout) == HostSettings()
            if is_kept:
                watchdog.keep_change(bench.layout)
            else:
                watchdog.take_back(bench.layout)
        wait(bench)
        assert bench.look(times=False) == (old_without_times(bench, old) if is_kept else new)
    assert bench.look() == old
    assert not list_changes(bench.layout, undone=True)


def old_without_times(bench: HostBench, old: object) -> object:
    assert bench.look() == old
    return bench.look(times=False)


def test_a_change_that_never_came_is_no_trouble_to_the_watchdog(bench: HostBench) -> None:
    """The command was killed between the two."""
    old = bench.look()
    with changing_host(bench.layout):
        watchdog.start_watchdog(bench.layout, begin(bench, 1), log=bench.root.parent / "log")
    wait(bench)
    assert bench.look() == old


def test_nothing_is_tried_under_a_watchdog_that_cannot_read_what_it_waits_for(
    bench: HostBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_START_S", PATIENCE_S)  # it ends, and is not waited for
    monkeypatch.setattr(watchdog, "write_durably", lambda path, *_, **__: path.write_text("{}"))
    log = bench.root.parent / "log"
    with changing_host(bench.layout), pytest.raises(EnvironmentFault, match="did not start"):
        watchdog.start_watchdog(bench.layout, begin(bench, 60), log=log)
    assert "Damaged" in log.read_text()
    assert not watchdog.is_on_trial(bench.layout)


def test_it_outlives_the_session_that_started_it(bench: HostBench) -> None:
    """kill -9 and a hang-up of all that the connection had started."""
    old = bench.look()
    child = os.fork()
    if child == 0:
        os.setsid()
        try_out(bench, 12)
        os.killpg(0, signal.SIGHUP)
        os.killpg(0, signal.SIGKILL)
    os.waitpid(child, 0)
    assert bench.look() != old
    assert watchdog.is_watched(bench.layout)
    wait(bench)
    assert bench.look() == old


def test_without_its_watchdog_the_next_command_takes_it_back(bench: HostBench) -> None:
    old = bench.look()
    watch = try_out(bench, 3600)
    (pid,) = processes_with(str(bench.root))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not watchdog.is_watched(bench.layout), "the watchdog's end")
    assert watch.is_of_this_boot
    with changing_host(bench.layout):
        watchdog.refuse_while_watched(bench.layout)
    assert bench.look() == old


def processes_with(word: str) -> list[int]:
    """The watchdogs of this root."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if "pipeline.dom0.setup.watchdog" in words and word in words:
            found.append(int(path.parent.name))
    return found


def test_after_a_restart_the_person_decides(bench: HostBench) -> None:
    """The kernel's name of another boot; the daemon is told nothing."""
    with changing_host(bench.layout):
        plan, _ = plan_change(bench.layout, SETTINGS)
        apply_change(bench.layout, plan)
    new = bench.look()
    path = bench.layout.state / HOST / "watch.json"
    path.write_text(
        '{"change": 1, "back_to": "old", "parts": [], "left": {}, "entered": {}, "ends_at": 1.5,'
        ' "boot": "11111111-2222-3333-4444-555555555555"}'
    )
    with changing_host(bench.layout), pytest.raises(InUseError, match="since a restart"):
        watchdog.refuse_while_watched(bench.layout)
    assert bench.look() == new
    with changing_host(bench.layout):
        assert watchdog.take_back(bench.layout)
    assert not list_changes(bench.layout)


@pytest.mark.parametrize("text", ["{}", "[]", '{"change": true}', '{"back_to": "x"}'])
def test_a_watch_that_we_never_wrote_is_refused(bench: HostBench, text: str) -> None:
    path = bench.layout.state / HOST / "watch.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(Damaged, match="is not what the watchdog"):
        watchdog.read_watch(bench.layout)


ANSWERS = """
import socket, subprocess, sys, time
from pipeline.dom0.setup.connection import Connection
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", 0))
far = socket.create_connection(server.getsockname())
near, peer = server.accept()
connection = Connection("127.0.0.1", peer[1], server.getsockname()[1])
def sends():
    before = connection.acked_bytes
    near.sendall(b"does it answer?")
    time.sleep(0.5)
    return connection.acked_bytes > before
print(sends())
subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
print(sends())
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
print(any(sends() for _ in range(60)))
"""


def test_only_a_connection_that_lives_answers() -> None:
    """A real connection in a network of its own, cut and mended."""
    require(os.geteuid() == 0, "makes a network namespace")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", ANSWERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["True", "False", "True"], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("told", "acked"),
    [
        (" mss:1448 bytes_sent:900 bytes_acked:880 segs_out:9", 880),
        (" mss:1448 segs_out:1", 0),
        (" rto:0.22 ato:0.04 qack:15 bidir cwnd:10 reordering:0", None),
    ],
)
def test_a_kernel_without_tcp_diag_says_nothing_of_acknowledgements(
    monkeypatch: pytest.MonkeyPatch, told: str, acked: int | None
) -> None:
    """Lines of ss on bookworm; the last one is of a kernel without that module."""
    line = f"0      0      192.0.2.2:22 192.0.2.1:51290{told}\n"
    monkeypatch.setattr("pipeline.process.run", lambda _argv: line)
    assert Connection("192.0.2.1", 51290, 22).acked_bytes == acked


def test_the_connection_is_found_through_sudo(tmp_path: Path) -> None:
    """It is in the environment of a process above, not in our own."""
    script = "from pipeline.dom0.setup.connection import find_connection; print(find_connection())"
    words = ["env", "-u", "SSH_CONNECTION", sys.executable, "-c", script]
    shell = ["sh", "-c", f"{' '.join(words[:3])} {sys.executable} -c '{script}'; true"]
    environment = {**os.environ, "SSH_CONNECTION": "2001:db8::5 50022 2001:db8::1 22"}
    done = subprocess.run(
        shell, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    expected = Connection("2001:db8::5", 50022, 22)
    assert done.stdout.strip() == str(expected), done.stderr


@pytest.mark.parametrize("text", ["", "1.2.3.4 x 1.2.3.5 22", "a 1 b 2", "1.2.3.4 5 1.2.3.5"])
def test_what_is_no_connection_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """And a port that nobody is connected to acknowledges nothing."""
    monkeypatch.setattr(
        "pipeline.dom0.setup.connection._read_environment", lambda _pid: {"SSH_CONNECTION": text}
    )
    assert find_connection() is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert Connection("127.0.0.1", 9, server.getsockname()[1]).acked_bytes is None
