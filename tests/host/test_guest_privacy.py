"""What is a guest's own stays its own: no other user reads it, no link of it leads out of it."""

import os
import secrets
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.namespace import isolated
from pipeline.process import run
from pipeline.spec import load_all
from pipeline.storage.flatten import flatten_guest
from pipeline.walls.privacy import tighten
from tests import small
from tests.conftest import require
from tests.damages import remove
from tests.host.witness import KEY
from tests.onlooker import Lookout

pytestmark = [pytest.mark.integration]

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
_DISKS = (".img", ".qcow2", ".vhd")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user of the machine may enter."""
    require(os.geteuid() == 0, "another user's view needs root")
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def see_as_nobody(output: Path, *words: str) -> list[str]:
    """Files below a folder that another user can read, and that hold one of these words."""
    patterns = [text for word in words for text in ("-e", word)]
    argv = [*NOBODY, "grep", "-rlaF", *patterns, str(output)]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def read_as_nobody(output: Path) -> list[str]:
    argv = [*NOBODY, "find", str(output), "-type", "f", "-readable"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


class FolderOnlooker(Lookout):
    """Looks at the scratch folders, as far as others may enter them."""

    pause_s = 0.0

    def __init__(self, output: Path) -> None:
        self._output = output
        self.seen: set[str] = set()

    def look(self) -> None:
        for stage in ("volume", "config", "flatten"):
            for folder in (self._output / "scratch").glob(f"{stage}-*"):
                self._look_into(folder)

    def _look_into(self, folder: Path) -> None:
        try:
            state = folder.lstat()
            if stat.S_ISDIR(state.st_mode) and state.st_mode & 0o005:
                for entry in folder.iterdir():
                    self._look_into(entry)
            elif stat.S_ISREG(state.st_mode) and state.st_mode & 0o004:
                self.seen.add(str(folder))
        except OSError:
            return


@pytest.mark.parametrize(
    "text",
    [
        *("", 'image = "full"\n', 'format = "qcow2"\n', 'format = "vhd"\n', 'clone = "cow"\n'),
        'fs = "xfs"\n',
    ],
)
def test_another_user_reads_no_disk_no_swap_and_no_secret(place: Path, text: str) -> None:
    secret = f"$6${secrets.token_hex(8)}${secrets.token_hex(40)}"
    text += f'root_password_hash = "{secret}"\nauthorized_keys = ["{KEY}"]\n'
    size = "600M" if "xfs" in text else "256M"
    project = small.make_project(place, "web1", text=text, size=size)
    with FolderOnlooker(project.output) as onlooker:
        folder = (small.build_really if "xfs" in text else small.build)(project, "web1")
        if '"cow"' in text:
            flatten_guest(project, load_all(project.guests)["web1"])
    assert onlooker.seen == set()
    assert see_as_nobody(project.output, secret, "PRIVATE KEY") == []
    readable = [path for path in read_as_nobody(project.output) if "/store/" not in path]
    assert [path for path in readable if path.endswith(_DISKS)] == []
    for room in (folder, project.volume("web1")):
        assert stat.S_IMODE(room.stat().st_mode) == 0o700
        disks = [path for path in room.iterdir() if path.suffix in _DISKS and path.stem != "initrd"]
        assert len(disks) == 2
        assert {stat.S_IMODE(path.stat().st_mode) for path in disks} == {0o600}
    records = [project.volume("web1") / "written.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in records} == {0o600}


def test_what_an_earlier_version_left_open_is_closed(place: Path) -> None:
    project = small.make_project(place, "web1", text='root_password_hash = "$6$salt$canary"\n')
    folder = small.build(project, "web1")
    for room in (folder, project.volume("web1")):
        room.chmod(0o755)
        for path in room.iterdir():
            path.chmod(0o644)
    assert see_as_nobody(project.output, "$6$salt$canary") != []
    (place / "host").mkdir()
    (place / "host").chmod(0o755)
    (project.output / "guests/link").symlink_to(place / "host")
    tighten(project.output)
    assert see_as_nobody(project.output, "$6$salt$canary") == []
    assert stat.S_IMODE((folder / "disk.img").stat().st_mode) == 0o600
    assert stat.S_IMODE((place / "host").stat().st_mode) == 0o755


def linked(path: str, target: str) -> Callable[[Path, Path], None]:
    def change(tree: Path, host: Path) -> None:
        remove(tree / path)
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target.replace("HOST", str(host)))

    return change


def special(path: str, kind: int) -> Callable[[Path, Path], None]:
    def change(tree: Path, host: Path) -> None:
        remove(tree / path)
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        if kind == stat.S_IFDIR:
            (tree / path).mkdir()
        else:
            os.mknod(tree / path, kind | 0o666, os.makedev(1, 5))

    return change


def inside(tree: Path, host: Path) -> None:
    """A guest may keep its keys elsewhere."""
    (tree / "srv/ssh").mkdir(parents=True)
    (tree / "etc/ssh").symlink_to("/srv/ssh")
    (tree / "srv/root").mkdir(mode=0o700)
    remove(tree / "root")
    (tree / "root").symlink_to("srv/root")
    (tree / "etc/hostname").symlink_to("version")


# what an element left in the tree, and a word of the error ("" where the guest is built)
TREES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "root leads to the host": (linked("root", "HOST/root"), "root"),
    "etc/ssh leads to the host": (linked("etc/ssh", "HOST/ssh"), "etc/ssh"),
    "etc/ssh leads up to the host": (linked("etc/ssh", "../../../../../../../HOST/ssh"), "etc/ssh"),
    ".ssh leads to the host": (linked("root/.ssh", "HOST/ssh"), r"\.ssh"),
    "a file leads to the host": (linked("etc/hostname", "HOST/hostname"), ""),
    "shadow leads to the host": (linked("etc/shadow", "HOST/hostname"), "shadow"),
    "keys lead to the host": (linked("root/.ssh/authorized_keys", "HOST/hostname"), ""),
    "etc/ssh leads to itself": (linked("etc/ssh", "ssh"), "etc/ssh"),
    "etc/ssh is a file": (special("etc/ssh", stat.S_IFREG), "etc/ssh"),
    "etc/ssh is a pipe": (special("etc/ssh", stat.S_IFIFO), "etc/ssh"),
    "hosts is a folder": (special("etc/hosts", stat.S_IFDIR), "etc/hosts"),
    "hosts is a pipe": (special("etc/hosts", stat.S_IFIFO), ""),
    "links stay inside": (inside, ""),
}


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("name", TREES)
def test_links_of_a_guest_lead_nowhere_but_into_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, fs: str
) -> None:
    require(os.geteuid() == 0, "only root mounts xfs and btrfs")
    host = tmp_path / "host"
    for folder in ("root", "ssh"):
        (host / folder).mkdir(parents=True)
    (host / "hostname").write_text("the host's\n")
    change, word = TREES[name]
    make_tree = small._make_tree

    def make_hostile_tree(tree: Path, version: str) -> None:
        make_tree(tree, version)
        change(tree, host)

    monkeypatch.setattr(small, "_make_tree", make_hostile_tree)
    text = f'fs = "{fs}"\nauthorized_keys = ["{KEY}"]\n'
    project = small.make_project(tmp_path, "web1", text=text, size="600M")
    if word:
        with pytest.raises(PipelineError, match=word) as caught:
            small.build_really(project, "web1")
        assert "\n" not in caught.value.brief
    else:
        disk = small.build_really(project, "web1") / "disk.img"
        mount: list[object] = ["mount", "-o", "loop,ro", "-t", fs, disk, "/mnt"]
        read: list[object] = ["cat", "/mnt/etc/hostname", "/mnt/root/.ssh/authorized_keys"]
        if name != "links stay inside":
            assert run(isolated(read, before=[mount])).split()[:2] == ["web1", "ssh-ed25519"]
        modes: list[object] = ["stat", "-c", "%F %a %u", "/mnt/etc/hosts", "/mnt/etc/hostname"]
        seen = run(isolated(modes, before=[mount])).splitlines()
        assert seen == ["regular file 644 0"] * 2
        if name == "links stay inside":
            keys = run(isolated(["ls", "/mnt/srv/ssh", "/mnt/srv/root/.ssh"], before=[mount]))
            assert {"ssh_host_ed25519_key", "authorized_keys"} <= set(keys.split())
    found = {str(path.relative_to(host)) for path in host.rglob("*")}
    assert found == {"root", "ssh", "hostname"}
    assert (host / "hostname").read_text() == "the host's\n"
    assert list((project.output / "scratch").iterdir()) == []
