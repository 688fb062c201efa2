"""Image: the root file system's tree in a file, without identity, made without mounting it."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from pipeline.archive.snapshot import read_snapshot
from pipeline.ext import fixed_clock, run_debugfs
from pipeline.host.namespace import has_memory_for_tmpfs, isolated, tmpfs
from pipeline.host.packages import installed_version
from pipeline.host.scratch import remove_tree
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
_EXTENDED = "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=1,nodiscard"
_FIRST_FREE_INODE = 11


def inputs(spec: Spec, _project: Project) -> Inputs:
    """The file system's features: never the build host's defaults."""
    return {
        "features": spec.suite_facts.mke2fs_features(spec.fs),
        "e2fsprogs": installed_version("e2fsprogs"),
    }


def build(job: Job) -> None:
    """Unpack the tree, write it into a file system, fix the times that mke2fs took over."""
    rootfs = job.upstream("rootfs") / "rootfs.tar"
    epoch = read_snapshot(job.upstream("mirror")).epoch
    image = job.scratch / IMAGE
    with progress_bar("writing the image", total=2, unit="steps") as bar:
        _make_file_system(job, rootfs, image, epoch=epoch)
        bar.advance()
        clamp_times(job, image, epoch)
        bar.advance()


def _size_mib(rootfs: Path) -> int:
    """Big enough for the tree with its rounding to blocks, the inodes and the journal."""
    content_mib = rootfs.stat().st_size // MIB
    return (content_mib * 5 // 4 + JOURNAL_MIB + SLACK_MIB + 63) // 64 * 64


def _make_file_system(job: Job, rootfs: Path, image: Path, *, epoch: int) -> None:
    """The tree lives in memory where there is enough, for as long as mke2fs reads it."""
    spec = job.spec
    tree = job.scratch / "tree"
    tree.mkdir()
    in_memory = has_memory_for_tmpfs(rootfs.stat().st_size // MIB)
    unpack = ["tar", "-C", tree, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls"]
    name = str(uuid.uuid5(_UUIDS, f"{spec.suite} {spec.arch} {epoch}"))
    argv: list[object] = ["mke2fs", "-q", "-F", "-t", spec.fs]
    argv += ["-O", spec.suite_facts.mke2fs_features(spec.fs), "-b", "4096", "-i", "8192"]
    argv += ["-I", spec.suite_facts.inode_size, "-U", name, "-L", "root", "-m", "1", "-d", tree]
    argv += ["-J", f"size={JOURNAL_MIB}"] if spec.fs != "ext2" else []
    argv += ["-E", f"hash_seed={name},{_EXTENDED}", image, f"{_size_mib(rootfs)}M"]
    command = isolated(
        argv,
        mounts=[tmpfs(tree)] if in_memory else [],
        before=[[*unpack, "-xpf", rootfs]],
    )
    job.run(command, env=fixed_clock(epoch))
    remove_tree(tree)


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
