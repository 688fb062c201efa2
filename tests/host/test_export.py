"""`doit export` as a user types it: the same bytes in every format, nothing half, nothing lost."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.artifact.sums import write_sums
from pipeline.formats.xva_reader import read_xva
from pipeline.recipe import DISKS
from tests.adopted import read_tar
from tests.conftest import ROOT, require
from tests.host.certificates import Authority
from tests.host.small_artifact import make_artifact, make_kernel, put_in_partition
from tests.workshop import Outcome, Workshop
from tests.xapi_stub import PASSWORD, Stub, serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
MIB = 1 << 20
OVF, RASD = (
    "{http://schemas.dmtf.org/ovf/envelope/1}",
    "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}",
)


@dataclass
class Bench:
    shop: Workshop
    to: Path

    def artifact(self, name: str) -> Path:
        return self.shop.output / "guests" / name

    def export(self, name: str, form: str, *more: str) -> Outcome:
        to = () if any(word.startswith("to=") for word in more) else (f"to={self.to}",)
        return self.shop.doit("export", f"name={name}", f"format={form}", *to, *more)

    def exported(self, name: str, form: str, *more: str) -> Path:
        outcome = self.export(name, form, *more)
        assert outcome.code == 0, outcome.said
        return self.to / f"{name}.{ {'raw': 'img'}.get(form, form) }"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bare1, with a file system for a disk; whole1, with one in a partition."""
    root = tmp_path_factory.mktemp("export")
    kernel = make_kernel(root / "kernel", "6.1.0-1-test")
    for name in ("bare1", "whole1"):
        folder = root / "output/guests" / name
        folder.mkdir(parents=True)
        make_artifact(folder, name, kernel=kernel)
    put_in_partition(root / "output/guests/whole1", root / "tree")
    return root / "output"


@pytest.fixture
def bench(output: Path, tmp_path: Path) -> Bench:
    (tmp_path / "to").mkdir()
    (tmp_path / "guests").mkdir()
    return Bench(Workshop(output, tmp_path / "guests"), tmp_path / "to")


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk", "vhd"])
def test_a_disk_in_another_format_is_the_same_disk(bench: Bench, form: str) -> None:
    made = bench.exported("bare1", form)
    kind = {"vhd": "vpc"}.get(form, form)
    for name, path in (("disk", made), ("swap", made.with_stem("bare1-swap"))):
        source = bench.artifact("bare1") / f"{name}.img"
        compare = ["qemu-img", "compare", "-f", "raw", "-F", kind, str(source), str(path)]
        assert subprocess.check_output(compare, text=True) == "Images are identical.\n"
        assert path.stat().st_mode & 0o777 == 0o600, "it holds keys"
        block = 8 * MIB if form == "vhd" else MIB // 2  # its blocks have 2 MiB
        assert path.stat().st_blocks * 512 <= source.stat().st_blocks * 512 + block, "holes stay"
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=bench.to, check=True)


@pytest.mark.parametrize("form", ["vmdk", "xva", "ova", "tar", "qcow2"])
def test_the_same_guest_gives_the_same_bytes(bench: Bench, form: str) -> None:
    made = bench.exported("whole1", form)
    first = hashlib.sha256(made.read_bytes()).hexdigest()
    time.sleep(1.1)
    bench.exported("whole1", form, "replace=yes")
    assert hashlib.sha256(made.read_bytes()).hexdigest() == first


def test_sums_of_several_exports_stand_in_one_list(bench: Bench) -> None:
    bench.exported("bare1", "raw")
    bench.exported("whole1", "qcow2")
    names = {line.split()[1] for line in (bench.to / "SHA256SUMS").read_text().splitlines()}
    assert names == {"bare1.img", "bare1-swap.img", "whole1.qcow2"}
    assert {path.name for path in bench.to.iterdir()} == {*names, "SHA256SUMS"}


def test_an_ova_is_what_the_standard_says(bench: Bench, tmp_path: Path) -> None:
    made = bench.exported("whole1", "ova")
    with tarfile.open(made) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "x", filter="data")
    assert names == ["whole1.ovf", "whole1.mf", "whole1-disk1.vmdk"], "DSP0243, clause 5"
    assert made.read_bytes()[257:265] == b"ustar\x0000"
    for line in (tmp_path / "x/whole1.mf").read_text().splitlines():
        match = re.fullmatch(r"SHA256\((.+)\)= ([0-9a-f]{64})", line)
        assert match, line
        content = (tmp_path / "x" / match[1]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == match[2]
    disk = tmp_path / "x/whole1-disk1.vmdk"
    root = ElementTree.parse(tmp_path / "x/whole1.ovf").getroot()
    refuse_other_envelope(root, disk)
    source = bench.artifact("whole1") / "disk.img"
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "vmdk", source, disk], check=True)


def refuse_other_envelope(root: ElementTree.Element, disk: Path) -> None:
    """What DMTF's schema asks of these elements (dsp8023, CIM_ResourceAllocationSettingData)."""
    assert root.tag == f"{OVF}Envelope"
    parts = [child.tag.removeprefix(OVF) for child in root]
    assert parts == ["References", "DiskSection", "NetworkSection", "VirtualSystem"]
    (file,) = root.iter(f"{OVF}File")
    assert file.get(f"{OVF}href") == disk.name
    assert file.get(f"{OVF}size") == str(disk.stat().st_size)
    (told,) = root.iter(f"{OVF}Disk")
    assert told.get(f"{OVF}fileRef") == file.get(f"{OVF}id")
    assert told.get(f"{OVF}capacity") == str(40 * MIB)
    for section in (*root[1:3], *root[3]):
        if section.tag.endswith("Section"):
            assert section[0].tag == f"{OVF}Info", "the first of every section"
    ids = [item.findtext(f"{RASD}InstanceID") for item in root.iter(f"{OVF}Item")]
    assert len(set(ids)) == len(ids) >= 5
    networks = {network.get(f"{OVF}name") for network in root.iter(f"{OVF}Network")}
    for item in root.iter(f"{OVF}Item"):
        keys = [child.tag.removeprefix(RASD) for child in item]
        assert keys == sorted(keys), "the schema's sequence is the alphabet"
        assert {"ElementName", "InstanceID", "ResourceType"} <= set(keys)
        assert item.findtext(f"{RASD}Connection", next(iter(networks))) in networks
        assert item.findtext(f"{RASD}Parent", "3") in ids


def test_an_ova_that_comes_back_has_the_same_tree(bench: Bench, tmp_path: Path) -> None:
    require(os.geteuid() == 0, "file systems are mounted as root")
    ova, tree = bench.exported("whole1", "ova"), bench.exported("whole1", "tar")
    said = bench.shop.doit("adopt", "name=back1", f"from={ova}", "dry=yes", "json=yes").said
    origin = json.loads(said[said.index("{") :])["origin"]
    assert origin["kind"] == "machine image"
    assert "whole1-disk1.vmdk of whole1, as its manifest says" in str(origin["notes"])
    other = bench.shop.doit("adopt", "name=back1", f"from={tree}", "dry=yes", "json=yes")
    assert json.loads(other.said[other.said.index("{") :])["origin"]["sha256"] == origin["sha256"]
    assert read_tar(tree)["/usr/bin/tool"][2] == 0


def test_an_xva_holds_the_same_disk(bench: Bench, tmp_path: Path) -> None:
    made, folder = bench.exported("whole1", "xva"), tmp_path / "xva"
    folder.mkdir()
    with open(made, "rb") as stream:
        (disk,) = read_xva(stream, folder).disks
    source = bench.artifact("whole1") / "disk.img"
    assert (folder / disk.file).read_bytes() == source.read_bytes()


def test_a_push_sends_the_same_disk_without_a_file_between(bench: Bench, tmp_path: Path) -> None:
    authority, password = Authority(tmp_path / "ca"), tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    with serving(Stub(), authority.context()) as pool:
        there = [f"host=127.0.0.1:{pool.port}", f"certificate={authority.file}"]
        words = [*there, f"password={password}"]
        outcome = bench.shop.doit("push", "name=whole1", *words)
        refused = bench.shop.doit("push", "name=bare1", *words)

    assert outcome.code == 0, outcome.said
    assert list(pool.disks.values()) == [(bench.artifact("whole1") / "disk.img").read_bytes()]
    assert pool.machine["name_label"] == "whole1"
    assert refused.code == 2
    assert "no XVA can be made of it" in refused.said


@pytest.mark.parametrize("form", ["xva", "ova"])
def test_a_bare_file_system_is_no_machine(bench: Bench, form: str) -> None:
    outcome = bench.export("bare1", form)
    assert outcome.code == 2
    assert "its disk is a bare file system" in outcome.said
    assert 'disk = "whole"' in outcome.said
    assert not list(bench.to.iterdir())


def test_what_is_there_is_kept(bench: Bench) -> None:
    (bench.to / "bare1.qcow2").write_text("precious")
    outcome = bench.export("bare1", "qcow2")
    assert outcome.code == 2
    assert "is there already" in outcome.said
    assert (bench.to / "bare1.qcow2").read_text() == "precious"
    (bench.to / "bare1.qcow2").unlink()
    (bench.to / "bare1.qcow2").symlink_to(bench.to / "elsewhere")
    outcome = bench.export("bare1", "qcow2", "replace=yes")
    assert "is no plain file" in outcome.said
    assert not (bench.to / "elsewhere").exists()


def test_a_file_may_be_named(bench: Bench) -> None:
    bench.export("bare1", "qcow2", f"to={bench.to}/other.net.disk")
    names = {path.name for path in bench.to.iterdir()}
    assert names == {"other.net.disk", "other.net-swap.disk", "SHA256SUMS"}
    outcome = bench.export("bare1", "qcow2", f"to={bench.to}/none/other")
    assert outcome.code == 2
    assert "no such folder" in outcome.said


@pytest.mark.parametrize("form", ["raw", "vmdk", "xva", "tar"])
def test_standard_output_gets_the_same_bytes(bench: Bench, form: str) -> None:
    made = bench.exported("whole1", form)
    words = ["export", "name=whole1", f"format={form}", "to=-"]
    argv = [sys.executable, "-m", "doit", *words]
    done = subprocess.run(
        argv, cwd=ROOT, env=bench.shop.environment(), capture_output=True, check=True
    )
    assert done.stdout == made.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("whole1", "qcow2", "to=-"), "format=qcow2 and to=- do not go together"),
        (("whole1", "raw", "to=-", "json=yes"), "json=yes and to=- do not go together"),
        (("bare1", "raw", "to=-"), "bare1 has 2 disks, and standard output takes one"),
        (("none1", "raw"), "holds no finished none1"),
        (("bare1", "iso"), "format"),
        (("bare1", "raw", "from=published"), "bare1 has no published version"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(bench: Bench, words: tuple[str, ...], said: str) -> None:
    outcome = bench.export(*words)
    assert outcome.code == 2
    assert said in outcome.said
    assert "Traceback" not in outcome.said
    assert not list(bench.to.iterdir())


def test_a_disk_that_is_open_elsewhere_is_refused(bench: Bench) -> None:
    with open(bench.artifact("bare1") / "disk.img", "rb") as held:
        reader = subprocess.Popen(["sleep", "60"], stdin=held)
        try:
            outcome = bench.export("bare1", "raw")
        finally:
            reader.kill()
            reader.wait()
    assert "is in use by" in outcome.said
    assert outcome.code not in (0, 1)
    assert not list(bench.to.iterdir())


def test_a_disk_that_its_guest_has_written_to_is_told(bench: Bench, tmp_path: Path) -> None:
    copy = tmp_path / "guests/bare1"
    shutil.copytree(bench.artifact("bare1"), copy)
    with open(copy / "disk.img", "r+b") as stream:
        stream.seek(20 * MIB)
        stream.write(b"new")
    outcome = bench.export("bare1", "raw", f"from={copy}")
    assert "a guest that ran on it has written to it" in outcome.said
    assert not list(bench.to.iterdir())


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk", "ova", "tar"])
def test_a_full_disk_is_one_error_and_leaves_nothing(bench: Bench, form: str) -> None:
    require(os.geteuid() == 0, "a small file system for the test is mounted as root")
    script = 'mount -t tmpfs -o size=512k tmpfs "$0" && "$@"; s=$?; echo left; ls -A "$0"; exit $s'
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(bench.to)]
    words = ["export", "name=whole1", f"format={form}", f"to={bench.to}"]
    done = subprocess.run(
        [*private, sys.executable, "-m", "doit", *words],
        cwd=ROOT,
        env=bench.shop.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.count("error: no space left") == 1, done.stderr
    assert f"{bench.to} has " in done.stderr
    assert not done.stdout.partition("left\n")[2], "nothing half is left"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_export_leaves_nothing_under_its_name(
    bench: Bench, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "guests/whole1"
    shutil.copytree(bench.artifact("whole1"), folder)
    with open(folder / "disk.img", "r+b") as stream:
        stream.truncate(400 * MIB)
        stream.seek(40 * MIB)
        for _ in range(300):
            stream.write(os.urandom(MIB))
    write_sums(folder, disks=DISKS)
    words = ["export", "name=whole1", "format=vmdk", f"to={bench.to}", f"from={folder}"]
    argv = [sys.executable, "-m", "doit", *words]
    running = subprocess.Popen(argv, cwd=ROOT, env=bench.shop.environment())
    while not any(path.stat().st_size > MIB for path in bench.to.iterdir()):
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(number)
    assert running.wait(240) != 0
    left = [path.name for path in bench.to.iterdir()]
    assert not [name for name in left if not name.startswith(".")]
    if number == signal.SIGTERM:
        assert not left
    bench.exported("whole1", "vmdk")
    assert {path.name for path in bench.to.iterdir()} == {"whole1.vmdk", "SHA256SUMS"}
