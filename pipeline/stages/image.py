"""Image: the root file system's tree in a file, without identity, made without mounting it."""

import re
import uuid
from collections.abc import Sequence
from pathlib import Path

from pipeline.bootstrap.epoch import read_epoch
from pipeline.console.progress import progress_bar
from pipeline.mirror.apt_sources import installed_version
from pipeline.namespace import has_memory_for_tmpfs, require_namespace, tmpfs
from pipeline.project import Project
from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.stage import Inputs, Job, Stage
from pipeline.storage.ext import fixed_clock, run_debugfs
from pipeline.storage.filesystems import (
    MOUNTED,
    Content,
    make_commands,
    measure_tree,
    one_at_a_time,
    require_mounting,
)
from pipeline.storage.images import golden_name
from pipeline.walls.beneath import take
from pipeline.walls.cage import TOOLS as CAGE
from pipeline.walls.cage import caged, caged_reader, make_room

REVISION = 1
MIB = 1 << 20
# any fixed namespace does: a golden image's UUID comes from its content, see RFC 9562 version 5
_UUIDS = uuid.UUID("6f0d8f0a-52f5-5d0e-8d0b-3f3b8d4f7a51")
_TIMES = ("atime", "ctime")
_FIRST_FREE_INODE = 11


def inputs(spec: Spec, _project: Project) -> Inputs:
    """The file systems' features: never the build host's defaults."""
    return {"features": _features(spec), "e2fsprogs": installed_version("e2fsprogs")}


def read_layout(spec: Spec) -> list[tuple[str, str]]:
    """Mount point and kind of each file system, the root first."""
    return [(point, fs) for point, _, fs in (part.rpartition(":") for part in spec.layout.split())]


def _features(spec: Spec) -> str:
    kinds = dict.fromkeys(fs for _, fs in read_layout(spec))
    ext = [kind for kind in kinds if kind not in MOUNTED]
    return " ".join(spec.mke2fs_features(kind) for kind in ext)


def build(job: Job) -> None:
    """Unpack the tree, write it into file systems, fix the times that mke2fs took over."""
    require_namespace(job.run)
    rootfs = job.upstream("rootfs") / "rootfs.tar"
    epoch = read_epoch(job.upstream("rootfs"))
    layout = read_layout(job.spec)
    require_mounting(fs for _, fs in layout)
    list_all = caged_reader(["tar", "--numeric-owner", "-tvf", rootfs], readable=[rootfs])
    contents = measure_tree(job.run(list_all), layout, rootfs.stat().st_size // MIB)
    with progress_bar("writing the image", total=1 + len(contents), unit="steps") as bar:
        _make_file_systems(job, rootfs, contents, epoch=epoch)
        bar.advance()
        for content in contents:
            if content.fs not in MOUNTED:
                clamp_times(job, content, epoch)
            bar.advance()


def _make_file_systems(job: Job, rootfs: Path, contents: Sequence[Content], *, epoch: int) -> None:
    """The tree lives in memory where there is enough, for as long as it is read.

    The file systems that are mounted deepest come first; what is in them leaves the tree then.
    """
    room = make_room(job.scratch / "room")
    tree = make_room(room / "tree")
    tree.chmod(0o755)
    in_memory = has_memory_for_tmpfs(rootfs.stat().st_size // MIB)
    unpack = ["tar", "-C", tree, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls"]
    steps: list[list[object]] = [[*unpack, "-xpf", rootfs]]
    steps += [["mkdir", "-p", f"{tree}{content.mountpoint}"] for content in contents[1:]]
    for content in reversed(contents):
        name = uuid.uuid5(_UUIDS, f"{_content_name(job.spec, content)} {epoch}")
        steps += make_commands(
            content,
            spec=job.spec,
            tree=Path(f"{tree}{content.mountpoint}".rstrip("/")),
            image=room / golden_name(content.mountpoint),
            uuid=str(name),
        )
        if content.mountpoint != "/":
            steps.append(["find", f"{tree}{content.mountpoint}", "-mindepth", "1", "-delete"])
    *before, last = steps
    command = caged(
        last,
        room=room,
        readable=[rootfs],
        mounts=[tmpfs(tree)] if in_memory else [],
        before=before,
        mounts_files=any(content.fs in MOUNTED for content in contents),
    )
    with one_at_a_time(content.fs for content in contents):
        job.run(command, env=fixed_clock(epoch))
    for content in contents:
        golden = golden_name(content.mountpoint)
        take(room, golden, job.scratch / golden, mode=0o644)
    remove_tree(room)


def _content_name(spec: Spec, content: Content) -> str:
    root = f"{spec.suite} {spec.arch}"
    return root if content.mountpoint == "/" else f"{root} {content.mountpoint}"


def clamp_times(job: Job, content: Content, epoch: int) -> None:
    """Set access and change times of every inode: e2fsprogs before 1.47.1 copies the host's.

    Nor does it take over the mode of the folder that becomes the root: 1777 of /var/tmp.
    """
    image = job.scratch / golden_name(content.mountpoint)
    counts = job.run(caged_reader(["dumpe2fs", "-h", image], readable=[image]))
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
    if content.mode != 0o755:
        lines.append(f"sif <2> mode 04{content.mode:04o}")
    script = job.scratch / "clamp"
    script.write_text("\n".join(lines) + "\n")
    run_debugfs(job.run, image, script, epoch)
    script.unlink()


def outputs(spec: Spec, _project: Project) -> Sequence[str]:
    """A golden image for each file system."""
    return [golden_name(point) for point, _ in read_layout(spec)]


STAGE = Stage(
    name="image",
    summary="golden image, no identity in it",
    build=build,
    revision=REVISION,
    room_mib=250,
    after=("rootfs",),
    keys=("suite", "arch", "fs", "layout"),
    inputs=inputs,
    outputs=outputs,
    tools={
        **CAGE,
        "mke2fs": "e2fsprogs",
        "debugfs": "e2fsprogs",
        "dumpe2fs": "e2fsprogs",
        "tar": "tar",
    },
)
