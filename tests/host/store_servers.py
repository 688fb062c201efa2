"""Servers that a shared store may lie on: s3 (moto's), sftp (openssh's), each on loopback."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from tests.patience import free_port, listens, wait_for
from tests.wire import LOCALHOST

BUCKET = "builds"
_AWS = {
    "AWS_ACCESS_KEY_ID": "of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}
_PRIVILEGE_SEPARATION = Path("/run/sshd")


class Server:
    """A program that listens on a port; may be killed and started again."""

    def __init__(self, argv: list[str], port: int) -> None:
        self._argv, self.port = argv, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(lambda: listens(self.port) or self._has_ended(), f"{self._argv[0]} listens")
        assert not self._has_ended(), f"{self._argv[0]} ended"

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """It and the processes of its connections."""
        if self._process is not None:
            for pid in [self._process.pid, *_descendants(self._process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def _descendants(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from _descendants(int(child))


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """With an empty bucket; the environment has what a client needs."""
    port = free_port()
    server = Server([sys.executable, "-m", "moto.server", "-H", LOCALHOST, "-p", str(port)], port)
    for name, value in {**_AWS, "AWS_ENDPOINT_URL": f"http://{LOCALHOST}:{port}"}.items():
        monkeypatch.setenv(name, value)
    server.start()
    try:
        make_bucket()
        yield server
    finally:
        server.kill()


def make_bucket() -> None:
    S3FileSystem(skip_instance_cache=True).mkdir(BUCKET)


@contextmanager
def sftp_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """For this user's own key, which HOME has from now on, with the server in known_hosts."""
    home = root / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    keys = {"host": root / "host_key", "own": home / ".ssh/id_ed25519"}
    for path in keys.values():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    port = free_port()
    config = root / "sshd_config"
    config.write_text(
        f"ListenAddress {LOCALHOST}\nPort {port}\nHostKey {keys['host']}\nPidFile none\n"
        f"AuthorizedKeysFile {keys['own']}.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nSubsystem sftp internal-sftp\nPermitRootLogin yes\n"
    )
    host_key = Path(f"{keys['host']}.pub").read_text()
    (home / ".ssh/known_hosts").write_text(f"[{LOCALHOST}]:{port} {host_key}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    if os.geteuid() == 0:  # stays, as Debian's service leaves it: another test may need it too
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    server = Server(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], port)
    server.start()
    try:
        yield server
    finally:
        server.kill()
