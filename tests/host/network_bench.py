"""Machines that are namespaces: a host with a Debian tree as its root, guests, a server outside.

Every machine is a process in namespaces of its own, which the kernel takes down with it; cables are
veth pairs. What a host writes is in memory: its tree stays as it is.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.dom0.setup.bridges import NETWORK
from pipeline.dom0.setup.host_file import Command
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.nat import FORWARDING, pid_path
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.stages import STAGES
from tests.conftest import ROOT
from tests.specs import make_spec
from tests.workshop import Workshop

PACKAGES = ("ifupdown", "bridge-utils", "nftables", "dnsmasq-base", "procps", "iproute2", "dbus")
# a tree as the root of a host: its /etc a copy in memory, as what programs write
_ROOT = """
set -e
cd "$1"
for folder in mnt run tmp var/lib/misc; do mount -t tmpfs -o mode=755 tmpfs $folder; done
cp -a etc/. mnt && mount --bind mnt etc && mount --rbind /dev dev
mount -t proc proc proc && mount -t sysfs -o ro sysfs sys
ip link set lo up && touch run/ready
while sleep 0.2; do :; done
"""
# answers each line with who asked and the line
_SERVER = """
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(self.client_address[0].encode() + b" " + line)
            self.wfile.flush()
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("0.0.0.0", {port}), Echo).serve_forever()
"""
_ASK = """
import socket, sys
with socket.create_connection(("{address}", {port}), timeout={timeout}) as line:
    line.sendall(b"hello\\n")
    print(line.makefile().readline(), end="")
"""
# a line that stays open: what is typed is sent
_LINE = """
import socket, sys
line = socket.create_connection(("{address}", {port}), timeout=60)
answers = line.makefile()
for word in sys.stdin:
    line.sendall(word.encode())
    print(answers.readline(), end="", flush=True)
"""


def build_tree(workshop: Workshop, suite: str, folder: Path) -> Path:
    """The root of a host of a release, built by the pipeline."""
    project = Project(ROOT, workshop.output, workshop.guests)
    spec = make_spec(name=f"host-{suite}", suite=suite, packages=PACKAGES)
    recipe = Recipe(project, STAGES)
    states = {stage: recipe.build(stage, spec) for stage in ("mirror", "base", "kernel", "rootfs")}
    tree = folder / suite
    tree.mkdir(parents=True)
    left_out = [f"--exclude=./{name}/*" for name in ("dev", "usr/lib/modules", "lib/modules")]
    tar = states["rootfs"].folder / "rootfs.tar"
    subprocess.run(["tar", "-C", tree, *left_out, "-xpf", tar], check=True)
    (tree / "etc/network/interfaces.d").mkdir(parents=True, exist_ok=True)
    return tree


class Machine:
    """A network of its own and, with a tree, a root of its own."""

    def __init__(self, pid: int, tree: Path | None = None) -> None:
        self.pid, self.tree = pid, tree

    @property
    def root(self) -> Path:
        """Its root as it sees it."""
        assert self.tree
        return Path(f"/proc/{self.pid}/root") / self.tree.relative_to("/")

    def words(self, *argv: str) -> list[str]:
        """A command within it: of its own tree, or of this machine's."""
        enter = ["nsenter", "--target", str(self.pid), "--net"]
        chroot = ["chroot", str(self.tree), "env", "SYSTEMD_IGNORE_CHROOT=1"]
        own = ["--mount", "--pid", "--", *chroot] if self.tree else ["--"]
        return [*enter, *own, *argv]

    def run(self, *argv: str, accept: bool = True) -> str:
        """What it prints; with `accept` it must succeed."""
        done = subprocess.run(
            self.words(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert not accept or done.returncode == 0, f"{argv}: {done.stdout}"
        return done.stdout

    def outside(self, *argv: str, accept: bool = True) -> str:
        """The same with this machine's programs in its network."""
        return self._bare().run(*argv, accept=accept)

    def ask(self, address: str, port: int = 7, timeout: float = 3) -> str:
        """What an echo server says: who asked, as it sees it; "" where it cannot be reached."""
        script = _ASK.format(address=address, port=port, timeout=timeout)
        said = self.outside(sys.executable, "-c", script, accept=False)
        return said.split(" hello")[0] if said.endswith(" hello\n") else ""

    @contextmanager
    def serving(self, *ports: int) -> Iterator[None]:
        """Echo servers."""
        scripts = [_SERVER.format(port=port) for port in ports]
        words = [self._bare().words(sys.executable, "-c", script) for script in scripts]
        servers = [subprocess.Popen(argv) for argv in words]
        try:
            for port in ports:
                while not self.ask("127.0.0.1", port):
                    time.sleep(0.1)
            yield
        finally:
            for server in servers:
                server.kill()
                server.wait()

    @contextmanager
    def connected(self, address: str, port: int = 7) -> Iterator[Line]:
        """An open connection."""
        script = _LINE.format(address=address, port=port)
        argv = self._bare().words(sys.executable, "-c", script)
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield Line(process)
            finally:
                process.kill()

    def _bare(self) -> Machine:
        return Machine(self.pid)


class Line:
    """A connection that stays open."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, word: str) -> str:
        """A line, and what comes back."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@contextmanager
def machine(tree: Path | None = None) -> Iterator[Machine]:
    """A machine, with `tree` as its root, which stays as it is."""
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    script = _ROOT if tree else "ip link set lo up; while sleep 1; do :; done"
    with subprocess.Popen([*argv, "sh", "-c", script, "sh", str(tree)]) as process:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not children.read_text():
                time.sleep(0.02)
            made = Machine(int(children.read_text()), tree)
            while tree and not (made.root / "run/ready").exists():
                time.sleep(0.02)
            yield made
        finally:
            process.kill()


def connect(one: Machine, name: str, other: Machine, other_name: str) -> None:
    """A cable between two machines, its ends called so."""
    ends = ["name", other_name, "netns", str(other.pid)]
    one.outside("ip", "link", "add", name, "type", "veth", "peer", *ends)
    one.outside("ip", "link", "set", name, "up")
    other.outside("ip", "link", "set", other_name, "up")


class Change:
    """dom0.toml on a host: its files written and taken back, with the commands around that."""

    def __init__(self, host: Machine, **tables: object) -> None:
        self.host, self.settings = host, HostSettings.model_validate(tables)
        self.before: dict[Path, bytes | None] = {}

    def seen(self) -> HostView:
        """The host as it is at this moment."""
        # /proc/sys/net is that of whoever reads it
        forwards = self.host.run("cat", FORWARDING).encode()
        return replace(HostView.of(self.host.root), changed={FORWARDING: forwards})

    def apply(self) -> None:
        """At once (now=yes)."""
        nothing, settings = HostSettings(), self.settings
        self._run(NETWORK.deactivate(nothing, settings, self.seen()))
        for file in list(NETWORK.render(settings, self.seen())):
            place = self.host.root / file.path.lstrip("/")
            if not file.link:
                self.before[place] = place.read_bytes() if place.exists() else None
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.content or b"")
        self._run(NETWORK.after(settings, self.seen()))
        self._run(NETWORK.activate(nothing, settings, self.seen()))

    def undo(self) -> None:
        """The same taken back."""
        nothing, settings = HostSettings(), self.settings
        self._run(NETWORK.deactivate(settings, nothing, self.seen()))
        for place, content in self.before.items():
            if content is None:
                place.unlink()
            else:
                place.write_bytes(content)
        self._run(NETWORK.activate(settings, nothing, self.seen()))

    def _run(self, commands: Iterable[Command]) -> None:
        """On the host; a unit's own lines where systemd would run them, which is not its init."""
        for command in commands:
            if command[0] == "systemctl":
                self._run_unit(*command[1:])
            else:
                print(command, self.host.run(*command), flush=True)

    def _run_unit(self, verb: str, name: str = "") -> None:
        kinds = {"restart": ("ExecStartPre", "ExecStart"), "stop": ("ExecStopPost",)}.get(verb, ())
        path = self.host.root / "etc/systemd/system" / name
        lines = [line.split("=", 1) for line in path.read_text().splitlines()] if kinds else []
        if verb == "stop":
            pid = pid_path(name.removeprefix("domu-nat-").removesuffix(".service"))
            words = ["--stop", "--retry", "5", "--pidfile", pid, "--name", "dnsmasq"]
            self.host.run("start-stop-daemon", *words)
        for kind in kinds:
            for command in (line[1].split() for line in lines if line[0] == kind):
                # -k: it would not go to the background
                program, *words = (word for word in command if word != "-k")
                self.host.run(program.lstrip("-"), *words)
