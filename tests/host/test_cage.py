"""The cage: what runs in it, or in a tree inside it, does not reach the machine."""

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import process
from pipeline.walls.cage import FIRST_ID, Window, caged, caged_reader, first_id, make_room
from tests.conftest import require
from tests.host.cage_attempts import OTHER_SYSCTL, attempt_lines, run_lines
from tests.patience import wait_for

pytestmark = pytest.mark.integration


@dataclass
class Bench:
    """A room, and what must not change: a folder, the machine's settings, a listener's silence."""

    room: Path
    witness: Path
    listener: socket.socket

    def lines(self) -> list[str]:
        return attempt_lines(self.room, self.witness, self.listener.getsockname()[1])

    def state(self) -> list[object]:
        settings = [Path("/proc/sys", name).read_text() for name in _SETTINGS]
        files = sorted((str(path), path.stat().st_mode) for path in self.witness.rglob("*"))
        return [settings, files, (self.witness / "file").read_text(), os.uname().nodename]

    def is_untouched(self) -> bool:
        self.listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        return not Path("/usr/owned").exists()


_SETTINGS = ("vm/swappiness", "kernel/core_pattern", "kernel/hostname")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    witness = tmp_path / "witness"
    witness.mkdir()
    (witness / "file").write_text("the host's\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Bench(make_room(tmp_path / "room"), witness, listener)


@pytest.mark.parametrize("in_tree", [False, True], ids=["builder", "script"])
def test_what_strangers_try_does_not_reach_the_machine(bench: Bench, in_tree: bool) -> None:
    before = bench.state()
    output = run_lines(bench.room, bench.lines(), in_tree=in_tree)
    assert bench.state() == before, output
    assert bench.is_untouched(), output
    assert not [line for line in output.splitlines() if line.startswith("root:")]
    shadow = Path("/etc/shadow")
    secrets = shadow.read_text().splitlines() if os.access(shadow, os.R_OK) else []
    assert not [line for line in secrets if line in output]


def test_root_in_the_cage_is_nobody_outside(bench: Bench) -> None:
    process.run(caged(["sh", "-c", f"id -u; echo x >{bench.room}/made"], room=bench.room))
    owner = (bench.room / "made").stat().st_uid
    assert owner == (first_id() if os.geteuid() == 0 else os.geteuid())
    if os.geteuid() == 0 and first_id():
        assert owner == FIRST_ID


def test_the_cage_ends_with_its_command_whatever_it_left_behind(bench: Bench) -> None:
    """e44a75a waited for as long as a script's child held its standard output."""
    begun = time.monotonic()
    script = "sleep 300 & setsid sleep 300 >/dev/null 2>&1 & echo done"
    assert "done" in process.run(caged(["sh", "-c", script], room=bench.room))
    assert time.monotonic() - begun < 240


def test_a_script_ends_with_its_processes(bench: Bench) -> None:
    begun = time.monotonic()
    run_lines(bench.room, ["sleep 300 & setsid sleep 300 & echo done"], in_tree=True)
    assert time.monotonic() - begun < 240


def test_a_script_has_no_right_that_it_has_no_use_for(bench: Bench) -> None:
    output = run_lines(
        bench.room, ["grep -E 'CapEff|CapPrm|NoNewPrivs' /proc/self/status"], in_tree=True
    )
    fields = dict(line.split(":\t") for line in output.splitlines())
    effective = int(fields["CapEff"], 16)
    numbers = {"SYS_MODULE": 16, "SYS_RAWIO": 17, "SYS_PTRACE": 19, "SYS_ADMIN": 21}
    numbers |= {"SYS_BOOT": 22, "SYS_TIME": 25, "MKNOD": 27, "NET_ADMIN": 12, "MAC_ADMIN": 33}
    assert not [name for name, number in numbers.items() if effective >> number & 1]
    assert effective & 1, "a script still changes owners"
    assert fields["CapPrm"] == fields["CapEff"]
    assert fields["NoNewPrivs"] == "1", "no program of the tree brings rights back"


def test_the_tree_is_the_whole_world_of_a_script(bench: Bench) -> None:
    output = run_lines(
        bench.room, ["ls /; echo --; ls /proc/1/root; echo --; ls /dev"], in_tree=True
    )
    root, first, devices = (part.split() for part in output.split("--\n"))
    assert set(root) == {"bin", "dev", "lib", "lib64", "proc", "sbin", "tmp", "usr"} == set(first)
    assert set(devices) >= {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm"}
    assert not [name for name in devices if name.startswith(("loop", "vd", "sd", "mem", "kvm"))]


def test_the_builders_root_holds_programs_and_nothing_of_the_machine(bench: Bench) -> None:
    listing = process.run(caged(["ls", "/", "/etc", "/dev", "/root", "/run"], room=bench.room))
    assert "shadow" not in listing and "ssh" not in listing.split() and "sys" not in listing.split()


def test_nothing_of_the_callers_environment_comes_in(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """e44a75a gave package scripts http_proxy, which may hold a password."""
    for name in ("http_proxy", "https_proxy", "TMPDIR", "HOME"):
        monkeypatch.setenv(name, f"http://user:{os.getpid()}@secret.invalid/")
    for words in (caged(["env"], room=bench.room), caged_reader(["env"])):
        assert "secret.invalid" not in process.run(words)


def test_a_reader_sees_what_is_named_and_can_do_nothing(bench: Bench) -> None:
    given, before = bench.witness / "file", bench.state()
    script = f"cat {given}; echo x >{given}; ls /root /etc; cat /etc/shadow /proc/1/root/etc/shadow"
    script += f"; {OTHER_SYSCTL}; mount -o remount,rw /proc; {OTHER_SYSCTL}; umount /proc"
    script += "; for file in $(find /proc -maxdepth 3 -writable -type f ! -path '/proc/[0-9]*')"
    script += "; do echo >>$file && echo WRITES $file; done; echo pid $$"
    output = process.run(caged_reader(["sh", "-c", script], readable=[given]))
    assert "the host's" in output and given.read_text() == "the host's\n"
    assert not [line for line in output.splitlines() if line.startswith("root:")]
    assert "WRITES" not in output
    assert bench.state() == before and int(output.rpartition("pid ")[2]) < 10


def test_a_reader_writes_only_where_it_may(bench: Bench) -> None:
    place = bench.witness / "place"
    place.mkdir()
    argv = ["sh", "-c", f"echo x >{place}/made; echo x >{bench.witness}/file"]
    process.run(caged_reader(argv, writable=[place]))
    assert (place / "made").read_text() == "x\n"
    assert (bench.witness / "file").read_text() == "the host's\n"


def test_a_window_is_the_only_way_out_and_nobody_else_sees_it(bench: Bench) -> None:
    window = Window()
    script = f"exec 3<>/dev/tcp/127.0.0.1/{window.address.rpartition(':')[2]}; cat <&3"
    words = caged(["bash", "-c", script], room=bench.room, window=window)
    child = subprocess.Popen(
        list(words), pass_fds=[window.descriptor], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        listener = window.receive()
        assert listener is not None
        with listener:
            address = listener.getsockname()
            with socket.socket() as outside:
                assert outside.connect_ex(address) != 0, "the machine's loopback has it too"
            listener.settimeout(240)
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"hello")
        assert child.communicate(timeout=240)[0] == b"hello"
    finally:
        child.kill()
        child.wait()
        window.close()


def test_a_window_that_nobody_opens_is_given_up() -> None:
    window = Window()
    window.close()
    assert window.receive() is None


def test_a_kill_of_the_build_ends_the_cage(bench: Bench) -> None:
    require(shutil.which("setpriv") is not None, "needs setpriv")
    mark = f"{bench.room}/alive"
    words = caged(["sh", "-c", f"while :; do date +%s%N >{mark}; sleep 0.1; done"], room=bench.room)
    argv = ["setpriv", "--pdeathsig", "KILL", "--", *words]
    parent = subprocess.Popen(["sh", "-c", f"{shlex.join(argv)} & wait"], start_new_session=True)
    wait_for(Path(mark).exists, "the cage's first word")
    parent.kill()
    parent.wait()

    def is_still() -> bool:
        last = Path(mark).read_text()
        time.sleep(1)
        return Path(mark).read_text() == last

    wait_for(is_still, "the cage's end")
