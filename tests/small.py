"""A guest as small as a guest can be: a golden half of a few files, our own volume and config.

`python -m tests.small PROJECT NAME VERSION` builds it in a process of its
own; KILL_AT=N in the environment ends that process by SIGKILL just before its N-th command.
"""

import json
import os
import signal
import sys
from pathlib import Path

from pipeline import process
from pipeline.bootstrap.epoch import write_epoch
from pipeline.build_options import BuildOptions
from pipeline.errors import PipelineError
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.stage import Job, Stage
from pipeline.stages import STAGES, config, volume
from pipeline.stages import image as image_stage
from pipeline.storage.ext import fixed_clock
from pipeline.storage.filesystems import Content
from tests import whole_disk

_UUID = "6f0d8f0a-52f5-5d0e-8d0b-3f3b8d4f7a52"
_IDENTITY = "5" * 64
_KEYS = {stage.name: stage.keys for stage in STAGES}
EPOCH = 1_700_000_000
GOLDEN_MIB = 12
GUEST = 'suite = "bookworm"\nsize = "{size}"\nswap = "2M"\n'
_STATUS = "Package: base-files\nStatus: install ok installed\nVersion: 12\nArchitecture: amd64\n"


def make_project(root: Path, *names: str, text: str = "", size: str = "256M") -> Project:
    """A project with these guests."""
    (root / "guests").mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / f"guests/{name}.toml").write_text(GUEST.format(size=size) + text)
    return Project(root, root / "output", root / "guests")


def make_recipe(project: Project, version: str = "1", *, replace: bool = False) -> Recipe:
    """The stages: a golden image that holds /etc/version, and what is ours from there on."""
    return Recipe(project, make_stages(version), options=BuildOptions(replace=replace))


def build(project: Project, name: str, version: str = "1", *, replace: bool = False) -> Path:
    """Build a guest; its artifact folder."""
    return _build(make_recipe(project, version, replace=replace), name)


def build_really(project: Project, name: str) -> Path:
    """The same with our own stage image, for file systems and partitions of any kind."""
    stages = [*make_stages("1")[:4], image_stage.STAGE, volume.STAGE, config.STAGE]
    return _build(Recipe(project, stages), name)


def _build(recipe: Recipe, name: str) -> Path:
    spec = load_all(recipe.project.guests)[name]
    for stage in recipe.stages:
        recipe.build(stage, spec)
    return recipe.project.artifact(name)


def make_stages(version: str) -> list[Stage]:
    """Of that version, which the golden image holds."""
    first = ("mirror", "base", "kernel", "rootfs")
    made = [
        Stage(name, name, _make(name), 1, after=first[:at], keys=_KEYS[name])
        for at, name in enumerate(first)
    ]
    golden = Stage(
        *("image", "image", lambda job: _make_image(job, version), 1),
        after=("rootfs",),
        keys=_KEYS["image"],
        inputs=lambda _spec, _project: {"version": version},
    )
    return [*made, golden, volume.STAGE, config.STAGE]


def _make(name: str):  # type: ignore[no-untyped-def]
    def make(job: Job) -> None:
        facts = {"epoch": EPOCH, "identity": _IDENTITY, "sources": [], "indexes": []}
        (job.scratch / "snapshot.json").write_text(json.dumps(facts))
        write_epoch(job.scratch, EPOCH)
        for file in ("vmlinuz", "initrd.img"):
            (job.scratch / file).write_text(name)
        (job.scratch / "kernel.json").write_text(json.dumps({"abi": "6.1.0-1-test"}))
        (job.scratch / "dpkg-status").write_text(_STATUS)
        if name == "rootfs":
            _make_tree(job.scratch / "tree", "1")
            tar = job.scratch / "rootfs.tar"
            pack = ["tar", "-C", job.scratch / "tree", "--sort=name", "--owner=0"]
            pack += ["--numeric-owner", "--mtime=@1700000000"]
            job.run([*pack, "--group=0", "--exclude=./etc/shadow", "-cf", tar, "."])
            job.run([*pack, "--group=42", "-rf", tar, "./etc/shadow"])
            job.run(["rm", "-r", job.scratch / "tree"])

    return make


def _make_image(job: Job, version: str) -> None:
    tree = job.scratch / "tree"
    _make_tree(tree, version)
    image = job.scratch / "golden.img"
    job.run(["find", tree, "-exec", "touch", "-h", "-d", f"@{EPOCH}", "{}", "+"])
    options = ["-U", _UUID, "-E", f"hash_seed={_UUID},root_owner=0:0"]
    make = ["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", tree, image, f"{GOLDEN_MIB}M"]
    job.run(make, env=fixed_clock(EPOCH))
    image_stage.clamp_times(job, Content("/", "ext4", GOLDEN_MIB), EPOCH)
    process.run(["rm", "-r", tree])


def _make_tree(tree: Path, version: str) -> None:
    for folder in ("etc", "root", "var/lib", "var/tmp"):
        (tree / folder).mkdir(parents=True)
    whole_disk.write_loaders(tree)
    (tree / "var/tmp").chmod(0o1777)
    (tree / "var/lib/kept").write_text("kept\n")
    (tree / "var/lib/dpkg").mkdir()
    (tree / "var/lib/dpkg/status").write_text("Package: kept\n")
    (tree / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    (tree / "etc/version").write_text(f"{version}\n")


def version_of(disk: Path) -> str:
    """What the guest on this disk holds, after a check of its whole file system."""
    root = whole_disk.name_of(disk)
    process.run(["e2fsck", "-f", "-n", root])
    return process.run(["debugfs", "-R", "cat /etc/version", root]).splitlines()[-1]


def kill_at(number: int) -> None:
    """Die before that command, as if by kill -9 from outside."""
    start, count = process._start, iter(range(1, 10_000))

    def counted(*arguments, **options):  # type: ignore[no-untyped-def]
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return start(*arguments, **options)

    process._start = counted


def main(root: str, name: str, version: str) -> int:
    """The same in a process of its own; its commands are counted on standard output."""
    kill_at(int(os.environ.get("KILL_AT", "0")))
    try:
        build(Project(Path(root), Path(root) / "output", Path(root) / "guests"), name, version)
    except PipelineError as error:
        print(f"{type(error).__name__}: {error.brief}\n{error.details}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
