"""What the store keeps: damage is found and mended, a collection leaves what is needed."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.files import digest_file
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]

TINY = 'suite = "bookworm"\nsize = "1G"\nswap = "64M"\n'


@pytest.fixture
def bench(workshop: Workshop, tmp_path: Path) -> Workshop:
    """A store of its own with all that this session has built: links, so it costs nothing."""
    workshop.built("test-drbd")
    subprocess.run(
        ["cp", "-al", f"{workshop.output}/store/.", tmp_path / "output-store"], check=True
    )
    output, guests = tmp_path / "output", tmp_path / "guests"
    output.mkdir()
    (tmp_path / "output-store").rename(output / "store")
    shutil.rmtree(output / "store/.locks")  # links to the session's: who holds those is no concern
    shutil.copytree(workshop.output / "cache", output / "cache")
    guests.mkdir()
    (guests / "defaults.toml").write_text("")
    (guests / "tiny.toml").write_text(TINY)
    return Workshop(output, guests)


def artifact_of(bench: Workshop, stage: str) -> Path:
    record = json.loads((bench.output / "guests/tiny/stages.json").read_text())
    return bench.output / "store" / stage / str(record[stage]["fingerprint"])[:32]


def spoil(path: Path) -> None:
    """One bit of a copy, the rest and the size as they were."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.unlink()  # the session's own file is the same inode
    path.write_bytes(content)


def build(bench: Workshop, *words: str) -> str:
    outcome = bench.doit("build", "name=tiny", *words, ends=0)
    assert "Traceback" not in outcome.said
    return outcome.said


@pytest.mark.parametrize(
    ("stage", "name", "change"),
    [
        ("image", "golden.img", "hostname=other"),
        ("kernel", "vmlinuz", "memory=384M"),
        ("image", "buildinfo.json", "hostname=other"),
    ],
)
def test_a_flipped_bit_is_found_and_built_again(
    bench: Workshop, stage: str, name: str, change: str
) -> None:
    build(bench)
    right = artifact_of(bench, stage)
    before = digest_file(right / name)
    spoil(right / name)
    shutil.rmtree(bench.output / "store/.verified")  # as after a new start of the machine
    said = build(bench, change)
    if name != "buildinfo.json":
        assert f"{name} is damaged in the store: building it again" in said
        assert digest_file(right / name) == before
    assert bench.doit("check", "name=tiny", change).code == 0
    assert not list((bench.output / "scratch").iterdir())


def test_a_flipped_bit_in_every_stages_artifact_is_found_and_mended_in_one_build(
    bench: Workshop,
) -> None:
    build(bench)
    golden = {
        "mirror": "Packages-main-main",
        "base": "base.tar",
        "kernel": "modules.tar",
        "rootfs": "rootfs.tar",
        "image": "golden.img",
    }
    before = {stage: digest_file(artifact_of(bench, stage) / golden[stage]) for stage in golden}
    for stage, name in golden.items():
        spoil(artifact_of(bench, stage) / name)
    shutil.rmtree(bench.output / "store/.verified")
    said = build(bench, "hostname=other")
    for stage, name in golden.items():
        assert f"{stage:<8} {name} is damaged in the store: building it again" in said
        assert digest_file(artifact_of(bench, stage) / name) == before[stage]
    assert bench.doit("check", "name=tiny", "hostname=other").code == 0


@pytest.mark.parametrize("name", ["vmlinuz", "initrd.img", "tiny.cfg", "spec.json", "manifest"])
def test_a_flipped_bit_in_a_finished_guest_is_found_and_mended(bench: Workshop, name: str) -> None:
    build(bench)
    file = bench.output / "guests/tiny" / name
    before = digest_file(file)
    spoil(file)
    shutil.rmtree(bench.output / "store/.verified")
    said = build(bench)
    assert "its artifact is gone or damaged" in said
    assert digest_file(file) == before
    assert " built " not in build(bench)


def test_a_flipped_bit_in_a_cached_package_is_found_and_fetched_again(bench: Workshop) -> None:
    build(bench)
    for package in (bench.output / "cache/debs").iterdir():
        if package.is_file() and package.stat().st_size > 1000:
            spoil(package)
    shutil.rmtree(bench.output / "store/base")
    shutil.rmtree(bench.output / "store/rootfs")
    before = digest_file(artifact_of(bench, "image") / "golden.img")
    shutil.rmtree(bench.output / "store/image")
    build(bench)
    assert digest_file(artifact_of(bench, "image") / "golden.img") == before


def test_a_file_that_was_written_to_is_compared_again_without_a_new_start(bench: Workshop) -> None:
    build(bench)
    spoil(artifact_of(bench, "image") / "golden.img")
    assert "golden.img is damaged in the store" in build(bench, "hostname=other")


def test_a_collection_leaves_what_guests_and_specs_need_and_what_is_in_use(bench: Workshop) -> None:
    build(bench)
    store = bench.output / "store"
    needed = set(store.glob("[a-z]*/*"))
    for name in ("f" * 32, "e" * 32):
        shutil.copytree(artifact_of(bench, "kernel"), store / "kernel" / name)
    held = os.open(store / ".locks" / f"kernel-{'e' * 32}", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_SH)
    dry = bench.doit("gc", "keep=0", "dry=yes", ends=0)
    assert "would remove" in dry.said and "f" * 32 in dry.said
    assert (store / "kernel" / ("f" * 32)).is_dir()
    done = bench.doit("gc", "keep=0")
    os.close(held)
    assert done.code == 0, done.said
    assert not (store / "kernel" / ("f" * 32)).exists()
    assert (store / "kernel" / ("e" * 32)).is_dir(), "a build was reading it"
    assert {artifact_of(bench, stage) for stage in ("base", "kernel", "rootfs", "image")} <= needed
    assert all(
        artifact_of(bench, stage).is_dir()
        for stage in ("mirror", "base", "kernel", "rootfs", "image")
    )
    assert not list((bench.output / "cache/debs").glob("[0-9a-f]*"))
    assert " built " not in build(bench)
    assert not list((bench.output / "scratch").iterdir())


def test_a_bound_that_is_no_size_is_refused(bench: Workshop) -> None:
    outcome = bench.doit("gc", "keep=lots")
    assert outcome.code == 2
    assert "keep: 'lots' is not a size" in outcome.said
