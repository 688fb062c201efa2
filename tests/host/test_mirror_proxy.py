"""The caching proxy that we run: real approx and apt-cacher-ng in front of a mirror that counts."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import InUseError, VerificationError
from pipeline.mirror.proxy.control import ProxyControl
from pipeline.mirror.proxy.settings import ProxySettings
from pipeline.mirror.snapshot import Snapshot, read_snapshot
from tests.conftest import ROOT, require
from tests.host.bad_mirror import LOCALHOST, MisbehavingMirror, change
from tests.host.mirror_bench import Bench
from tests.patience import free_port, listens, wait_for
from tests.workshop import Workshop

pytestmark = pytest.mark.integration
ENGINES = ("approx", "apt-cacher-ng")


@pytest.fixture(params=ENGINES)
def control(request: pytest.FixtureRequest, bench: Bench) -> Iterator[ProxyControl]:
    require(shutil.which(request.param) is not None, f"needs {request.param}")
    folder = bench.root / "mirrors"
    folder.mkdir(parents=True)
    with MisbehavingMirror(bench.mirror.root, free_port()) as bench.mirror:
        (folder / "proxy.toml").write_text(
            f'proxy = "{request.param}"\nport = {free_port()}\nupstream = "{bench.mirror.url}"\n'
        )
        control = ProxyControl(bench.project)
        yield control
        control.stop()


def fetch_hello(bench: Bench, snapshot: Snapshot, name: str) -> Path:
    hello = snapshot.packages.find("hello", "1.0")
    target = bench.project.output / name
    return snapshot.route.fetch(hello.url, target, size=hello.size, sha256=hello.sha256)


def test_a_build_starts_the_proxy_and_the_second_fetch_does_not_reach_the_mirror(
    bench: Bench, control: ProxyControl
) -> None:
    state = bench.build(mirror="proxy")
    status = control.status()
    assert status.is_running
    snapshot = read_snapshot(state.folder)
    assert snapshot.sources[0].uri == f"http://{control.settings.address}/debian"
    for name in ("one", "two", "three"):
        fetch_hello(bench, snapshot, name)
    assert bench.mirror.asked(".deb") == 1
    assert control.status().cache_bytes > 0
    if os.geteuid() == 0:
        engine = control.settings.proxy
        owners = {pwd.getpwuid(path.stat().st_uid).pw_name for path in control.cache.rglob("*")}
        assert owners == {engine}
    assert control.stop() and not listens(control.settings.port)


@pytest.mark.fault(name="damaged package in the proxy", place="proxy", ending="survived")
def test_a_damaged_copy_is_dropped_and_fetched_once_more(
    bench: Bench, control: ProxyControl, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = read_snapshot(bench.build(mirror="proxy").folder)
    fetch_hello(bench, snapshot, "one")
    (copy,) = control.cache.rglob("hello_1.0_amd64.deb")
    copy.write_bytes(bytes(copy.stat().st_size))
    fetch_hello(bench, snapshot, "two")
    assert bench.mirror.asked(".deb") == 2
    assert "copy was damaged and is dropped" in capsys.readouterr().out


@pytest.mark.fault(name="wrong hash", place="proxy", ending="message")
def test_a_mirror_that_is_itself_wrong_gets_the_blame_and_not_the_proxy(
    bench: Bench, control: ProxyControl
) -> None:
    snapshot = read_snapshot(bench.build(mirror="proxy").folder)
    bench.mirror.faults[".deb"] = change(lambda content: content[:-1] + b"\0")
    with pytest.raises(VerificationError) as caught:
        fetch_hello(bench, snapshot, "one")
    assert "the mirror behind it" in caught.value.hint and "not to blame" in caught.value.hint
    assert bench.mirror.asked(".deb") == 2
    assert not (bench.project.output / "one").exists()


@pytest.mark.fault(name="damaged Release file in the proxy", place="proxy", ending="survived")
def test_a_damaged_release_file_in_the_cache_does_not_stop_a_build(
    bench: Bench, control: ProxyControl
) -> None:
    bench.build(mirror="proxy")
    (copy,) = control.cache.glob("debian/dists/bookworm/InRelease")
    copy.write_bytes(copy.read_bytes().replace(b"Tests", b"Fakes"))
    assert bench.build(mirror="proxy", snapshot_max_age="0").is_current


def test_a_port_that_somebody_else_has_is_told_with_what_to_do(bench: Bench) -> None:
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = taken.getsockname()[1]
        control = ProxyControl(bench.project, ProxySettings(port=port))
        with pytest.raises(InUseError) as caught:
            control.ensure()
    assert f"mirror={LOCALHOST}:{port}" in caught.value.hint


def test_the_proxy_ends_with_the_build_even_when_that_is_killed(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import sys, time; from pathlib import Path\n"
        "from pipeline.project import Project\n"
        "from pipeline.mirror.proxy.control import ProxyControl\n"
        "from pipeline.mirror.proxy.settings import ProxySettings\n"
        f"root = Path({str(tmp_path)!r})\n"
        "project = Project(root, root / 'output', root / 'guests')\n"
        f"settings = ProxySettings(port={port}, upstream='file:/srv')\n"
        "ProxyControl(project, settings).ensure()\n"
        "print('up', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE
    ) as build:
        assert build.stdout is not None and build.stdout.readline() == b"up\n"
        assert listens(port)
        build.send_signal(signal.SIGKILL)
    wait_for(lambda: not listens(port), "the proxy's end")


def test_a_proxy_that_stays_is_found_again_and_stopped_from_the_command_line(
    tmp_path: Path,
) -> None:
    shop, port = Workshop(tmp_path / "output"), free_port()
    words = ("mirror-proxy", f"port={port}", "upstream=http://127.0.0.1:9/debian")
    begun = shop.doit(*words, "stay=yes")
    assert begun.code == 0 and "runs, process" in begun.said, begun.said
    try:
        assert listens(port)
        assert "runs, process" in shop.doit(*words, "status=yes").said
    finally:
        ended = shop.doit(*words, "stop=yes")
    assert "is stopped" in ended.said and not listens(port)
    assert "did not run" in shop.doit(*words, "stop=yes").said
    wrong = shop.doit("mirror-proxy", "port=x")
    assert (wrong.code, "port: 'x' is not a whole number" in wrong.said) == (2, True), wrong.said
