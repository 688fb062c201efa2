"""`doit push` against a pool's master on loopback: what arrives, and every way in which it may not.

No XAPI server can be had offline: that an XCP-ng imports it was not seen (docs/how-to/xcp-ng.md).
"""

import hashlib
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.host.certificates import Authority
from tests.unit.test_xva import make_disk, written
from tests.xapi_stub import PASSWORD, SR_UUID, VM_UUID, Stub, serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
MIB = 1 << 20


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def pool(authority: Authority) -> Iterator[Stub]:
    with serving(Stub(), authority.context()) as stub:
        yield stub


@pytest.fixture
def xva(tmp_path: Path) -> Path:
    disk = make_disk(tmp_path / "disk.img", size=48 * MIB, written=tuple(range(0, 48 * MIB, MIB)))
    path = tmp_path / "web1.xva"
    path.write_bytes(written([disk]))
    return path


class Pusher:
    """The command line, and where its secrets and certificates are."""

    def __init__(self, folder: Path, certificate: Path, xva: Path) -> None:
        self.certificate, self.xva = certificate, xva
        self.password = folder / "password"
        self.password.write_text(f"{PASSWORD}\n")
        self.password.chmod(0o600)
        self.environment = {**os.environ, "DOMU_OUTPUT": str(folder / "output")}

    def words(self, pool: Stub, *more: str) -> list[str]:
        line = [f"host=127.0.0.1:{pool.port}", f"from={self.xva}", f"password={self.password}"]
        if not any(word.startswith("fingerprint=") for word in more):
            line.append(f"certificate={self.certificate}")
        return [sys.executable, "-m", "pipeline", "push", "name=web1", *line, *more]

    def push(self, pool: Stub, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(pool, *more),
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def pusher(tmp_path: Path, authority: Authority, xva: Path) -> Pusher:
    return Pusher(tmp_path, authority.file, xva)


def test_a_machine_arrives_whole(pool: Stub, pusher: Pusher, tmp_path: Path) -> None:
    done = pusher.push(pool)

    assert done.returncode == 0, done.stderr
    assert list(pool.disks.values()) == [(tmp_path / "disk.img").read_bytes()]
    assert pool.machine["name_label"] == "web1"
    assert f"web1 is at 127.0.0.1:{pool.port}: {VM_UUID}" in done.stdout
    assert f"xe vif-create vm-uuid={VM_UUID}" in done.stdout
    assert [task["destroyed"] for task in pool.tasks.values()] == [True]
    assert pool.calls[-1] == "session.logout"
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["Local storage", SR_UUID])
def test_a_storage_is_named_by_its_label_or_uuid(pool: Stub, pusher: Pusher, name: str) -> None:
    pool.has_default = False

    assert pusher.push(pool, f"sr={name}").returncode == 0


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("sr=", "has no default storage"),
        ("sr=twice", "has several of storage 'twice'"),
        ("sr=nowhere", "has no storage 'nowhere'"),
    ],
)
def test_no_storage_or_several_is_told(pool: Stub, pusher: Pusher, word: str, told: str) -> None:
    pool.has_default = False

    done = pusher.push(pool, *([word] if word != "sr=" else []))

    assert done.returncode == 2
    assert told in done.stderr
    assert not pool.tasks


def test_a_wrong_password_is_told(pool: Stub, pusher: Pusher) -> None:
    pusher.password.write_text("wrong\n")

    done = pusher.push(pool)

    assert done.returncode == 2
    assert "does not let root in with this password" in done.stderr
    assert "wrong" not in done.stderr


def test_the_environment_has_the_password_too(pool: Stub, pusher: Pusher) -> None:
    words = [word for word in pusher.words(pool) if not word.startswith("password=")]
    for password, status in (("", 2), (PASSWORD, 0)):
        environment = {**pusher.environment, "DOMU_XAPI_PASSWORD": password}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert status == 0 or "DOMU_XAPI_PASSWORD in the environment" in done.stderr


def test_a_password_that_others_read_is_refused(pool: Stub, pusher: Pusher) -> None:
    pusher.password.chmod(0o644)

    done = pusher.push(pool)

    assert done.returncode == 3
    assert "any user may read this password" in done.stderr
    assert not pool.calls


def test_a_member_names_its_master(pool: Stub, pusher: Pusher, authority: Authority) -> None:
    with serving(Stub(master=f"127.0.0.1:{pool.port}"), authority.context()) as member:
        done = pusher.push(member)

    assert done.returncode == 0, done.stderr
    assert f"web1 is at 127.0.0.1:{pool.port}" in done.stdout
    assert member.calls == ["session.login_with_password"]


@pytest.mark.parametrize(
    ("reason", "status", "told"),
    [
        (["INVALID_VALUE", "bridge", "xenbr7"], 1, "refuses it: INVALID_VALUE, bridge, xenbr7"),
        (["SR_BACKEND_FAILURE_44", "", "There is insufficient space"], 3, "has no room for it"),
        (["TASK_CANCELLED", "OpaqueRef:x"], 1, "somebody cancelled it there"),
    ],
)
def test_a_task_that_fails_says_why(
    pool: Stub, pusher: Pusher, reason: list[str], status: int, told: str
) -> None:
    pool.ends_with = reason

    done = pusher.push(pool)

    assert done.returncode == status
    assert told in done.stderr
    assert [task["destroyed"] for task in pool.tasks.values()] == [True]


def test_what_a_pool_does_not_take_is_told_by_its_rule(pool: Stub, pusher: Pusher) -> None:
    with open(pusher.xva, "r+b") as stream:
        stream.seek(2 * MIB)
        stream.write(b"another")

    done = pusher.push(pool)

    assert done.returncode == 1
    assert "IMPORT_ERROR, checksum: Ref:002/00000001" in done.stderr


def test_a_connection_that_is_cut_undoes_the_task(pool: Stub, pusher: Pusher) -> None:
    pool.cuts_after = 5 * MIB
    pool.is_slow = True

    done = pusher.push(pool)

    assert done.returncode == 3
    assert "the connection was cut" in done.stderr
    assert [(task["status"], task["destroyed"]) for task in pool.tasks.values()] == [
        ("cancelled", True)
    ]


def test_a_cut_connection_is_told_by_the_tasks_own_reason(pool: Stub, pusher: Pusher) -> None:
    pool.cuts_after = 5 * MIB
    pool.ends_with = ["SR_BACKEND_FAILURE_44", "", "no space left on device"]

    done = pusher.push(pool)

    assert done.returncode == 3
    assert "has no room for it" in done.stderr


@pytest.mark.parametrize("holds", ["", "task.get_record"])
def test_an_interruption_cancels_the_import(pool: Stub, pusher: Pusher, holds: str) -> None:
    """While the disk is sent; and in the middle of a call."""
    pool.is_slow = True
    pool.holds = holds
    words = pusher.words(pool)
    child = subprocess.Popen(
        words, cwd=ROOT, env=pusher.environment, stderr=subprocess.PIPE, text=True
    )
    assert pool.is_receiving.wait(60)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)

    assert child.returncode == 130, told
    assert "nothing was left behind" in told
    assert [task["status"] for task in pool.tasks.values()] == ["cancelled"]


def test_a_certificate_that_nobody_vouches_for_is_refused(pool: Stub, pusher: Pusher) -> None:
    words = [word for word in pusher.words(pool) if not word.startswith("certificate=")]
    done = subprocess.run(words, cwd=ROOT, env=pusher.environment, capture_output=True, text=True)

    assert done.returncode == 5
    assert "its certificate is not vouched for" in done.stderr
    assert "fingerprint=SHA256 pins it" in done.stderr
    assert not pool.calls


def test_a_fingerprint_pins_the_certificate(pool: Stub, pusher: Pusher) -> None:
    shown = ssl.get_server_certificate(("127.0.0.1", pool.port))
    right = hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest()

    assert pusher.push(pool, f"fingerprint={right.upper()}").returncode == 0

    pool.calls.clear()
    done = pusher.push(pool, f"fingerprint={'0' * 64}")
    assert done.returncode == 5
    assert f"shows another certificate: {right}" in done.stderr
    assert not pool.calls


def test_nobody_there_is_told(pusher: Pusher, authority: Authority) -> None:
    with serving(Stub(), authority.context()) as gone:
        pass
    done = pusher.push(gone)

    assert done.returncode == 3
    assert "cannot be reached: Connection refused" in done.stderr


def test_a_guest_that_is_not_built_is_told(pool: Stub, pusher: Pusher) -> None:
    words = [word for word in pusher.words(pool) if not word.startswith("from=")]
    done = subprocess.run(words, cwd=ROOT, env=pusher.environment, capture_output=True, text=True)

    assert done.returncode == 2
    assert "holds no finished web1" in done.stderr
    assert not pool.calls
