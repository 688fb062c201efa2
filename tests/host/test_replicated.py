"""DRBD's own programs on what a build makes: a disk's notes, a resource's file, a first meeting."""

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import process
from pipeline.errors import InUseError
from pipeline.guest.replication_files import replication_files
from pipeline.project import Project
from pipeline.proof.checks import read_answers
from pipeline.proof.replication_faults import QUESTION, Node
from pipeline.storage.ext import ExtImage, read_text
from pipeline.storage.replicated import make_replicated
from tests import small
from tests.replicated import NODE, make_node

SECRET = "5ecre7" * 8
JUST_CREATED = 4  # UUID_JUST_CREATED of linux/drbd.h


def dump(image: Path) -> str:
    words = ["drbdmeta", "--force", "-", "v08", str(image), "internal", "dump-md"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_disk_is_known_to_drbd_as_new_and_is_zero(tmp_path: Path) -> None:
    image = tmp_path / "disk-r0.img"
    part = make_node().parts[2]
    make_replicated(process.run, image, part)
    said = dump(image)
    uuids = re.findall(r"0x([0-9A-F]{16});", said.partition("uuid {")[2].partition("flags")[0])
    assert [int(word, 16) for word in uuids] == [JUST_CREATED, 0, 0, 0]
    assert "flags 0x00000000;" in said and "la-size-sect 0;" in said
    end = int(re.findall(r"# bm_offset (\d+)", said)[0])
    data = image.read_bytes()
    assert len(data) == 64 << 20 and end > (63 << 20)
    assert not data[:end].strip(b"\0") and data[end:].strip(b"\0")
    assert image.stat().st_blocks < 256 and image.stat().st_mode & 0o777 == 0o600


def test_two_nodes_get_the_same_disk(tmp_path: Path) -> None:
    made = [tmp_path / "a.img", tmp_path / "b.img"]
    for image in made:
        make_replicated(process.run, image, make_node().parts[2])
    assert made[0].read_bytes() == made[1].read_bytes()


@pytest.mark.parametrize("program", ["/lib/drbd/drbdadm-84", "drbdadm"])
def test_drbds_own_reader_takes_the_resource(tmp_path: Path, program: str) -> None:
    """That of the kernel's 8.4, and that which the guest starts, for this node's host name."""
    node = NODE | {"address": "127.0.0.1"}
    spec = make_node(node, interfaces=[{"address": "10.1.1.1/24", "bridge": "br-db"}])
    file = next(replication_files(spec, {"r0": SECRET}))
    path = tmp_path / "r0.res"
    path.write_bytes(file.content)
    script = f"hostname web1 && {program} -c {path} -d up r0"
    done = subprocess.run(["unshare", "-u", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "attach 0 /dev/xvda3 /dev/xvda3 internal" in done.stdout
    for word in ("127.0.0.1:7788", "10.77.0.2:7788", "--cram-hmac-alg=sha256", "--protocol=C"):
        assert word in done.stdout
    assert f"--shared-secret={SECRET}" in done.stdout
    assert "--after-sb-1pri=consensus" in done.stdout


def test_the_service_does_not_wait_for_the_other_node(tmp_path: Path) -> None:
    """The ways in which drbd-utils' script calls drbdadm, after it has read our settings."""
    files = {file.path: file for file in replication_files(make_node(), {"r0": SECRET})}
    program = tmp_path / "drbdadm"
    program.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n')
    program.chmod(0o755)
    settings = files["/etc/default/drbd"].content.decode()
    called = ("adjust all", "wait-con-int", "sh-nop")
    script = "\n".join(["DRBDADM=drbdadm", settings, *(f"$DRBDADM {words}" for words in called)])
    search = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", script], env={"PATH": search}, check=True)
    assert (tmp_path / "calls").read_text() == "adjust all\nsh-nop\n"
    service = Path("/lib/drbd/scripts/drbd").read_text()
    assert "$DRBDADM wait-con-int" in service and "run_hook start\n" in service
    assert service.index(". $DEFAULTFILE") < service.index("$DRBDADM wait-con-int")


@pytest.mark.parametrize(("lonely", "calls"), [(0, 1), (1, 2), (9, 3)])
def test_what_a_busy_machine_has_left_unconnected_is_asked_for_again(
    tmp_path: Path, lonely: int, calls: int
) -> None:
    files = {file.path: file for file in replication_files(make_node(), {"r0": SECRET})}
    program = tmp_path / "drbdadm"
    program.write_text(
        "#!/bin/sh\necho x >> calls\nstate=WFConnection\n"
        f"[ $(wc -l < calls) -gt {lonely} ] || state=StandAlone\n"
        'echo " 0: cs:$state ro:Secondary/Unknown ds:UpToDate/DUnknown" > proc\n'
        "[ $state = WFConnection ] || exit 20\n"
    )
    program.chmod(0o755)
    settings = files["/etc/default/drbd"].content.decode().replace("/proc/drbd", "proc")
    script = f"{settings}\ndrbdadm adjust-with-progress all || exit 9"
    search = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-euc", script], env={"PATH": search}, cwd=tmp_path)
    assert (tmp_path / "calls").read_text().count("x") == calls
    assert done.returncode == (9 if lonely > 2 else 0)


STATES = {
    "alone": "cs:WFConnection ro:Secondary/Unknown ds:Inconsistent/DUnknown C r----s",
    "new": "cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent C r-----",
    "done": "cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate C r-----",
    "late": "cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----",
}


@pytest.mark.parametrize(
    ("states", "calls"),
    [
        (["done"], 0),
        (["alone", "new", "done"], 1),
        (["alone", "late", "done"], 0),
        (["new", "new", "done"], 2),
        ([], 0),
    ],
)
def test_nodes_that_first_meet(tmp_path: Path, states: list[str], calls: int) -> None:
    """The guest's own script, with what the kernel says one state after another."""
    files = {file.path: file for file in replication_files(make_node(), {"r0": SECRET})}
    text = files["/etc/default/drbd"].content.decode()
    script = text.replace("/proc/drbd", "proc").replace(" &\n", "\n")
    head = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: 0\n\n"
    for number, state in enumerate([*states, ""]):
        line = f" 0: {STATES[state]}\n    ns:0 nr:0 oos:0\n" if state else " 0: cs:Unconfigured\n"
        (tmp_path / f"proc{number}").write_text(head + line)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sleep").write_text(
        "#!/bin/sh\nn=$(cat n); n=$((n + 1)); echo $n > n; cp proc$n proc\n"
    )
    (programs / "drbdsetup").write_text('#!/bin/sh\necho "$*" >> calls\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (tmp_path / "n").write_text("0")
    (tmp_path / "proc").write_text((tmp_path / "proc0").read_text())
    search = f"{programs}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euc", f"{script}\nhook_start"],
        cwd=tmp_path,
        env={"PATH": search},
        check=True,
        timeout=60,
    )
    told = (tmp_path / "calls").read_text().splitlines() if calls else []
    assert told == ["new-current-uuid 0 --clear-bitmap"] * calls
    assert (tmp_path / "calls").exists() == bool(calls)


def test_the_question_for_a_node_keeps_its_secret(tmp_path: Path) -> None:
    """In this machine, with the resource's file and disk where the guest would have them."""
    resource = next(replication_files(make_node(), {"r0": SECRET}))
    (tmp_path / "r0.res").write_bytes(resource.content)
    (tmp_path / "xvda3").mkdir()
    (tmp_path / "xvda3/size").write_text("131072\n")
    script = QUESTION.replace("/etc/drbd.d", str(tmp_path))
    script = script.replace("/sys/class/block", str(tmp_path))
    words = ["sh", "-s", "--", "r0"]
    done = subprocess.run(words, input=script, capture_output=True, text=True, check=True)
    answers = read_answers(done.stdout)
    asked = Node("web1", answers)
    assert asked.size_mib == 64
    assert asked.places == {"web1": ("10.77.0.1", "7788"), "db-b": ("10.77.0.2", "7788")}
    assert SECRET not in done.stdout
    assert set(answers) == {"proc", "resource", "log", "disk", "addresses"}


NODES = """
[[interfaces]]
bridge = "br-db"
address = "10.77.0.{own}/29"

[[replicated]]
name = "r0"
size = "64M"
address = "10.77.0.{own}"
peer = "node{other}"
peer_address = "10.77.0.{other}"
pair = "nodes"
"""


@dataclass(frozen=True)
class Pair:
    """Two nodes, each built by itself."""

    project: Project
    folders: tuple[Path, Path]

    @property
    def secret(self) -> str:
        kept = self.project.identity("nodes") / "r0.drbd-secret"
        return kept.read_text().strip()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    root = tmp_path_factory.mktemp("nodes")
    for own, other in ((1, 2), (2, 1)):
        text = NODES.format(own=own, other=other)
        project = small.make_project(root, f"node{own}", text=text)
    with ThreadPoolExecutor() as pool:
        built = pool.map(lambda name: small.build(project, name), ("node1", "node2"))
        return Pair(project, (next(built), next(built)))


def test_both_nodes_have_one_secret_whoever_is_built_first(pair: Pair) -> None:
    for folder in pair.folders:
        disk = folder / "disk.img"
        text = read_text(disk, "/etc/drbd.d/r0.res")
        assert f'shared-secret "{pair.secret}";' in text
        with ExtImage(disk) as image:
            inode = image.find("/etc/drbd.d/r0.res")
        assert inode is not None and inode.mode & 0o777 == 0o600
    kept = pair.project.identity("nodes")
    assert kept.stat().st_mode & 0o777 == 0o700


def test_the_secret_is_in_their_disks_and_their_identity_alone(pair: Pair) -> None:
    word, output = pair.secret.encode(), pair.project.output
    places = {
        str(path.relative_to(output))
        for path in output.rglob("*")
        if path.is_file() and word in path.read_bytes()
    }
    disks = {f"guests/node{number}/disk.img" for number in (1, 2)}
    disks |= {f"volumes/node{number}/disk.img" for number in (1, 2)}
    assert places - disks == {"identity/nodes/r0.drbd-secret"}
    assert {f"guests/node{number}/disk.img" for number in (1, 2)} <= places


def test_their_new_disks_are_the_same_and_a_used_one_is_not_built_over(pair: Pair) -> None:
    first, second = (folder / "disk-r0.img" for folder in pair.folders)
    assert first.read_bytes() == second.read_bytes()
    with open(first, "r+b") as stream:
        stream.write(b"what a guest has written")
    guest = pair.project.guests / "node1.toml"
    text = guest.read_text()
    guest.write_text(text.replace("/29", "/28"))
    with pytest.raises(InUseError, match="has written to it"):
        small.build(pair.project, "node1")
    small.build(pair.project, "node1", replace=True)
    assert first.read_bytes() == second.read_bytes()
