"""What `doit adopt` reads of a machine that runs: over ssh, with its other disks."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentFault
from pipeline.namespace import isolated
from pipeline.process import run
from tests.conftest import require
from tests.host.test_adopt_sources import PASSING, bring
from tests.patience import free_port, listens, wait_for
from tests.workshop import Workshop

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Sshd:
    """A machine that answers on loopback; `known` has its host key, `key` opens it."""

    port: int
    key: Path
    known: Path
    root: Path


@contextmanager
def serving(root: Path, folder: Path) -> Iterator[Sshd]:
    """sshd of a guest's tree, in a namespace with that tree as its root and a second disk."""
    key, known, data = folder / "key", folder / "known", folder / "data.img"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / "etc/ssh/test_key"])
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    (root / "root/.ssh/authorized_keys").write_text((folder / "key.pub").read_text())
    port = free_port()
    public = (root / "etc/ssh/test_key.pub").read_text()
    known.write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "data").mkdir()
    (folder / "data/there").write_text("on another disk\n")
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", folder / "data", data, "16M"])
    words = ["bwrap", "--die-with-parent", "--unshare-pid", "--bind", root, "/", "--proc", "/proc"]
    words += ["--dev", "/dev", "--tmpfs", "/run", "--dir", "/run/sshd", "--cap-add", "ALL", "--"]
    words += ["/usr/sbin/sshd", "-D", "-e", "-p", port, "-h", "/etc/ssh/test_key"]
    words += ["-o", "ListenAddress=127.0.0.1", "-o", "PermitRootLogin=yes"]
    mount = ["mount", "-o", "loop", data, root / "srv"]
    bind = ["mount", "--bind", root, root]
    daemon = subprocess.Popen([str(word) for word in isolated(words, before=[bind, mount])])
    try:
        wait_for(lambda: listens(port), "sshd")
        yield Sshd(port, key, known, root)
    finally:
        daemon.kill()
        daemon.wait()


@pytest.fixture(scope="module")
def sshd(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    require(os.geteuid() == 0, "sshd wants root")
    workshop.built("test-drbd")
    tars = sorted((workshop.output / "store/rootfs").glob("*/rootfs.tar"))
    tar = next(tar for tar in tars if "./usr/sbin/sshd\n" in run(["tar", "-tf", tar]))
    folder = tmp_path_factory.mktemp("machine")
    (folder / "root").mkdir()
    run(["tar", "-C", folder / "root", "-xpf", tar, "--exclude=./dev/*"])
    with serving(folder / "root", folder) as sshd:
        yield sshd


def test_a_machine_comes_over_ssh_with_its_other_disk(sshd: Sshd, tmp_path: Path) -> None:
    (sshd.root / "run/passing").write_text("x")
    url = f"ssh://root@127.0.0.1:{sshd.port}"

    got = bring(url, tmp_path / "scratch", key=sshd.key, known_hosts=sshd.known)

    assert got.kind == "machine"
    assert got.merged == ("/srv",)
    names = set(run(["tar", "-tf", got.tar]).splitlines())
    assert {"./srv/there", "./etc/ssh/test_key", "./usr/sbin/sshd"} <= names
    assert {name for name in names if name.startswith(PASSING)} == set(PASSING)
    assert any("ran while it was read" in note for note in got.notes)


def test_a_machine_whose_key_nobody_knows_is_not_asked(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    url = f"ssh://root@127.0.0.1:{sshd.port}"

    with pytest.raises(EnvironmentFault) as caught:
        bring(url, tmp_path / "scratch", key=sshd.key, known_hosts=tmp_path / "none")

    assert "compare its host key" in caught.value.hint


def test_a_machine_that_does_not_let_us_in_asks_for_no_password(sshd: Sshd, tmp_path: Path) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"])
    url = f"ssh://root@127.0.0.1:{sshd.port}"

    with pytest.raises(EnvironmentFault) as caught:
        bring(url, tmp_path / "scratch", key=tmp_path / "other", known_hosts=sshd.known)

    assert "key=FILE" in caught.value.hint
