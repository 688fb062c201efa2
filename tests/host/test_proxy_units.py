"""The proxy for a lab: systemd's own opinion of the units, and approx started as its unit says."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from pipeline.errors import UsageError
from pipeline.mirror.proxy.settings import Engine
from pipeline.mirror.proxy.units import render_units, unit_to_enable, write_units
from tests.conftest import require
from tests.host.bad_mirror import LOCALHOST, MisbehavingMirror
from tests.host.mirror_bench import INRELEASE, Bench
from tests.patience import free_port, wait_for
from tests.workshop import Workshop

pytestmark = pytest.mark.integration
ENGINES: tuple[Engine, ...] = ("approx", "apt-cacher-ng")


@pytest.mark.parametrize("engine", ENGINES)
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, engine: Engine) -> None:
    require(shutil.which("systemd-analyze") is not None, "needs systemd-analyze")
    require(shutil.which(engine) is not None, f"needs {engine}")
    files = render_units(engine, 9999, {"debian": "http://mirror.example.org/debian"})
    units = [path for path in write_units(files, tmp_path) if "systemd" in path.parts]
    assert unit_to_enable(engine) in {path.name for path in units}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    own = [line for line in done.stderr.splitlines() if "domu-mirror" in line]
    assert (done.returncode, own) == (0, []), done.stderr


def test_a_mistake_in_a_unit_would_be_found(tmp_path: Path) -> None:
    require(shutil.which("systemd-analyze") is not None, "needs systemd-analyze")
    files = render_units("apt-cacher-ng", 9999, {})
    (unit,) = [path for path in write_units(files, tmp_path) if path.suffix == ".service"]
    unit.write_text(unit.read_text().replace("/usr/sbin/apt-cacher-ng", "/usr/sbin/nothing"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and "nothing" in done.stderr


def ask(url: str) -> bytes:
    """What is there, nothing as long as nobody listens."""
    with suppress(requests.ConnectionError):
        return requests.get(url, timeout=240).content
    return b""


def test_approx_answers_as_its_unit_starts_it(bench: Bench, tmp_path: Path) -> None:
    for tool in ("systemd-socket-activate", "approx"):
        require(shutil.which(tool) is not None, f"needs {tool}")
    port, wanted = free_port(), (bench.mirror.root / f"debian{INRELEASE}").read_bytes()
    with MisbehavingMirror(bench.mirror.root) as upstream:
        files = render_units("approx", port, {"debian": upstream.url})
        texts = {path.name: text for path, text in files.items()}
        (tmp_path / "cache").mkdir()  # CacheDirectory= makes it
        conf = tmp_path / "approx.conf"
        me = {"$user approx": "$user root", "$group approx": "$group root"}
        text = texts["approx.conf"].replace("/var/cache/domu-mirror", str(tmp_path / "cache"))
        for given, mine in me.items():
            text = text.replace(given, mine)
        conf.write_text(text)
        (line,) = [
            line for line in texts["domu-mirror@.service"].splitlines() if "ExecStart" in line
        ]
        words = line.partition("=-")[2].replace("/etc/domu-mirror/approx.conf", str(conf)).split()
        assert f"ListenStream={port}" in texts["domu-mirror.socket"]
        listener = ["systemd-socket-activate", "-l", f"{LOCALHOST}:{port}", "--accept", "--inetd"]
        with subprocess.Popen([*listener, *words], stderr=subprocess.DEVNULL) as server:
            try:
                # a look at the port would be taken for a connection
                wait_for(
                    lambda: ask(f"http://{LOCALHOST}:{port}/debian{INRELEASE}") == wanted, "approx"
                )
            finally:
                server.kill()
    assert (tmp_path / "cache" / f"debian{INRELEASE}").is_file()


def test_the_word_writes_them_and_never_over_something_else(tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "output")
    words = ("mirror-proxy", f"units={tmp_path}/lab", "upstream=http://mirror.example.org/debian")
    said = shop.doit(*words, "port=9998", ends=0)
    assert "systemctl enable --now domu-mirror.socket" in said.said
    conf = tmp_path / "lab/etc/domu-mirror/approx.conf"
    assert "debian http://mirror.example.org/debian\n" in conf.read_text()
    assert shop.doit(*words, "port=9998").code == 0
    assert (shop.doit(*words, "port=9997").code, conf.is_file()) == (2, True)


def test_a_unit_that_somebody_changed_is_left_alone(tmp_path: Path) -> None:
    files = render_units("approx", 9999, {})
    path = write_units(files, tmp_path)[0]
    path.write_text("# mine\n")
    with pytest.raises(UsageError, match="says something else"):
        write_units(files, tmp_path)
    assert path.read_text() == "# mine\n"
