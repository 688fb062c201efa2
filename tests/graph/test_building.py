"""Whole guests, built as a user builds them: what runs, what is reused, what is refused."""

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.spec import load_guest
from tests.golden import digests_of, read_table
from tests.turns import spread
from tests.workshop import ROOT, Outcome, Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]

SHIPPED = sorted(path.stem for path in (ROOT / "guests").glob("*.toml") if path.stem != "defaults")
DAILY = ("test-drbd", "everywhere")  # bare file systems, a whole disk
IN_TURN = spread([name for name in SHIPPED if name not in DAILY], 3)
GOLDEN = ["mirror", "base", "kernel", "rootfs", "image"]
TINY = 'suite = "bookworm"\nsize = "1G"\nswap = "64M"\n'


@pytest.fixture
def bench(workshop: Workshop, tmp_path: Path) -> Workshop:
    """The shared output with a folder of guests that the test may change."""
    guests = tmp_path / "guests"
    guests.mkdir()
    (guests / "defaults.toml").write_text("")
    (guests / "tiny.toml").write_text(TINY)
    return Workshop(workshop.output, guests)


def build(bench: Workshop, *words: str) -> Outcome:
    return bench.doit("build", "name=tiny", *words, ends=0)


@pytest.mark.parametrize("name", [*DAILY, *IN_TURN])
def test_every_shipped_guest_is_built_and_passes_its_check(workshop: Workshop, name: str) -> None:
    folder = workshop.built(name)
    names = {path.name for path in folder.iterdir()}
    assert {"disk.img", f"{name}.cfg", "known_hosts", "manifest", "spec.json"} <= names
    assert {"buildinfo.json", "stages.json", "SHA256SUMS", "FSVERITY"} <= names
    spec = load_guest(name, guests_dir=workshop.guests)
    assert ({"vmlinuz", "initrd.img"} <= names) == (spec.boot == "direct")
    assert ("swap.img" in names) != spec.is_whole
    around_mib = 1 + 64 + spec.swap_mib + 2 if spec.is_whole else 0
    assert (folder / "disk.img").stat().st_size == ((4 << 10) + around_mib) << 20
    print(workshop.doit("check", f"name={name}", ends=0).said)
    # of another mirror state there are other fingerprints, which the table does not know
    table, found = read_table(), digests_of(folder)
    known = {fingerprint: table[fingerprint] for fingerprint in found if fingerprint in table}
    print(f"{name}: {len(known)} of {len(found)} fingerprints gave these digests before")
    assert {fingerprint: found[fingerprint] for fingerprint in known} == known


def test_a_second_build_runs_nothing_and_says_why(workshop: Workshop) -> None:
    workshop.built("test-drbd")
    again = workshop.doit("build", "name=test-drbd")
    assert again.code == 0
    assert again.stages("built") == []
    assert sorted(again.stages("reused")) == sorted([*GOLDEN, "volume", "config"])
    why = workshop.doit("why", "name=test-drbd")
    assert why.said.count("  current\n") == 7
    info = workshop.doit("info", "volume:test-drbd")
    assert "up-to-date" in info.said


def test_without_a_terminal_there_are_no_escape_codes(workshop: Workshop) -> None:
    workshop.built("test-drbd")
    assert "\x1b" not in workshop.outcomes["test-drbd"].said
    assert "\r" not in workshop.outcomes["test-drbd"].said


def test_a_new_host_name_costs_only_the_guest_half(bench: Workshop) -> None:
    build(bench)
    changed = build(bench, "hostname=other.example.org")
    assert changed.stages("built") == ["volume", "config"]
    assert "hostname: tiny -> other.example.org" in changed.said


def test_more_memory_costs_only_the_configuration(bench: Workshop) -> None:
    build(bench)
    assert build(bench, "memory=384M").stages("built") == ["config"]


def test_a_touched_element_rebuilds_rootfs_and_what_follows(
    bench: Workshop, tmp_path: Path
) -> None:
    element = tmp_path / "elements" / "greeting"
    hook = element / "install.d" / "50-greeting"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/bash\nset -eu\nset -o pipefail\necho hello > /etc/greeting\n")
    hook.chmod(0o755)
    spec = f'{TINY}elements = ["greeting"]\nelements_path = ["{element.parent}"]\n'
    (bench.guests / "tiny.toml").write_text(spec)
    build(bench)
    assert read_file(bench, "/etc/greeting") == "hello\n"
    hook.write_text(hook.read_text().replace("hello", "good morning"))
    why = bench.doit("why", "name=tiny").said
    assert "elements: greeting: install.d/50-greeting changed" in why
    assert build(bench).stages("built") == ["rootfs", "image", "volume", "config"]
    assert read_file(bench, "/etc/greeting") == "good morning\n"


def test_an_element_of_diskimage_builder_itself_works(bench: Workshop) -> None:
    outcome = build(bench, "elements=modprobe")
    assert "rootfs" in outcome.stages("built")


def test_a_kernel_given_as_files_gets_its_initrd_and_its_modules(
    bench: Workshop, tmp_path: Path
) -> None:
    build(bench)
    stages = json.loads((bench.output / "guests/tiny/stages.json").read_text())
    kernel = bench.output / "store/kernel" / stages["kernel"]["fingerprint"][:32]
    subprocess.run(["tar", "-C", tmp_path, "-xf", kernel / "modules.tar"], check=True)
    modules = next((tmp_path / "lib/modules").iterdir())
    outcome = build(bench, f"kernel={kernel / 'vmlinuz'}", f"modules={modules}")
    assert "kernel" in outcome.stages("built")
    found = json.loads((bench.output / "guests/tiny/kernel.json").read_text())
    assert found["abi"] == modules.name
    assert found["initrd_modules"] == ["xen_blkfront"]


def test_two_builds_of_the_same_guest_at_once_end_well(bench: Workshop) -> None:
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(build(bench, "hostname=twice")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert read_file(bench, "/etc/hostname") == "twice\n"


def test_two_runs_at_once_build_what_they_share_once(bench: Workshop) -> None:
    for name in ("one", "two"):
        (bench.guests / f"{name}.toml").write_text(f'{TINY}packages = ["tree"]\n')
    said: dict[str, Outcome] = {}

    def run(name: str) -> None:
        said[name] = bench.doit("build", f"name={name}")

    threads = [threading.Thread(target=run, args=[name]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [said[name].code for name in ("one", "two")] == [0, 0], said
    for stage in ("rootfs", "image"):
        assert sum(stage in outcome.stages("built") for outcome in said.values()) == 1, said
        assert sum(stage in outcome.stages("reused") for outcome in said.values()) == 1, said
    for name, outcome in said.items():
        assert {"volume", "config"} <= set(outcome.stages("built"))
        assert (bench.output / "guests" / name / "disk.img").is_file()


def test_a_disk_that_its_guest_wrote_to_is_kept(bench: Workshop) -> None:
    build(bench)
    disk = bench.output / "guests/tiny/disk.img"
    with open(disk, "r+b") as stream:
        stream.seek(512 << 20)
        stream.write(b"precious")
    refused = bench.doit("build", "name=tiny", "hostname=newer", ends=4)
    assert "replace=yes" in refused.said
    with open(disk, "rb") as stream:
        stream.seek(512 << 20)
        assert stream.read(8) == b"precious"
    assert build(bench, "hostname=newer", "replace=yes").stages("built") == ["volume", "config"]


def test_a_disk_that_is_open_is_refused_whatever_the_flags(bench: Workshop) -> None:
    build(bench)
    with open(bench.output / "guests/tiny/disk.img", "rb") as disk:
        holder = subprocess.Popen(["sleep", "60"], stdin=disk)
    try:
        refused = bench.doit("build", "name=tiny", "hostname=busy", "replace=yes")
    finally:
        holder.kill()
        holder.wait()
    assert refused.code == 4, refused.said
    assert f"process {holder.pid} (sleep)" in refused.said


def test_a_root_password_comes_from_standard_input_and_is_written_nowhere(bench: Workshop) -> None:
    secret = "Kanarienvogel-4711"
    bench.doit("build", "name=tiny", "root_password_file=-", stdin=f"{secret}\n", ends=0)
    assert "root:$y$" in read_file(bench, "/etc/shadow")
    found = subprocess.run(
        ["grep", "-rlaF", "--exclude=disk.img", "--exclude=golden.img", secret, bench.output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""


def test_a_size_smaller_than_the_content_is_refused(bench: Workshop) -> None:
    refused = bench.doit("build", "name=tiny", "size=300M", ends=1)
    assert "size=300M: the guest's files and journal need" in refused.said
    assert "error: tiny" in refused.said


def test_qcow2_is_written_and_whole(bench: Workshop) -> None:
    build(bench, "format=qcow2")
    disk = bench.output / "guests/tiny/disk.qcow2"
    shown = subprocess.run(["qemu-img", "check", disk], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout
    assert "format=qcow2" in (bench.output / "guests/tiny/tiny.cfg").read_text()


def test_a_copy_on_write_guest_is_itself_and_can_stand_on_its_own(bench: Workshop) -> None:
    build(bench)
    own = [read_file(bench, path) for path in ("/etc/hostname", "/etc/machine-id")]
    build(bench, "clone=cow", "hostname=clone")
    folder = bench.output / "guests/tiny"
    disk = folder / "disk.qcow2"
    about = ask_qemu("info", disk)
    assert about["backing-filename"].startswith(str(bench.output / "store/image"))
    assert about["actual-size"] < 64 << 20
    bench.doit("check", "name=tiny", "clone=cow", "hostname=clone", ends=0)
    with open(disk, "rb") as held:
        holder = subprocess.Popen(["sleep", "60"], stdin=held)
    refused = bench.doit("flatten", "name=tiny")
    holder.kill()
    holder.wait()
    assert refused.code == 4, refused.said
    bench.doit("flatten", "name=tiny", ends=0)
    assert "backing-filename" not in ask_qemu("info", disk)
    assert disk.stat().st_ino == (bench.output / "volumes/tiny/disk.qcow2").stat().st_ino
    bench.doit("flatten", "name=tiny", ends=2)
    build(bench)
    assert own == [read_file(bench, path) for path in ("/etc/hostname", "/etc/machine-id")]
    assert not list((bench.output / "scratch").iterdir())


def ask_qemu(word: str, disk: Path) -> dict[str, Any]:
    argv = ["qemu-img", word, "--output=json", str(disk)]
    found: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return found


def read_file(bench: Workshop, path: str) -> str:
    disk = bench.output / "guests/tiny/disk.img"
    shown = subprocess.run(
        ["debugfs", "-R", f"cat {path}", disk], capture_output=True, text=True, check=True
    )
    return shown.stdout
