"""What stands in the place of mirror, base and rootfs for a guest whose tree was adopted."""

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.bootstrap.epoch import EPOCH, write_epoch
from pipeline.cutoff import Offer, Taken
from pipeline.errors import VerificationError
from pipeline.files import digest_file
from pipeline.guest.adopted_tree import read_adopted, tar_of
from pipeline.namespace import is_root
from pipeline.project import Project
from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.stage import Inputs, Job, Stage
from pipeline.stages.package_list import STATUS, keep_status
from pipeline.walls.beneath import take
from pipeline.walls.cage import TOOLS as CAGE
from pipeline.walls.cage import caged, first_id, make_room

_NOTE, _TAR = "adopted.json", "rootfs.tar"


def left_out(name: str) -> Stage:
    """A stage that has nothing to do for such a guest; one artifact serves them all."""
    return Stage(
        name=name,
        summary="not needed: the tree is given",
        build=_note,
        revision=1,
        outputs=lambda _spec, _project: (_NOTE,),
    )


def _note(job: Job) -> None:
    (job.scratch / _NOTE).write_text('{"adopted": true}\n')


def rootfs_of(spec: Spec) -> Stage | None:
    """The stage rootfs where the tree is given, None for any other guest."""
    if not spec.adopted:
        return None
    return _OWN_KERNEL if spec.is_kernel_inside else _OUR_KERNEL


def _inputs(spec: Spec, project: Project) -> Inputs:
    """The tar's digest, and nothing else."""
    return {"tree": read_adopted(project, spec.adopted).sha256}


def _build(job: Job) -> None:
    """The tar as it was adopted; VerificationError where it is another one by now."""
    adopted, tar = read_adopted(job.project, job.spec.adopted), job.scratch / _TAR
    given = tar_of(job.project, job.spec.adopted)
    shutil.copyfile(given, tar)
    if digest_file(tar) != adopted.sha256:
        raise VerificationError(f"{given} is not what was adopted", hint="adopt it again")
    if "kernel" not in job.taken:
        _add_modules(job, tar, adopted.lib)
    if adopted.is_debian_family:
        keep_status(job, tar)
    else:
        (job.scratch / STATUS).write_text("")
    write_epoch(job.scratch, adopted.epoch)


def _take_nothing(_offer: Offer) -> Taken:
    return Taken({"packages": {}})


def _outputs(_spec: Spec, _project: Project) -> Sequence[str]:
    return (_TAR, STATUS, EPOCH)


def _add_modules(job: Job, tar: Path, lib: str) -> None:
    """The modules of our kernel behind the tree, in a cage; GNU tar reads on to the last member."""
    room = make_room(job.scratch / "room")
    os.rename(tar, room / _TAR)
    if is_root():
        os.chown(room / _TAR, first_id(), first_id())
    modules = job.upstream("kernel") / "modules.tar"
    unpacked = room / "modules"
    add = ["tar", "-C", unpacked, "--format=gnu", "--sort=name", "--numeric-owner"]
    add += ["--owner=0", "--group=0", "--no-recursion", "--transform", f"s,^\\./lib/,./{lib}/,S"]
    list_all = f"cd {shlex.quote(str(unpacked))} && find ./lib/modules -mindepth 1 -print0"
    steps: list[list[object]] = [
        ["mkdir", unpacked],
        ["tar", "-C", unpacked, "-xpf", modules],
        ["sh", "-c", f"{list_all} | LC_ALL=C sort -z >../names"],
    ]
    add += ["--null", "--files-from", room / "names", "-rf", room / _TAR]
    job.run(caged(add, room=room, readable=[modules], before=steps))
    take(room, _TAR, tar, mode=0o644)
    remove_tree(room)


_OWN_KERNEL = Stage(
    name="rootfs",
    summary="the tree that was adopted",
    build=_build,
    revision=1,
    after=("mirror", "base", "kernel"),
    reads={"adopted": "the digest of what it names is an input"},
    inputs=_inputs,
    takes={"mirror": _take_nothing, "base": _take_nothing, "kernel": _take_nothing},
    outputs=_outputs,
    tools={**CAGE, "tar": "tar"},
)
_OUR_KERNEL = replace(_OWN_KERNEL, takes={"mirror": _take_nothing, "base": _take_nothing})
