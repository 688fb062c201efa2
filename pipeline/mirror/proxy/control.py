"""Starting, watching and ending the caching proxy; one at a time for an output folder."""

import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline import process
from pipeline.console.progress import print_line
from pipeline.errors import EnvironmentFault, InUseError, PipelineError
from pipeline.locks import locked
from pipeline.mirror.fetch import is_answering
from pipeline.mirror.mirrors import Archive, resolve_mirror
from pipeline.mirror.proxy.engines import HOMES, PACKAGES, Plan
from pipeline.mirror.proxy.settings import LOCALHOST, MANAGED, ProxySettings, read_settings
from pipeline.namespace import bind, is_root, isolated
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.suites import SUITES

PATIENCE_S = 20.0
_MODULE = "pipeline.mirror.proxy.serve"
_tethered: dict[Path, process.Daemon] = {}  # kept: a closed pipe would end it
_starting = threading.Lock()


@dataclass(frozen=True)
class Status:
    """Whether the proxy runs and answers; its process, cache in bytes, and who it is."""

    is_running: bool
    settings: ProxySettings
    pid: int
    cache_bytes: int
    files: int


class ProxyControl:
    """The managed proxy of a project, with the settings of mirrors/proxy.toml or given ones."""

    def __init__(self, project: Project, settings: ProxySettings | None = None) -> None:
        self.settings = settings or read_settings(project.mirrors)
        self._mirrors = project.mirrors
        self.folder = project.output / "proxy"
        self.cache = self.folder / self.settings.proxy
        self.log = self.folder / "proxy.log"

    def status(self) -> Status:
        """How it is now."""
        files = [path for path in self.cache.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        pid = self._pid()
        return Status(bool(pid) and self._answers(), self.settings, pid, size, len(files))

    def ensure(self, *, stays: bool = False) -> bool:
        """Start it unless it runs; True when it was started now. Raises PipelineError."""
        with _starting, locked(self.folder / ".lock"):
            if self._pid() and self._answers():
                return False
            process.require_tools({self.settings.proxy: PACKAGES[self.settings.proxy]})
            self._refuse_stranger()
            self._start(stays=stays)
            return True

    def stop(self) -> bool:
        """End it; False when it did not run."""
        pid = self._pid()
        if not pid:
            return False
        for which in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(pid, which)
            if self._wait_for_end(pid):
                break
        self._state.unlink(missing_ok=True)
        return True

    @property
    def _state(self) -> Path:
        return self.folder / "running.json"

    def _pid(self) -> int:
        """The process of ours that runs, or 0; a number alone may be somebody else's by now."""
        if not self._state.is_file():
            return 0
        pid = int(json.loads(self._state.read_text())["pid"])
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return 0
        return pid if _MODULE.encode() in words else 0

    def _answers(self) -> bool:
        return is_answering(f"http://{LOCALHOST}:{self.settings.port}/")

    def _refuse_stranger(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOCALHOST, self.settings.port))
            except OSError:
                address = self.settings.address
                raise InUseError(
                    f"{address} is taken by a program that is not our proxy",
                    hint=f"if it is a proxy of this machine, use it: mirror={address}; or choose "
                    "another port= (mirrors/proxy.toml)",
                ) from None

    def _start(self, *, stays: bool) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        engine = self.settings.proxy
        home = HOMES[engine]
        # root's cache is seen where the engine's own user can reach it, wherever output/ is
        is_moved = is_root() and home.is_dir()
        plan = Plan(
            engine=engine,
            port=self.settings.port,
            folder=str(home if is_moved else self.cache),
            upstreams=find_upstreams(self.settings.upstream, self._mirrors),
            user=engine if is_moved else "",
        )
        if is_root() and not is_moved:
            raise EnvironmentFault(
                f"{home}: no such folder, so {engine} would run as root",
                hint=f"apt-get install --reinstall {PACKAGES[engine]}, or run as another user",
            )
        path = self.folder / "plan.json"
        path.write_text(json.dumps(asdict(plan)))
        argv: list[str | Path] = [sys.executable, "-m", _MODULE, path]
        mounts = [bind(self.cache, home)] if is_moved else []
        words = isolated(argv, mounts=mounts) if is_moved else [str(word) for word in argv]
        child = process.start_daemon(words, log=self.log, is_tethered=not stays)
        self._state.write_text(json.dumps({"pid": child.pid, "stays": stays}))
        if not stays:
            _tethered[self.folder] = child
        self._wait_until_it_answers(child)

    def _wait_until_it_answers(self, child: process.Daemon) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and child.poll() is None:
            if self._answers():
                return
            time.sleep(0.05)
        last = self.log.read_text(errors="replace").splitlines()[-10:]
        self.stop()
        raise PipelineError(
            f"{self.settings.proxy} does not answer on {self.settings.address}",
            details="\n".join(last),
            hint=f"its log is {self.log}",
        )

    def _wait_for_end(self, pid: int) -> bool:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            child = _tethered.get(self.folder)
            if child is not None:
                child.poll()
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if not self._pid():
                return True
            time.sleep(0.05)
        return False


def find_upstreams(upstream: str, mirrors: Path) -> dict[str, str]:
    """The archives that the proxy's names stand for, from `upstream` (any form of mirror=)."""
    found: dict[str, str] = {}
    for suite in (SUITES["bookworm"], SUITES["noble"]):
        archive = resolve_mirror(upstream, suite, mirrors)
        found[suite.distribution] = archive.root
        if suite.security_path != suite.distribution:
            found[suite.security_path] = archive.security_root
    return found


def require_proxy(spec: Spec, project: Project) -> None:
    """Have the proxy run where the spec's mirror is it; it ends with this process."""
    if spec.mirror == MANAGED:
        control = ProxyControl(project)
        if control.ensure():
            print_line(f"     {control.settings.proxy} started on {control.settings.address}")


def with_cache(spec: Spec, project: Project, archives: tuple[Archive, ...]) -> tuple[Archive, ...]:
    """The same archives, knowing where our own proxy keeps its copies."""
    if spec.mirror != MANAGED:
        return archives
    cache = str(ProxyControl(project).cache)
    return tuple(replace(one, way=replace(one.way, cache=cache)) for one in archives)
