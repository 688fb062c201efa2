"""Damaged records, journals, artifacts, versions, configurations, disks: one clear error each.

No traceback, no hang, nothing lost: what cannot be read is named, with what to do.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.artifact.sums import write_sums
from pipeline.files import digest_file
from pipeline.store.store import BuildInfo
from tests.conftest import require
from tests.damages import DAMAGES, Damage, flip
from tests.host.dom0_bench import NAME, LifeBench, kept_as_it_was
from tests.host.small_artifact import ABIS, hostname_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
CHANGES = ("refresh", "resize", "rebuild", "remove", "install")


@pytest.fixture(scope="module")
def module_bench(tmp_path_factory: pytest.TempPathFactory) -> LifeBench:
    return LifeBench(tmp_path_factory.mktemp("damage") / "work")


@pytest.fixture
def bench(
    module_bench: LifeBench,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LifeBench]:
    monkeypatch.setenv("DOMU_ROOT", str(module_bench.root))
    with kept_as_it_was(module_bench, module_bench.work.with_name("aside")):
        yield module_bench


@pytest.fixture
def installed(bench: LifeBench) -> LifeBench:
    bench.demand("install", unproven="yes")
    return bench


def options_of(word: str, bench: LifeBench) -> dict[str, str]:
    return {
        "resize": {"size": "48M"},
        "refresh": {"of": str(bench.work / ABIS[1])},
        "rebuild": {"of": str(bench.artifact), "unproven": "yes"},
        "install": {"replace": "yes", "unproven": "yes"},
        "remove": {"yes": "yes"},
    }[word]


KINDS = [kind for kind in DAMAGES if kind != "gone"]
OTHERS = KINDS[1:]


# records
RECORDS: dict[str, dict[str, object]] = {
    "another form": {"form": 7},
    "another guest's": {"name": "web2"},
    "a name that leads elsewhere": {"name": "../../etc/passwd"},
    "no disks": {"disks": None},
    "a disk that is no table": {"disks": [17]},
    "a disk without a target": {"disks": [{"vdev": "xvda", "is_owned": True}]},
    "a generation that is text": {"generation": "1"},
    "no generation at all": {"generation": -1},
    "a choice that is none": {"toolstack": "virsh"},
    "a word that is none": {"word": "rm"},
    "an ABI with a slash": {"abi": "../../x"},
    "stale modules elsewhere": {"stale_modules": ["../../../srv"]},
    "a kernel elsewhere": {"kernel": "/etc"},
    "a pending kernel elsewhere": {"pending": "/srv"},
    "an unknown key": {"surprise": 1},
    "a previous that is a list": {"previous": [1]},
    "no configuration": {"config_text": ""},
    "an origin that is text": {"origin": "x"},
}


@pytest.mark.parametrize("changes", RECORDS.values(), ids=RECORDS)
def test_a_record_that_we_never_wrote(installed: LifeBench, changes: dict[str, object]) -> None:
    installed.edit_record(**changes)
    for word in CHANGES:
        error = installed.refused(word, **options_of(word, installed))
        assert str(installed.record) in error.brief
    assert str(installed.record) in installed.ask("list-guests").text
    assert str(installed.record) in installed.ask("doctor", dry="yes").text


@pytest.mark.parametrize("kind", OTHERS)
def test_a_record_that_is_no_file_of_ours(installed: LifeBench, kind: str) -> None:
    DAMAGES[kind](installed.record)
    for word in CHANGES:
        assert str(installed.record) in installed.refused(word, **options_of(word, installed)).brief
    assert str(installed.record) in installed.ask("list-guests").text


def test_a_record_that_would_have_us_remove_what_is_not_ours(installed: LifeBench) -> None:
    disks = json.loads(installed.record.read_text())["disks"]
    for target in (installed.witness / "passwd", installed.disk() / "../../../../x", "relative"):
        installed.edit_record(disks=[{**disks[0], "target": str(target)}])
        installed.refused("remove", yes="yes")


def test_a_record_of_brackets_without_an_end(installed: LifeBench) -> None:
    installed.record.write_text("[" * 200_000)
    assert str(installed.record) in installed.refused("remove", yes="yes").brief


def test_a_damaged_record_does_not_stop_other_guests(installed: LifeBench) -> None:
    installed.record.with_name("web2.json").write_text("{")
    installed.demand("resize", size="48M")
    assert "web2.json" in installed.demand("list-guests")
    kernels = sorted((installed.root / "var/lib/xen/kernels").iterdir())
    installed.demand("remove", yes="yes")
    assert sorted((installed.root / "var/lib/xen/kernels").iterdir()) == kernels, "it may need them"


# journals
def step(kind: str, path: Path | str, **more: str) -> dict[str, str]:
    return {"kind": kind, "path": str(path), **more}


def modules_of(guest: str, abis: str) -> dict[str, str]:
    return {"kind": "modules", "guest": guest, "what": "drop", "abis": abis}


def journal_of(*steps: object, phase: object = "committed") -> dict[str, object]:
    return {"word": "install", "phase": phase, "undo": list(steps), "finish": list(steps)}


JOURNALS: dict[str, Callable[[LifeBench], object]] = {
    "a list": lambda b: [1],
    "no phase": lambda b: {"word": "install", "undo": [], "finish": []},
    "a phase that is none": lambda b: journal_of(phase="later"),
    "a phase that is a list": lambda b: journal_of(phase=[]),
    "steps that are text": lambda b: {"word": "x", "phase": "committed", "finish": "x", "undo": []},
}
STEPS: dict[str, Callable[[LifeBench], object]] = {
    "a step that is a number": lambda b: 3,
    "a step of no kind": lambda b: {"path": "/x"},
    "a step of an unknown kind": lambda b: step("format", "/dev/sda"),
    "removal of a host's file": lambda b: step("remove", b.witness / "passwd"),
    "removal of a host's folder": lambda b: step("remove-tree", b.witness),
    "removal of all images": lambda b: step("remove-tree", b.disk().parents[2]),
    "removal by dots": lambda b: step("remove-tree", f"{b.disk().parent}{'/..' * 6}/srv"),
    "removal of another's configuration": lambda b: step("remove", b.config.with_name("web2.cfg")),
    "a rename over a host's file": lambda b: step(
        "rename", b.witness / "passwd", source=str(b.config)
    ),
    "a size of a host's file": lambda b: step("set-size", b.witness / "passwd", size="0"),
    "a size that is text": lambda b: step("set-size", b.disk(), size="-1"),
    "modules of another guest": lambda b: modules_of("web2", "x"),
    "modules elsewhere": lambda b: modules_of(NAME, "../../x"),
    "a volume that is an option": lambda b: step("lv-remove", "a b/c", group=".."),
}


def write_journal(bench: LifeBench, journal: object) -> None:
    bench.journal.parent.mkdir(exist_ok=True)
    bench.journal.write_text(json.dumps(journal))


def made_journals(bench: LifeBench, name: str) -> object:
    if name in JOURNALS:
        return JOURNALS[name](bench)
    if name in STEPS:
        return journal_of(STEPS[name](bench))
    return journal_of(*[step("remove", bench.config)] * 5000)


@pytest.mark.parametrize("name", [*JOURNALS, *STEPS, "5000 steps"])
def test_a_journal_that_we_never_wrote(installed: LifeBench, name: str) -> None:
    write_journal(installed, made_journals(installed, name))
    for word in CHANGES:
        assert (
            str(installed.journal) in installed.refused(word, **options_of(word, installed)).brief
        )
    said = installed.demand("list-guests")
    assert "cannot be ended" in said
    assert NAME in said


@pytest.mark.parametrize("kind", OTHERS)
def test_a_journal_that_is_no_file_of_ours(installed: LifeBench, kind: str) -> None:
    write_journal(installed, journal_of())
    DAMAGES[kind](installed.journal)
    assert str(installed.journal) in installed.refused("resize", size="48M").brief
    assert "cannot be ended" in installed.demand("list-guests")


# artifacts
FILES = ("disk.img", "swap.img", "vmlinuz", "initrd.img", "kernel.json", "spec.json")
FILES_OF_TEXT = (f"{NAME}.cfg", "SHA256SUMS", "FSVERITY")


@pytest.mark.parametrize("name", [*FILES, *FILES_OF_TEXT])
def test_an_artifact_with_one_damaged_file(bench: LifeBench, name: str) -> None:
    path, pristine = bench.artifact / name, bench.work / "pristine"
    shutil.copy2(path, pristine)
    for kind in DAMAGES:
        DAMAGES[kind](path)
        for word in ("install", "publish"):
            error = bench.refused(word, unproven="yes")
            assert error.exit_code == (2 if kind == "gone" and "img" not in name else 5) or (
                kind == "gone"
            ), f"{kind}: {error.brief}"
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(True)
        path.with_name(f"{name}.real").unlink(missing_ok=True)
        shutil.copy2(pristine, path)
    bench.demand("install", unproven="yes")


def test_a_file_that_no_sum_speaks_of(bench: LifeBench) -> None:
    for sums, name in (("SHA256SUMS", "vmlinuz"), ("FSVERITY", "disk.img")):
        path = bench.artifact / sums
        text = path.read_text()
        path.write_text("".join(f"{line}\n" for line in text.splitlines() if name not in line))
        assert bench.refused("install", unproven="yes").exit_code == 5
        path.write_text(text)


def test_an_artifact_whose_kernel_has_a_name_that_leads_elsewhere(bench: LifeBench) -> None:
    facts = bench.artifact / "kernel.json"
    facts.write_text(json.dumps({"abi": "../../../../srv/x"}))
    sums = bench.artifact / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if "kernel.json" not in line]
    sums.write_text("\n".join([*lines, f"{digest_file(facts)}  kernel.json"]) + "\n")
    bench.refused("install", unproven="yes")


def test_a_damaged_kernel_of_the_host_is_put_right(installed: LifeBench) -> None:
    (kernel,) = (installed.root / "var/lib/xen/kernels").iterdir()
    flip(kernel / "vmlinuz")
    installed.demand("install", unproven="yes", replace="yes")
    assert (kernel / "vmlinuz").read_bytes() == (installed.artifact / "vmlinuz").read_bytes()


# published versions
def test_a_flipped_bit_in_an_older_version_is_not_published_again(bench: LifeBench) -> None:
    bench.demand("publish", unproven="yes")
    (older,) = bench.versions()
    older.rename(older.with_name("20250101T000000Z-"))
    older = older.with_name("20250101T000000Z-")
    for name in ("vmlinuz", "swap.img"):
        (older / name).chmod(0o600)
        flip(older / name)
    bench.make_artifact(ABIS[0], "one")
    said = bench.demand("publish", unproven="yes")
    assert "vmlinuz is copied anew" in said
    newest = bench.versions()[-1]
    for name in ("vmlinuz", "swap.img"):
        assert (newest / name).read_bytes() == (bench.artifact / name).read_bytes()
    assert (newest / "initrd.img").samefile(older / "initrd.img")


@pytest.mark.parametrize("kind", [*OTHERS, "gone"])
def test_damaged_facts_of_a_version(bench: LifeBench, kind: str) -> None:
    bench.demand("publish", unproven="yes")
    (version,) = bench.versions()
    (version / "published.json").chmod(0o600)
    DAMAGES[kind](version / "published.json")
    bench.ask("install", of="published", unproven="yes")
    bench.ask("publish", rollback="yes")
    assert version.name in bench.demand("publish", unproven="yes")


def test_a_damaged_version_is_not_gone_back_to(bench: LifeBench) -> None:
    bench.demand("publish", unproven="yes")
    (first,) = bench.versions()
    first.rename(first.with_name("20250101T000000Z-"))
    first = first.with_name("20250101T000000Z-")
    bench.make_artifact(ABIS[1], "two")
    bench.demand("publish", unproven="yes")
    (first / "disk.img").chmod(0o600)
    flip(first / "disk.img")
    said = bench.ask("publish", rollback="yes")
    assert said.code == 2
    assert f"{first.name} is passed over" in said.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_published_disk_is_not_installed(bench: LifeBench, kind: str) -> None:
    bench.demand("publish", unproven="yes")
    (version,) = bench.versions()
    (version / "disk.img").chmod(0o600)
    DAMAGES[kind](version / "disk.img")
    assert bench.refused("install", of="published", unproven="yes").exit_code == 5


def test_what_killed_publishing_left_goes_with_the_next(bench: LifeBench) -> None:
    dead = bench.output / "scratch/publish-web1-12345678"
    (dead / "deep").mkdir(parents=True)
    (dead / "disk.img").write_bytes(bytes(1 << 20))
    bench.demand("publish", unproven="yes")
    for name in (".20250101T000000Z-.new", ".20250101T000000Z-.gone"):
        (bench.published / name).mkdir()
        (bench.published / name / "disk.img").write_bytes(b"x")
    bench.demand("publish", unproven="yes")
    assert list((bench.output / "scratch").iterdir()) == []
    assert not [path for path in bench.published.iterdir() if path.name.startswith(".")]


# disks
@pytest.mark.parametrize("kind", ["gone", "folder", "FIFO", "loop"])
@pytest.mark.parametrize("name", ["disk.img", "swap.img"])
def test_a_disk_that_is_none(installed: LifeBench, kind: str, name: str) -> None:
    DAMAGES[kind](installed.disk(name=name))
    if name == "disk.img":
        for word in ("resize", "refresh"):
            error = installed.refused(word, **options_of(word, installed))
            assert error.exit_code == 3
            assert "disk.img" in error.brief
    assert name in installed.demand("list-guests")
    for word in ("rebuild", "remove"):
        said = installed.ask(word, **options_of(word, installed))
        assert said.error is None or said.error.hint
        assert not list(installed.journal.parent.glob("*")), "a journal stays for ever"


def test_disks_are_for_their_owner_alone(installed: LifeBench) -> None:
    (installed.artifact / "disk.img").chmod(0o644)
    old = os.umask(0)
    try:
        installed.demand("rebuild", **options_of("rebuild", installed))
        installed.demand("resize", size="24M")
        installed.demand("publish", unproven="yes")
    finally:
        os.umask(old)
    images = installed.root / "var/lib/xen/images" / NAME
    disks = [*images.rglob("*.img"), *installed.published.rglob("*.img")]
    disks = [path for path in disks if path.name in ("disk.img", "swap.img")]
    assert len(disks) == 6
    for disk in disks:
        is_published = installed.published in disk.parents
        assert disk.stat().st_mode & 0o777 == (0o400 if is_published else 0o600), disk
        for folder in disk.parents:
            if folder in (images.parent, installed.published.parent):
                break
            assert folder.stat().st_mode & 0o777 == 0o700, folder


def test_disks_of_an_earlier_version_are_closed_by_whatever_word_comes(
    installed: LifeBench,
) -> None:
    installed.disk().chmod(0o644)
    for folder in (installed.disk().parent, installed.disk().parents[1]):
        folder.chmod(0o755)
    installed.demand("list-guests")
    assert installed.disk().stat().st_mode & 0o777 == 0o600
    for folder in (installed.disk().parent, installed.disk().parents[1]):
        assert folder.stat().st_mode & 0o777 == 0o700


# copy-on-write disks
@pytest.fixture
def overlay(bench: LifeBench) -> Path:
    """The artifact's disk becomes an overlay; returns the golden image that it rests on."""
    mark = "ab" * 32
    folder = bench.output / "store/image" / mark[:32]
    folder.mkdir(parents=True)
    golden, disk = folder / "golden.img", bench.artifact / "disk.img"
    shutil.move(disk, golden)
    files = {golden.name: {"size": golden.stat().st_size, "sha256": digest_file(golden)}}
    made = BuildInfo("image", mark, 1, {}, {}, files=files)
    (folder / "buildinfo.json").write_bytes(made.to_json())
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(golden)]
    subprocess.run([*argv, disk.with_suffix(".qcow2")], check=True)
    for config in bench.artifact.glob(f"{NAME}.*"):
        text = config.read_text().replace("format=raw, vdev=xvda1", "format=qcow2, vdev=xvda1")
        config.write_text(text.replace("disk.img", "disk.qcow2"))
    (bench.artifact / "stages.json").write_text(json.dumps({"image": asdict(made)}))
    for name in ("SHA256SUMS", "FSVERITY"):
        (bench.artifact / name).unlink()
    write_sums(bench.artifact, disks=("disk.*", "swap.img"))
    return golden


def _another_build(golden: Path) -> None:
    facts = golden.with_name("buildinfo.json")
    facts.write_text(facts.read_text().replace("abab", "cdcd"))


def _same_size(golden: Path) -> None:
    with open(golden, "r+b") as stream:
        stream.seek(8 << 20)
        stream.write(b"another")


def test_a_golden_image_that_is_what_it_was(bench: LifeBench, overlay: Path) -> None:
    bench.demand("publish", unproven="yes")
    bench.demand("install", unproven="yes")
    assert bench.disk(name="disk.qcow2").stat().st_mode & 0o777 == 0o600
    require(os.access("/dev/fuse", os.R_OK | os.W_OK), "FUSE")
    bench.demand("refresh", **options_of("refresh", bench))
    bench.demand("refresh", undo="yes")


GOLDEN_DAMAGES = {**DAMAGES, "another build": _another_build, "same size": _same_size}


@pytest.mark.parametrize(
    "damage", [name for name in GOLDEN_DAMAGES if name not in ("huge", "garbage")]
)
def test_a_golden_image_that_is_gone_or_another(
    bench: LifeBench, overlay: Path, damage: str
) -> None:
    GOLDEN_DAMAGES[damage](overlay)
    for word in ("publish", "install"):
        error = bench.refused(word, unproven="yes")
        assert error.exit_code == 5
        assert "golden.img" in error.brief


# configurations
def test_a_rebuild_keeps_an_administrators_edits(installed: LifeBench) -> None:
    text = installed.config.read_text().replace("memory = 256", "memory = 777  # mine")
    extra = "# caf\xe9: ask Zo\xeb before a change\n".encode("latin-1")
    vfb = b'vfb = [ "type=vnc,vncpasswd=se-cret" ]\npool = "blue"\n'
    installed.config.write_bytes(extra + text.encode() + vfb)
    assert "memory = 777" in text
    for generation in (2, 3):
        said = installed.demand("rebuild", **options_of("rebuild", installed))
        now = installed.config.read_bytes()
        assert now.startswith(extra)
        assert now.endswith(vfb)
        assert b"memory = 777  # mine" in now
        assert str(installed.disk(generation)).encode() in now
        assert b"images/web1/1/" not in now
        assert "kept: memory = 777" in said
        assert "kept: pool = blue" in said
        assert "se-cret" not in said
    assert "was edited" in installed.demand("list-guests")
    assert "it was edited" in installed.refused("remove").details
    installed.demand("rebuild", undo="yes")
    assert b"images/web1/2/" in installed.config.read_bytes()
    assert installed.config.read_bytes().startswith(extra)


def test_a_rebuild_says_what_it_changes_and_what_it_keeps(installed: LifeBench) -> None:
    text = installed.config.read_text()
    lines = text.replace("vcpus = 1", "vcpus = 3").replace("on_crash =", "on_crash  =")
    assert str(installed.disk()) in lines
    installed.config.write_text(lines)
    sums = installed.artifact / "SHA256SUMS"
    built = installed.artifact / f"{NAME}.cfg"
    before = digest_file(built)
    built.write_text(
        built.read_text().replace("memory = 256", "memory = 384").replace("vcpus = 1", "vcpus = 2")
    )
    sums.write_text(sums.read_text().replace(before, digest_file(built)))
    said = installed.demand("rebuild", **options_of("rebuild", installed))
    assert "changed: memory = 256 -> memory = 384" in said
    assert "kept: vcpus = 3; the new build says vcpus = 2" in said
    now = installed.config.read_text()
    assert "memory = 384" in now
    assert "vcpus = 3" in now


CONFIGS: dict[str, Damage] = {
    "UTF-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    "Python": lambda path: path.write_text(f"{path.read_text()}\nfor x in []:\n    memory = x\n"),
    "zeros": lambda path: path.write_bytes(path.read_bytes() + bytes(9)),
    "endless list": lambda path: path.write_text(
        f"{path.read_text()}\ndisk = [ 'phy:/x,xvdz,w',\n"
    ),
    **{kind: DAMAGES[kind] for kind in ("FIFO", "folder", "loop", "huge", "garbage")},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_that_cannot_be_read(installed: LifeBench, kind: str) -> None:
    CONFIGS[kind](installed.config)
    for word in ("refresh", "rebuild"):
        error = installed.refused(word, **options_of(word, installed))
        assert str(installed.config) in error.brief
    installed.demand("list-guests")
    assert str(installed.config) in installed.ask("doctor", dry="yes").text
    assert installed.refused("start")
    assert installed.refused("migrate", to="peer", dry="yes")


def test_a_latin_1_comment_survives_a_refresh(installed: LifeBench) -> None:
    installed.config.write_bytes(b"# caf\xe9\n" + installed.config.read_bytes())
    for asked in (options_of("refresh", installed), {"undo": "yes"}):
        installed.demand("refresh", **asked)
        assert installed.config.read_bytes().startswith(b"# caf\xe9\n")
    assert hostname_in(installed.disk()) == f"{NAME} one"
