"""pygrub as a user of its own: Xen's real program, and what an installation makes for it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.artifact.folder import read_source
from pipeline.dom0 import install, refresh, remove, restriction
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import read_installed, require_installed
from pipeline.dom0.kernels import purge_kernels
from pipeline.dom0.layout import Layout
from pipeline.errors import InUseError, UsageError
from pipeline.namespace import is_root
from pipeline.proof.loader import WATCHER, judge
from pipeline.storage.transaction import list_unfinished, recover_all
from pipeline.xen import xl
from pipeline.xen.boot import Pygrub
from pipeline.xen.render import render_xl
from tests.conftest import require
from tests.host.kill_points import SURVIVED, run_and_kill
from tests.host.small_artifact import ABIS, make_artifact, make_kernel
from tests.patience import wait_for

pytestmark = pytest.mark.integration
NAME, USER = "web1", "pygrub-web1"
# an account whose group has its number, on every Debian
OWN = "daemon"
MENU = (
    "menuentry 'Debian' {\n linux /boot/vmlinuz root=/dev/xvda1 ro\n initrd /boot/initrd.img\n}\n"
)
KERNEL = b"a kernel" * 400_000


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Xen's tools out of their packages, unpacked: the folder with pygrub."""
    place = tmp_path_factory.mktemp("xen")
    listed = subprocess.run(
        ["apt-cache", "pkgnames"], capture_output=True, text=True, check=True
    ).stdout.split()
    versions = sorted(re.findall(r"^xen-utils-(4\.\d+)$", "\n".join(listed), re.MULTILINE))
    require(bool(versions), "xen-utils-4.x in apt's lists (apt-get update)")
    names = [f"xen-utils-{versions[-1]}", f"libxenmisc{versions[-1]}"]
    subprocess.run(["apt-get", "download", *names], cwd=place, check=True, capture_output=True)
    for package in place.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, place / "root"], check=True)
    return next((place / "root/usr/lib").glob("xen-*/bin"))


@pytest.fixture
def launcher(tools: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Our program, with those tools for the host's."""
    require(is_root(), "mounts and changes users as xl does")
    loader = SourceFileLoader("restricted_pygrub", str(restriction.PROGRAM))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "PLACES", (str(tools),))
    monkeypatch.setattr(module, "TOOLS", "/nowhere")
    libraries = [str(path.parent) for path in tools.parents[3].rglob("libxenfsimage.so")]
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(libraries))
    (plugins,) = tools.parents[3].rglob("xenfsimage/ext2fs-lib")
    monkeypatch.setenv("XEN_FSIMAGE_FSDIR", str(plugins.parent))
    return module


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A guest's disk as it lies on a host: nobody but root may read it."""
    for name, content in (("grub/grub.cfg", MENU.encode()), ("vmlinuz", KERNEL)):
        path = tmp_path / "tree/boot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "tree/boot/initrd.img").write_bytes(KERNEL)
    image = tmp_path / "disk.img"
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tmp_path / "tree"), str(image), "48M"]
    subprocess.run(make, check=True)
    image.chmod(0o600)
    return image


def words_for(disk: Path, user: str) -> list[str]:
    output = disk.with_name("copied")
    output.mkdir(exist_ok=True)
    (disk.with_name("told")).touch()
    told = f"--output={disk.with_name('told')}"
    where = f"--output-directory={output}"
    return [f"--runas={user}", "--quiet", told, "--output-format=simple0", where, str(disk)]


@contextmanager
def watched(tools: Path, folder: Path) -> Iterator[Path]:
    """The proof's own watcher over this pygrub; what it notes."""
    output = folder / "seen"
    child = subprocess.Popen([WATCHER, output, tools / "pygrub"])
    try:
        while not (output.exists() and output.read_text()):
            assert child.poll() is None, "nobody watches"
            time.sleep(0.05)
        yield output
    finally:
        child.kill()
        child.wait()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except FileNotFoundError:
        return False


def test_the_real_pygrub_reads_the_disk_as_its_own_user_and_the_proof_sees_it(
    launcher: ModuleType, tools: Path, disk: Path
) -> None:
    with watched(tools, disk.parent) as seen:
        assert launcher.main(words_for(disk, OWN)) == 0
    told = dict(
        line.split(" ", 1) for line in disk.with_name("told").read_text().split("\0") if line
    )
    assert Path(told["kernel"]).read_bytes() == KERNEL
    assert told["args"] == "root=/dev/xvda1 ro"
    finding = judge(seen.read_text(), is_foreign=False)
    assert (finding.level, finding.seen.split(",")[0]) == ("ok", "user 1")
    # nothing of what let it in is left
    assert disk.stat().st_mode & 0o777 == 0o600
    assert os.listxattr(disk) == []


def test_a_pygrub_that_is_root_is_seen_as_one(
    launcher: ModuleType, tools: Path, disk: Path
) -> None:
    with watched(tools, disk.parent) as seen:
        words = [word for word in words_for(disk, OWN) if "runas" not in word]
        subprocess.run([launcher.find_pygrub(), *words], check=True)
    finding = judge(seen.read_text(), is_foreign=False)
    assert (finding.level, finding.seen.split(",")[0]) == ("error", "user 0")


def test_who_might_read_a_disk_before_may_do_so_while_pygrub_runs_and_nobody_else(
    launcher: ModuleType, disk: Path
) -> None:
    disk.chmod(0o640)
    own = launcher.read_acl(disk)
    reader = {**own, (launcher.USER, 4242): 6, (launcher.MASK, launcher.NOBODY): 2}
    launcher.write_acl(disk, reader)
    launcher.write_acl(disk, launcher.with_reader(launcher.read_acl(disk), 1))
    during = launcher.read_acl(disk)
    mask = during[launcher.MASK, launcher.NOBODY]
    assert during[launcher.USER, 1] & mask == 4
    assert during[launcher.USER, 4242] & mask == 2
    assert during[launcher.GROUP_OBJ, launcher.NOBODY] & mask == 0
    launcher.write_acl(disk, launcher.without_reader(launcher.read_acl(disk), 1))
    assert (launcher.USER, 1) not in launcher.read_acl(disk)


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("", "would run as root"),
        ("0", "as root"),
        ("root", "as root"),
        ("nobodyhere", "no user and group"),
        ("nobody", "not nobody's own"),
    ],
)
def test_without_a_user_of_its_own_pygrub_does_not_run(
    launcher: ModuleType, disk: Path, user: str, said: str
) -> None:
    words = words_for(disk, user)
    with pytest.raises(SystemExit, match=said):
        launcher.main(words if user else words[1:])
    assert list(disk.with_name("copied").iterdir()) == []


def test_a_pygrub_that_does_not_end_is_killed_with_its_children(
    launcher: ModuleType, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, note = tmp_path / "bin/pygrub", tmp_path / "child"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! >{note}\nwait\n")
    program.chmod(0o755)
    monkeypatch.setattr(launcher, "PLACES", (str(program.parent),))
    monkeypatch.setattr(launcher, "LIMIT_S", 1)
    assert launcher.main(words_for(disk, OWN)) == 128 + signal.SIGKILL
    wait_for(lambda: not is_running(int(note.read_text())), "the child's end")
    assert os.listxattr(disk) == []


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / NAME
    folder.mkdir(parents=True)
    kernel = make_kernel(tmp_path / "kernel", ABIS[0])
    return make_artifact(folder, NAME, kernel=kernel, type="pv", boot="pygrub")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    require(is_root(), "makes users")
    made = Layout(tmp_path / "root")
    (made.root / "etc").mkdir(parents=True)
    (made.root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nx:x:998:5::/:/bin/sh\n")
    (made.root / "etc/group").write_text("root:x:0:\nkvm:x:999:\n")
    return made


def put(artifact: Path, layout: Layout) -> None:
    source = read_source(artifact, name=NAME)
    plan = install.plan_install(source, layout, before=read_installed(layout, NAME))
    install.install(plan, layout, word="install", log=layout.root / "log")


def users(layout: Layout) -> list[str]:
    """Accounts and groups of guests."""
    texts = [(layout.root / "etc" / name).read_text() for name in ("passwd", "group")]
    return re.findall(r"^(pygrub-[^:]*:[^:]*:\d+)", "".join(texts), re.MULTILINE)


def test_an_installed_guest_has_a_user_whose_number_is_its_groups(
    artifact: Path, layout: Layout
) -> None:
    put(artifact, layout)
    assert [line.split(":")[2] for line in users(layout)] == ["997", "997"]
    line = (layout.root / "etc/passwd").read_text().splitlines()[-1]
    assert line.endswith(":/nonexistent:/usr/sbin/nologin")
    boot = xl.parse(layout.config(NAME).read_text()).boot
    assert boot == Pygrub(str(layout.launcher), user=USER)
    assert layout.launcher.stat().st_mode & 0o7777 == 0o755
    assert layout.launcher.read_bytes() == restriction.PROGRAM.read_bytes()
    put(artifact, layout)
    assert len(users(layout)) == 2
    remove.remove_guests([require_installed(layout, NAME)], layout)
    assert users(layout) == []
    assert not layout.launcher.parent.exists()


def test_a_user_that_is_not_the_guests_is_neither_taken_nor_removed(
    artifact: Path, layout: Layout
) -> None:
    with open(layout.root / "etc/passwd", "a") as stream:
        stream.write(f"{USER}:x:500:500:somebody:/home/x:/bin/sh\n")
    with pytest.raises(InUseError, match="not made for this guest"):
        put(artifact, layout)
    assert [line.split(":")[2] for line in users(layout)] == ["500"]
    assert not layout.config(NAME).exists()


def test_whenever_a_command_is_killed_a_guest_has_its_user_or_is_not_there(
    artifact: Path, layout: Layout, tmp_path: Path
) -> None:
    before = tmp_path / "before"

    def remove_it() -> None:
        remove.remove_guests([require_installed(layout, NAME)], layout)

    for action in (lambda: put(artifact, layout), remove_it):
        shutil.copytree(layout.root, before, symlinks=True)
        ended = set()
        for at in range(1, 500):
            shutil.rmtree(layout.root)
            shutil.copytree(before, layout.root, symlinks=True)
            status = run_and_kill(action, at)
            if status == SURVIVED:
                break
            assert status == -signal.SIGKILL
            recover_all(site_of(layout))
            purge_kernels(layout)
            assert not list_unfinished(site_of(layout))
            is_there = layout.config(NAME).exists()
            assert len(users(layout)) == (2 if is_there else 0), f"killed at {at}"
            assert layout.launcher.exists() == is_there, f"killed at {at}"
            ended.add(is_there)
        assert ended == {True, False}
        shutil.rmtree(before)


def make_old(artifact: Path, layout: Layout) -> None:
    """A guest as an earlier version installed it: pygrub as root, edited by its administrator."""
    put(artifact, layout)
    record = require_installed(layout, NAME)
    domain = replace(xl.parse(record.config_text), boot=Pygrub("pygrub"))
    text = render_xl(domain)
    layout.record(NAME).write_bytes(replace(record, config_text=text, rendered_text="").to_json())
    layout.config(NAME).write_text(f"{text}\n# ours\ncpu_weight = 512\n")
    restriction.perform_drop(layout, NAME)
    purge_kernels(layout)
    assert users(layout) == []
    assert not layout.launcher.exists()


def test_refresh_brings_a_guest_of_an_earlier_version_over_and_keeps_its_edits(
    artifact: Path, layout: Layout
) -> None:
    make_old(artifact, layout)
    assert refresh.restrict_pygrub(layout, NAME).state == "restricted"
    text = layout.config(NAME).read_text()
    assert xl.parse(text, strict=False).boot == Pygrub(str(layout.launcher), user=USER)
    assert "# ours\ncpu_weight = 512\n" in text
    assert len(users(layout)) == 2
    assert refresh.restrict_pygrub(layout, NAME).state == "inside"
    restriction.perform_drop(layout, NAME)
    assert refresh.restrict_pygrub(layout, NAME).state == "restricted"
    assert len(users(layout)) == 2


def test_a_guest_whose_user_is_missing_is_not_started(artifact: Path, layout: Layout) -> None:
    put(artifact, layout)
    domain = xl.parse(layout.config(NAME).read_text())
    assert restriction.require_startable(domain, layout, is_installed=True) == []
    restriction.perform_drop(layout, NAME)
    with pytest.raises(UsageError, match="no user pygrub-web1") as caught:
        restriction.require_startable(domain, layout, is_installed=False)
    assert caught.value.hint == f"doit install name={NAME} makes it"
    old = replace(domain, boot=Pygrub("pygrub"))
    assert "XSA-508" in restriction.require_startable(old, layout, is_installed=True)[0]
