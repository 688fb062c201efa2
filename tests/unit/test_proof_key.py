"""The key of one proof alone: where it is put, and what a person is told when it cannot be."""

import ast
import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from pipeline.errors import Broken
from pipeline.guest import sshd_config
from pipeline.proof import ephemeral_key
from pipeline.proof.agent import Agent
from pipeline.proof.artifact import Artifact
from pipeline.proof.course import _see_unchanged
from pipeline.proof.ephemeral_key import inject_key
from pipeline.proof.evidence import Evidence
from pipeline.proof.session import Asked, Session
from pipeline.proof.testbed import Ground
from pipeline.xen import xl
from tests.specs import make_spec

SCRIPT = Path(ephemeral_key.__file__).with_name("host") / "authorize"
PASSWD = "daemon:x:1:1::/:/x\nroot:x:0:0:root:/root:/bin/sh\n"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "sshd_config", sshd_config)
    loader = importlib.machinery.SourceFileLoader("authorize", str(SCRIPT))
    spec = importlib.util.spec_from_loader("authorize", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Texts:
    def __init__(self, **texts: str) -> None:
        self.texts = {f"/etc/{name.replace('_', '/', 1)}": text for name, text in texts.items()}
        self.oversized: set[str] = set()

    def text(self, path: str) -> str:
        return self.texts.get(path, "")

    def glob(self, pattern: str) -> list[str]:
        return []


def test_what_runs_in_the_oldest_test_host_is_written_for_its_python() -> None:
    for path in (SCRIPT, Path(sshd_config.__file__)):
        ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize(
    ("sshd", "passwd", "path"),
    [
        ("UsePAM yes\n", PASSWD, "/root/.ssh/authorized_keys"),
        ("UsePAM yes\n", PASSWD.replace(":/root:", ":/home/r:"), "/home/r/.ssh/authorized_keys"),
        ("AuthorizedKeysFile /etc/ssh/%u/%U%%\n", PASSWD, "/etc/ssh/root/0%"),
        ("AuthorizedKeysFile %h/../keys\n", PASSWD, "/keys"),
    ],
)
def test_the_key_goes_where_the_guests_own_sshd_looks(
    script: ModuleType, sshd: str, passwd: str, path: str
) -> None:
    assert script.find_file(Texts(ssh_sshd_config=sshd, passwd=passwd)) == path


def test_a_guest_that_lets_no_root_in_says_so(script: ModuleType) -> None:
    with pytest.raises(script.Unwilling, match="no root in by key: permitrootlogin no"):
        script.find_file(Texts(ssh_sshd_config="PermitRootLogin no\n", passwd=PASSWD))
    with pytest.raises(script.Unwilling, match="it has no /etc/ssh/sshd_config"):
        script.find_file(Texts(passwd=PASSWD))


def test_keys_that_are_there_stay(script: ModuleType, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ssh-ed25519 AAAA me")
    keys.chmod(0o640)
    script.append(str(keys), "ssh-ed25519 BBBB proof")
    assert keys.read_text() == "ssh-ed25519 AAAA me\nssh-ed25519 BBBB proof\n"
    assert keys.stat().st_mode & 0o777 == 0o640

    made = tmp_path / "root/.ssh/authorized_keys"
    script.append(str(made), "ssh-ed25519 BBBB proof")
    assert made.read_text() == "ssh-ed25519 BBBB proof\n"
    assert made.stat().st_mode & 0o777 == 0o600
    assert made.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(script.Unwilling, match="is no file"):
        script.append("/dev/null", "x")


def test_the_disk_of_the_root_is_opened_first_and_names_of_old_are_known(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def note(disks: Any, number: int) -> str:
        opened.append(disks.order[number]["vdev"])
        return f"/dev/nothing{number}"

    monkeypatch.setattr(script.Disks, "_open", note)
    order = [{"vdev": name} for name in ("sda", "xvdb1", "xvdb2")]
    disks = script.Disks(order, 1.0, None)
    assert next(disks.places("/dev/xvdb2")) == ("xvdb2", "/dev/nothing2", 2)
    assert opened == ["xvdb2"]
    assert next(disks.places("/dev/xvda3"))[0] == "sda"
    assert disks.find("/dev/sdb1") == ("/dev/nothing1", 1)
    with pytest.raises(script.Unwilling, match="/dev/xvdz of its /etc/fstab is on none"):
        disks.find("/dev/xvdz")


class Answering:
    """An agent whose only program answers so."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.order: dict[str, Any] = {}

    def demand(self, argv: list[str], *, stdin: bytes, timeout_s: float) -> str:
        self.order = json.loads(stdin)
        return f"{json.dumps(self.answer)}\n"


def built(**keys: object) -> Artifact:
    text = (
        'name = "web1"\nmemory = 256\nkernel = "/k"\nroot = "/dev/xvda1"\n'
        'vif = [ "bridge=br-xen" ]\n'
        'disk = [ "format=qcow2,vdev=xvda1,access=rw,target=/x/disk.qcow2" ]\n'
    )
    domain = xl.parse(text, strict=False)
    return Artifact(Path("/x"), Path("/x/web1.cfg"), Path("/x/proof"), domain, make_spec(**keys))


@pytest.mark.parametrize(
    ("suite", "kind"), [("bookworm", "ssh-ed25519"), ("wheezy", "ecdsa-sha2-nistp256")]
)
def test_what_was_put_in_is_recorded_and_its_secret_is_not(suite: str, kind: str) -> None:
    agent = Answering({"path": "/root/.ssh/authorized_keys", "disk": 0})
    credential = inject_key(cast(Agent, agent), built(suite=suite))

    assert agent.order["disks"] == [{"device": "/x/disk.qcow2", "format": "qcow2", "vdev": "xvda1"}]
    assert agent.order["root"] == "/dev/xvda1"
    assert agent.order["line"].split(" ", 2)[::2] == [kind, "of one proof alone"]
    assert credential.injected["path"] == "/root/.ssh/authorized_keys"
    assert credential.injected["into"] == "the overlay of disk.qcow2"
    assert credential.injected["key"].startswith("SHA256:")
    load_ssh_private_key(credential.key, None)
    assert (
        b"PRIVATE"
        not in json.dumps(Evidence("web1", injected=credential.injected).to_json()).encode()
    )
    assert "PRIVATE" not in repr(credential)


def test_why_it_was_not_put_in_is_told_and_a_broken_host_is_not_the_guests_fault() -> None:
    credential = inject_key(cast(Agent, Answering({"why": "no such thing"})), built())
    assert (credential.key, credential.reason, credential.injected) == (b"", "no such thing", {})
    with pytest.raises(Broken, match="where it put the key"):
        inject_key(cast(Agent, Answering(["?"])), built())


class RealDom0:
    is_alone = False
    agent = None


def test_on_a_real_dom0_nothing_is_put_in(tmp_path: Path) -> None:
    ground = cast(Ground, RealDom0())
    session = Session(ground, built(), Evidence("web1"), Asked())
    assert "give prove_key=PATH" in session.find_credential().reason
    key = tmp_path / "key"
    key.write_bytes(b"private")
    session = Session(ground, built(), Evidence("web1"), Asked(key))
    assert session.find_credential().key == b"private"
    assert session.evidence.injected == {}


def test_an_artifact_that_changed_meanwhile_is_not_proven(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(8192))
    configuration = tmp_path / "web1.cfg"
    configuration.write_text('name = "web1"\n')
    text = (
        f'name = "web1"\nmemory = 256\nbootloader = "pygrub"\n'
        f'disk = [ "format=raw,vdev=xvda1,access=rw,target={tmp_path}/disk.img" ]\n'
    )
    artifact = Artifact(tmp_path, configuration, tmp_path, xl.parse(text, strict=False))
    evidence = Evidence("web1", digests=artifact.digests())
    _see_unchanged(artifact.folder, evidence)
    assert evidence.to_json()["unchanged"] is True

    (tmp_path / "disk.img").write_bytes(bytes(8191) + b"x")
    evidence = Evidence("web1", digests=evidence.digests)
    with pytest.raises(Broken, match="disk.img is not what was booted"):
        _see_unchanged(artifact.folder, evidence)
    assert evidence.to_json()["unchanged"] is False
