"""Image: the root file system's tree in a file, without identity, made without mounting it."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from pipeline.archive.snapshot import read_snapshot
from pipeline.errors import PipelineError
from pipeline.ext import fixed_clock, run_debugfs
from pipeline.host.namespace import isolated
from pipeline.host.packages import installed_version
from pipeline.progress import progress_bar
from pipeline.project import Project
from pipeline.recipe import Inputs, Job, Stage
from pipeline.spec import Spec

REVISION = 1
IMAGE = "golden.img"
MIB = 1 << 20
JOURNAL_MIB = 64
SLACK_MIB = 96
# any fixed namespace does: a golden image's UUID comes from its content, see RFC 9562 version 5
_UUIDS = uuid.UUID("6f0d8f0a-52f5-5d0e-8d0b-3f3b8d4f7a51")
_TIMES = ("atime", "ctime")
_FIRST_FREE_INODE = 11


def inputs(spec: Spec, _project: Project) -> Inputs:
    """The file system's features: never the build host's defaults."""
    return {
        "features": spec.suite_facts.mke2fs_features(spec.fs),
        "e2fsprogs": installed_version("e2fsprogs"),
    }


def build(job: Job) -> None:
    """Unpack the tree, write it into a file system, fix the times that mke2fs took over."""
    if job.spec.fs not in ("ext2", "ext3", "ext4"):
        raise PipelineError(
            f"fs={job.spec.fs}: only ext2, ext3 and ext4 are written so far",
            hint="use fs=ext4",
        )
    rootfs = job.upstream("rootfs") / "rootfs.tar"
    epoch = read_snapshot(job.upstream("mirror")).epoch
    tree = job.scratch / "tree"
    tree.mkdir()
    with progress_bar("writing the image", total=3, unit="steps") as bar:
        unpack = ["tar", "-C", tree, "--numeric-owner", "--xattrs", "--xattrs-include=*"]
        job.run(isolated([*unpack, "--acls", "-xpf", rootfs]))
        bar.advance()
        image = job.scratch / IMAGE
        size_mib = _size_mib(rootfs)
        _make_file_system(job, tree, image, size_mib=size_mib, epoch=epoch)
        bar.advance()
        clamp_times(job, image, epoch)
        bar.advance()
    job.run(isolated(["rm", "-rf", "--one-file-system", tree]))


def _size_mib(rootfs: Path) -> int:
    """Big enough for the tree with its rounding to blocks, the inodes and the journal."""
    content_mib = rootfs.stat().st_size // MIB
    return (content_mib * 5 // 4 + JOURNAL_MIB + SLACK_MIB + 63) // 64 * 64


def _make_file_system(job: Job, tree: Path, image: Path, *, size_mib: int, epoch: int) -> None:
    spec = job.spec
    name = str(uuid.uuid5(_UUIDS, f"{spec.suite} {spec.arch} {epoch}"))
    features = spec.suite_facts.mke2fs_features(spec.fs)
    journal = ["-J", f"size={JOURNAL_MIB}"] if spec.fs != "ext2" else []
    argv: list[str | Path] = ["mke2fs", "-q", "-F", "-t", spec.fs, "-O", features]
    argv += ["-b", "4096", "-I", str(spec.suite_facts.inode_size), "-i", "8192", *journal]
    argv += ["-U", name, "-L", "root", "-m", "1", "-d", tree]
    argv += [
        "-E",
        f"hash_seed={name},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=1,nodiscard",
    ]
    job.run(isolated([*argv, image, f"{size_mib}M"]), env=fixed_clock(epoch))


def clamp_times(job: Job, image: Path, epoch: int) -> None:
    """Set access and change times of every inode: e2fsprogs before 1.47.1 copies the host's."""
    counts = job.run(["dumpe2fs", "-h", image])
    total, free = (
        int(re.findall(rf"^{name}:\s+(\d+)", counts, re.MULTILINE)[0])
        for name in ("Inode count", "Free inodes")
    )
    # mke2fs -d numbers its inodes without a gap
    inodes = [2, *range(_FIRST_FREE_INODE, total - free + 1)]
    lines = [f"sif <{inode}> {name} @{epoch}" for inode in inodes for name in _TIMES]
    lines += [f"sif <{inode}> {name}_extra 0" for inode in inodes for name in _TIMES]
    if job.spec.suite_facts.inode_size < 256:
        lines = lines[: len(lines) // 2]
    script = job.scratch / "clamp"
    script.write_text("\n".join(lines) + "\n")
    run_debugfs(job.run, image, script, epoch)
    script.unlink()


STAGE = Stage(
    name="image",
    summary="golden image, no identity in it",
    build=build,
    revision=REVISION,
    after=("rootfs",),
    keys=("suite", "arch", "fs"),
    inputs=inputs,
    tools={"mke2fs": "e2fsprogs", "debugfs": "e2fsprogs", "dumpe2fs": "e2fsprogs", "tar": "tar"},
)
