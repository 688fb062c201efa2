"""The output folder and who may use it, its disk when it is full, what the dead left in it."""

import errno
import fcntl
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pipeline
from pipeline.namespace import is_root
from pipeline.scratch import remove_abandoned
from tests.conftest import require
from tests.torture.program import ROOT, Ground
from tests.torture.verdict import find_half, find_leftovers

pytestmark = pytest.mark.integration

GUEST = "one"
BUILD = ("build", f"name={GUEST}")
NOBODY = 65534
READING = [("guests",), ("why", f"name={GUEST}"), ("list",), ("suites",)]
WRITING = [
    BUILD,
    ("publish", f"name={GUEST}", "unproven=yes"),
    ("gc", "keep=0"),
    ("lock", f"name={GUEST}"),
    ("install", f"name={GUEST}"),
]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground.make(tmp_path / "ground", GUEST)


def become_nobody() -> None:
    """In the child; what it may need of Python is imported before, it lies in root's home."""
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if not module.name.endswith("__main__") and module.name != "pipeline.dom0.modules_in_guest":
            importlib.import_module(module.name)
    for name in ("sqlite3", "doit.cmd_base", "doit.cmd_list", "doit.cmd_run", "encodings.idna"):
        importlib.import_module(name)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def expect_one_line(code: int, said: str, wanted: int, text: str) -> None:
    assert code == wanted, said
    assert text in said, said
    assert said.count("error: ") == 1, said
    assert "Traceback" not in said, said


def test_a_second_user_may_look_and_is_told_why_not_write() -> None:
    require(is_root(), "becomes another user")
    # pytest's own folders, and those below a worker's, are root's alone
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        _look_and_write(Ground.make(Path(folder, "ground"), GUEST))


def _look_and_write(ground: Ground) -> None:
    ground.ends(0, *BUILD)
    before = sorted(ground.output.rglob("*"))
    for argv in READING:
        code, said = ground.start(*argv, plug=become_nobody).wait()
        assert code == 0, f"{argv}: {said}"
        assert "Traceback" not in said
    for argv in WRITING:
        code, said = ground.start(*argv, plug=become_nobody).wait()
        expect_one_line(code, said, 3, "belongs to root: nobody may not write there")
    assert sorted(ground.output.rglob("*")) == before


def test_root_writes_nothing_into_the_output_of_somebody_else(ground: Ground) -> None:
    require(is_root(), "is about root")
    victim = ground.root / "victim"
    victim.write_text("precious")
    (ground.output / "logs" / GUEST).mkdir(parents=True)
    (ground.output / "logs" / GUEST / "mirror.log").symlink_to(victim)
    (ground.output / ".doit.json").symlink_to(ground.root / "made")
    for path in (ground.output, *ground.output.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)
    for argv in WRITING:
        code, said = ground.run(*argv)
        expect_one_line(code, said, 3, "belongs to nobody: root writes nothing there")
    for argv in READING:
        ground.ends(0, *argv)
    assert victim.read_text() == "precious"
    assert not (ground.root / "made").exists()


def test_a_read_only_output_is_said_by_what_writes_alone(ground: Ground) -> None:
    require(is_root(), "mounts a tmpfs")
    with small_disk(ground.output, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", ground.output], check=True)
        for argv in READING:
            ground.ends(0, *argv)
        for argv in WRITING:
            code, said = ground.run(*argv)
            expect_one_line(code, said, 3, f"{ground.output}: Read-only file system")
            assert "DOMU_OUTPUT=/another/folder" in said


def test_a_spec_that_cannot_be_written_is_one_line(ground: Ground) -> None:
    require(is_root(), "mounts a tmpfs")
    guests = ground.root / "guests"
    (guests / "one.toml").unlink()
    guests.rmdir()
    with small_disk(guests, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", guests], check=True)
        code, said = ground.run("create", "name=web1", "size=256M")
        expect_one_line(code, said, 3, f"{guests}: no file can be written there")
        assert "doit init FOLDER" in said


def test_a_log_is_never_written_through_a_link_nor_into_a_fifo(ground: Ground) -> None:
    log = ground.output / "logs" / GUEST / "mirror.log"
    victim = ground.root / "victim"
    makers: list[Callable[[], None]] = [
        lambda: log.symlink_to(victim),
        lambda: os.mkfifo(log),
        lambda: log.mkdir(),
    ]
    for make in makers:
        victim.write_text("precious")
        log.parent.mkdir(parents=True, exist_ok=True)
        make()
        code, said = ground.run(*BUILD)
        expect_one_line(code, said, 1, "is no plain file, no log")
        assert victim.read_text() == "precious"
        log.rmdir() if log.is_dir() and not log.is_symlink() else log.unlink()


@pytest.mark.parametrize(
    ("named", "code", "text"),
    [
        ("/etc/hostname", 3, "is not a folder"),
        ("/etc/hostname/sub", 3, "is not a folder"),
        ("/proc/nothing/sub", 3, "/proc/nothing/sub"),
        ("", 2, "names no folder"),
        (" ", 2, "names no folder"),
        ("/tmp/a\nb", 2, "names no folder"),
    ],
)
def test_an_output_that_is_none_is_one_line(
    ground: Ground, named: str, code: int, text: str
) -> None:
    def name_it() -> None:
        os.environ["DOMU_OUTPUT"] = named

    status, said = ground.start(*BUILD, plug=name_it).wait()
    expect_one_line(status, said, code, text)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of a size; as in tests/host/test_volumes.py root mounts it."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def expect_full_or_done(code: int, said: str, where: str) -> None:
    assert code in (0, 3), f"{where}: {said}"
    assert "Traceback" not in said, f"{where}: {said}"
    assert "a bug of the pipeline" not in said, f"{where}: {said}"
    if code:
        assert said.count("error: ") == 1, f"{where}: {said}"
        told = ("the disk is full", "MiB free, the build needs")  # met, or foreseen
        assert any(text in said for text in told), f"{where}: {said}"


def test_a_cold_build_on_a_full_disk_is_one_line_at_any_step(ground: Ground) -> None:
    require(is_root(), "mounts a tmpfs")
    codes, told = [], 0
    for size in "16k 64k 100k 128k 160k 256k 400k 600k 900k 1400k 8m".split():
        with small_disk(ground.output, size):
            code, said = ground.run(*BUILD)
            expect_full_or_done(code, said, size)
            told += f"{ground.output} has 0 of" in said
            assert not find_half(ground)
            assert not find_leftovers(ground)
            codes.append(code)
        ground.output.rmdir()
    assert codes[0] == 3
    assert told > 0
    assert codes[-1] == 0


def test_an_old_artifact_is_whole_however_full_the_disk_is(ground: Ground) -> None:
    require(is_root(), "mounts a tmpfs")
    runs = [
        ("build", f"name={GUEST}", "hostname=web2"),
        ("publish", f"name={GUEST}", "unproven=yes"),
        ("lock", f"name={GUEST}"),
        ("gc", "keep=0"),
    ]
    with small_disk(ground.output, "16m"):
        said = ground.ends(0, *BUILD)
        ballast = ground.output / "ballast"
        full = 0
        for argv in runs:
            for left_kib in (0, 4, 16, 64, 200, 500, 1000):
                _fill(ballast, left_kib)
                code, said = ground.run(*argv)
                expect_full_or_done(code, said, f"{argv[0]}, {left_kib} KiB")
                full += code == 3
                assert not find_half(ground), f"{argv[0]}, {left_kib} KiB"
                assert not find_leftovers(ground), f"{argv[0]}, {left_kib} KiB"
                ballast.unlink()
                ground.ends(0, *BUILD)
        assert full > 5


def _fill(ballast: Path, left_kib: int) -> None:
    """All of the disk but so much."""
    with open(ballast, "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        stream.truncate(max(0, stream.tell() - left_kib * 1024))


def test_what_programs_read_of_a_run_may_be_full_too(ground: Ground) -> None:
    code, said = ground.run(*BUILD, "events=/dev/full")
    expect_one_line(code, said, 3, "events=/dev/full: No space left on device")
    assert (ground.output / f"guests/{GUEST}/disk.img").is_file()
    fifo = ground.root / "fifo"
    os.mkfifo(fifo)
    code, said = ground.run(*BUILD, f"events={fifo}")
    expect_one_line(code, said, 2, f"events={fifo}")


def test_standard_output_may_be_full(ground: Ground) -> None:
    def plug() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

    code, said = ground.start(*BUILD, plug=plug).wait()
    assert code == 3, said
    assert "standard output: No space left on device" in said
    assert "Traceback" not in said
    assert not find_leftovers(ground)


def make_deep(folder: Path) -> None:
    """1500 folders, one in the other."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_the_scratch_of_the_dead_goes_or_is_told_and_no_reason_to_fail(ground: Ground) -> None:
    require(is_root(), "sets an immutable file, mounts")
    scratch = ground.output / "scratch"
    for name in ("deep", "immutable", "mounted", "plain"):
        (scratch / name).mkdir(parents=True)
    make_deep(scratch / "deep")
    (scratch / "immutable/file").touch()
    (scratch / "link").symlink_to("/etc")
    (scratch / "file").touch()
    (scratch / ".dead-0.lock").touch()
    subprocess.run(["chattr", "+i", scratch / "immutable/file"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", scratch / "mounted"], check=True)
    (scratch / "mounted/kept").touch()
    try:
        said = ground.ends(0, *BUILD)
        assert "Traceback" not in said
        assert said.count("warning: not removed: ") >= 2, said
        assert (scratch / "mounted/kept").exists()
        left = {path.name for path in scratch.iterdir() if not path.name.startswith(".")}
        assert left == {"immutable", "mounted"}
        said = ground.ends(0, "gc", "keep=0")
    finally:
        subprocess.run(["umount", scratch / "mounted"], check=True)
        subprocess.run(["chattr", "-i", scratch / "immutable/file"], check=True)
    ground.ends(0, "publish", f"name={GUEST}", "unproven=yes")
    assert not list(scratch.iterdir())


def test_every_word_that_writes_clears_what_the_dead_left(ground: Ground) -> None:
    ground.ends(0, *BUILD)
    dead = [
        ground.output / "scratch/publish-one-dead/disk.img",
        ground.output / f"cache/debs/.{'a' * 64}.999999999.1",
        ground.output / f"cache/indexes/.{'b' * 64}.999999999.1",
    ]
    living = ground.output / f"cache/debs/.{'c' * 64}.{os.getpid()}.1"
    living.parent.mkdir(parents=True, exist_ok=True)
    with open(living, "w") as held:  # a part belongs to whoever has it locked
        fcntl.flock(held, fcntl.LOCK_EX)
        for argv in (BUILD, ("publish", f"name={GUEST}", "unproven=yes"), ("gc", "keep=0")):
            for path in dead:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            ground.ends(0, "guests")
            assert all(path.exists() for path in dead)  # who only looks removes nothing
            ground.ends(0, *argv)
            assert not any(path.exists() for path in dead), argv
            assert living.exists(), argv
            assert not list((ground.output / "scratch").iterdir())


def test_a_living_scratch_folder_is_left_alone(tmp_path: Path) -> None:
    folder, lock = tmp_path / "volume-one-1", tmp_path / ".volume-one-1.lock"
    folder.mkdir()
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_abandoned(tmp_path) == []
    assert remove_abandoned(tmp_path) == [folder]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_moment_of_the_start_is_one_line(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The wrapper, Python, the imports: 130 and no traceback, wherever it comes."""
    for delay_ms in range(0, 330, 30):
        process = subprocess.Popen(
            [ROOT / "doit", "suites"],
            env={**os.environ, "DOMU_OUTPUT": str(tmp_path / "output")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        time.sleep(delay_ms / 1000)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert "Traceback" not in said, f"{delay_ms} ms: {said}"
        # before the wrapper's first line, and while it becomes Python, the signal itself ends it
        assert process.returncode in (130, 0, -number), f"{delay_ms} ms: {process.returncode}"
        if process.returncode == 130:
            assert len(said.strip().splitlines()) == 1, f"{delay_ms} ms: {said}"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_went_to_standard_error_is_out_when_a_run_ends(unbuffered: str) -> None:
    """With PYTHONUNBUFFERED=1, as in most containers, doit's own traceback was lost."""
    program = (
        "import sys; from pipeline import interruption; interruption.guard_output();"
        "sys.stderr.write('first\\nlast\\n'); interruption.leave(3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, "first\nlast\n")


def test_a_reader_who_has_enough_ends_a_run_quietly(tmp_path: Path) -> None:
    """`./doit guests | head -1`."""
    done = subprocess.run(
        ["bash", "-c", f"{ROOT}/doit guests | head -1; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, "DOMU_OUTPUT": str(tmp_path / "output")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (141, 0)
    assert done.stderr == ""
    assert done.stdout == "guests:\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_words_of_any_language_are_printed_whatever_the_locale(
    tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "guests").mkdir()
    spec = 'suite = "bookworm"\ndescription = "Prüfgerät für 漢字"\n'
    (tmp_path / "guests/one.toml").write_text(spec)
    folders = {"DOMU_OUTPUT": str(tmp_path / "output"), "DOMU_GUESTS": str(tmp_path / "guests")}
    locale = {"PYTHONIOENCODING": encoding, "LANG": "C", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "guests"],
        cwd=ROOT,
        env={**os.environ, **folders, **locale},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Prüfgerät für 漢字" in done.stdout.decode()
    assert done.stderr == b""


def test_nohup_is_heard(ground: Ground) -> None:
    """A run that is to outlive its terminal does."""
    assert sys.executable

    def plug() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    run = ground.start(*BUILD, plug=plug)
    time.sleep(0.2)
    run.signal(signal.SIGHUP)
    code, said = run.wait()
    assert code == 0, said


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/etc/fstab")]
)
@pytest.mark.parametrize("name", ["one.xml", "kernel.json", "FSVERITY", "stages.json"])
def test_what_is_no_plain_file_is_refused_without_a_wait(
    ground: Ground, name: str, make: Callable[[Path], None]
) -> None:
    ground.ends(0, *BUILD)
    path = ground.output / f"guests/{GUEST}/{name}"
    path.unlink()
    make(path)
    for argv in READING:
        ground.ends(0, *argv)
    for argv in (("publish", f"name={GUEST}", "unproven=yes"), ("install", f"name={GUEST}")):
        code, said = ground.run(*argv)
        assert code != 0
        assert said.count("error: ") == 1, said
        assert "Traceback" not in said, said
