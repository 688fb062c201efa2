"""The mirror stage against a mirror in trouble: what is survived, what each failure says."""

import io
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentFault, UsageError
from pipeline.mirror import credentials, fetch
from pipeline.mirror.snapshot import read_snapshot
from tests.host.bad_mirror import (
    LOCALHOST,
    Fault,
    MisbehavingMirror,
    change,
    claim_gzip,
    cut_short,
    hang,
    redirect,
    serve,
    status,
)
from tests.host.mirror_bench import INRELEASE, SECRET, Bench, name_two

pytestmark = pytest.mark.integration


def test_indexes_are_asked_for_by_hash_and_only_once(bench: Bench) -> None:
    bench.build()
    bench.build(snapshot_max_age="0")
    assert bench.mirror.asked("Packages.xz") == 0
    assert bench.mirror.asked(bench.index_by_hash) <= 1
    assert bench.mirror.asked(INRELEASE) == 2


@pytest.mark.fault(name="by-hash promised, not there", place="index", ending="survived")
def test_a_mirror_that_promises_by_hash_and_has_none_is_read_by_name(bench: Bench) -> None:
    shutil.rmtree(bench.archive.index("bookworm").parent / "by-hash")
    bench.build(updates=False, security=False)
    assert bench.mirror.asked("Packages.xz") == 1


@pytest.mark.parametrize(
    ("fault", "exit_code", "reason"),
    [
        (change(lambda content: content[:-1] + b"x"), 5, "wrong bytes (sha256 "),
        (change(lambda content: content[:40]), 5, "wrong bytes (40 of "),
        (change(lambda content: content * 2), 5, "wrong bytes (more than the expected "),
        (cut_short, 1, "the answer was cut short (tried 3 times)"),
        (status(500), 1, "answers 500 Internal Server Error (tried 3 times)"),
    ],
    ids=["wrong hash", "wrong size", "too long", "truncated", "500"],
)
@pytest.mark.fault(place="index", ending="message")
def test_an_index_that_is_not_what_was_signed_is_refused_and_not_kept(
    bench: Bench, fault: Fault, exit_code: int, reason: str
) -> None:
    end = bench.index_by_hash
    bench.mirror.faults[end] = fault
    error = bench.refuse(updates=False, security=False)
    assert (error.exit_code, reason in error.brief) == (exit_code, True), error.brief
    assert not list(bench.project.output.glob("cache/indexes/*"))
    bench.mirror.faults.clear()
    bench.build(updates=False, security=False)


@pytest.mark.parametrize(
    ("fault", "reason", "advice"),
    [
        (status(404), "not found (404)", "suite past its life"),
        (status(500), "answers 500 Internal Server Error (tried 3 times)", "mirror=URL"),
        (status(403), "answers 403 Forbidden", "mirror=URL"),
        (hang, "does not answer in time (tried 3 times)", "proxy runs"),
        (redirect(), "redirects in a circle", "mirror=URL"),
        (redirect("ftp://127.0.0.1/debian"), "redirects to something that is not HTTP", "mirror="),
        (cut_short, "the answer was cut short", "mirror=URL"),
    ],
    ids=["404", "500", "403", "hang", "redirect loop", "redirect to ftp", "truncated"],
)
@pytest.mark.fault(place="release", ending="message")
def test_a_mirror_in_trouble_is_named_with_its_trouble(
    bench: Bench, fault: Fault, reason: str, advice: str
) -> None:
    bench.mirror.faults[INRELEASE] = fault
    error = bench.refuse()
    assert error.exit_code == 1
    assert reason in error.brief and advice in error.hint
    assert bench.mirror.url in error.brief


@pytest.mark.fault(name="503 once, cut short once", place="release", ending="survived")
def test_trouble_that_passes_is_survived(bench: Bench) -> None:
    bench.mirror.once = {INRELEASE: status(503), bench.index_by_hash: cut_short}
    bench.build(updates=False, security=False)
    assert (bench.mirror.asked(INRELEASE), bench.mirror.asked(bench.index_by_hash)) == (2, 2)


@pytest.mark.fault(name="connection refused", place="release", ending="message")
def test_nobody_listening_is_a_refused_connection(bench: Bench) -> None:
    with socket.socket() as free:
        free.bind((LOCALHOST, 0))
        port = free.getsockname()[1]
        error = bench.refuse(mirror=f"http://{LOCALHOST}:{port}/debian")
    assert (error.exit_code, "connection refused" in error.brief) == (1, True)


@pytest.mark.fault(name="index called gzip-encoded", place="index", ending="survived")
def test_a_server_that_calls_the_compressed_index_gzip_encoded_is_understood(bench: Bench) -> None:
    bench.mirror.faults[bench.index_by_hash] = claim_gzip
    bench.build(updates=False, security=False)


@pytest.mark.fault(name="index and Release of different hours", place="index", ending="survived")
def test_a_mirror_updated_between_release_and_index_is_read_once_more(bench: Bench) -> None:
    bench.publish(has_by_hash=False)
    old = (bench.mirror.root / f"debian{INRELEASE}").read_bytes()
    bench.archive.add_package("hello", "2.0")
    bench.publish(has_by_hash=False)
    bench.mirror.once[INRELEASE] = serve(old)
    state = bench.build(security=False)
    assert bench.mirror.asked(INRELEASE) == 2
    assert read_snapshot(state.folder).packages.find("hello").version == "2.0"


@pytest.mark.fault(name="damaged copy in our own cache", place="index", ending="survived")
def test_a_damaged_file_in_the_cache_is_fetched_again(bench: Bench) -> None:
    bench.build(updates=False, security=False)
    for cached in bench.project.output.glob("cache/indexes/*"):
        size = cached.stat().st_size
        cached.unlink()
        cached.write_bytes(bytes(size))
    state = bench.build(updates=False)
    assert read_snapshot(state.folder).packages.find("hello", "1.0").name == "hello"
    assert bench.mirror.asked(bench.index_by_hash) == 2


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, whatever is downloaded goes to a device without space."""

    class Full(io.FileIO):
        def truncate(self, size: int | None = None) -> int:
            return 0

    def open_full(part: Path) -> io.FileIO:
        part.touch()
        return Full("/dev/full", "w+")

    return lambda: monkeypatch.setattr(fetch, "_open_locked", open_full)


@pytest.mark.fault(name="disk full", place="index", ending="message")
def test_a_full_disk_is_one_clear_error(bench: Bench, full_disk: Callable[[], None]) -> None:
    full_disk()
    error = bench.refuse()
    assert (error.exit_code, "no space left" in error.brief) == (3, True)


@pytest.mark.fault(name="disk full", place="package", ending="message")
def test_a_disk_that_fills_up_is_no_mirrors_fault_and_no_other_is_asked(
    bench: Bench, full_disk: Callable[[], None]
) -> None:
    with MisbehavingMirror(bench.mirror.root) as other:
        snapshot = read_snapshot(bench.build(mirror=name_two(bench, other)).folder)
        hello = snapshot.packages.find("hello", "1.0")
        target = bench.project.output / "cache/debs" / hello.sha256
        full_disk()
        with pytest.raises(EnvironmentFault, match="no space left"):
            snapshot.route.fetch(hello.url, target, size=hello.size, sha256=hello.sha256)
        assert (bench.mirror.asked(".deb"), other.asked(".deb")) == (1, 0)
    assert not list(target.parent.iterdir())


def with_password(bench: Bench) -> str:
    return f"http://user:{SECRET}@{bench.mirror.address}/debian"


def in_a_file(bench: Bench) -> str:
    (bench.root / "mirrors").mkdir(parents=True)
    (bench.root / "mirrors/lab.toml").write_text(f'url = "{with_password(bench)}"\n')
    return "lab"


def test_a_password_in_a_mirror_file_is_refused_before_anything_is_written(bench: Bench) -> None:
    with pytest.raises(UsageError) as caught:
        bench.build(mirror=in_a_file(bench))
    error = caught.value
    assert "auth.conf.d" in error.brief
    assert SECRET not in f"{error.brief} {error.hint} {error.details}"
    assert bench.mirror.requests.total() == 0
    bench.assert_no_secret()


@pytest.mark.fault(name="password needed", place="release", ending="message")
def test_a_mirror_that_asks_for_a_password_gets_it_from_apts_own_file(bench: Bench) -> None:
    bench.mirror.login = f"user:{SECRET}"
    error = bench.refuse()
    assert (error.exit_code, "asks for a password (401)" in error.brief) == (1, True)
    folder = credentials.APT_FOLDER / "auth.conf.d"
    folder.mkdir(parents=True)
    (folder / "lab.conf").write_text(
        f"machine http://{bench.mirror.address} login user password {SECRET}\n"
    )
    bench.build()
    bench.assert_no_secret()
    with MisbehavingMirror(bench.mirror.root) as other:
        bench.mirror.faults[INRELEASE] = redirect(f"{other.url}{INRELEASE}")
        bench.build(snapshot_max_age="0")
        assert (other.asked(INRELEASE), other.authorizations) == (1, set())
    bench.mirror.faults[INRELEASE] = status(500)
    assert SECRET not in str(vars(bench.refuse(snapshot_max_age="0")))
