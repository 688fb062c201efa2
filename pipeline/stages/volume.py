"""Volume: the disks that a guest boots from, the golden image with this guest's identity in it."""

from __future__ import annotations

import json
import os
import shlex
import uuid
from pathlib import Path

from pipeline.archive.snapshot import read_snapshot
from pipeline.canonical import digest_file, fingerprint
from pipeline.command import require_tools
from pipeline.errors import InUseError, PipelineError
from pipeline.ext import fixed_clock, plan_writing, read_text, refuse_complaints, write_files
from pipeline.guest.identity import (
    IdentityFile,
    authorized_lines,
    identity_files,
    keep_identity,
    render_known_hosts,
)
from pipeline.guest.passwords import read_root_hash
from pipeline.host.in_use import refuse_if_used
from pipeline.progress import progress_bar
from pipeline.project import Project
from pipeline.recipe import Inputs, Job, Stage
from pipeline.spec import Spec
from pipeline.stages.names import KNOWN_HOSTS, disk_name
from pipeline.volumes.overlay import TOOLS, edit_overlay, make_overlay

REVISION = 1
MIB = 1 << 20
WRITTEN = "written.json"
_UUIDS = uuid.UUID("9b5b3d6e-4c1c-5b39-9f0e-0a8f1d1f2c11")


def inputs(spec: Spec, project: Project) -> Inputs:
    """The keys that may enter, and a digest of the password file: never the secret itself."""
    secret = ""
    if spec.root_password_file and spec.root_password_file != "-":
        path = project.guests / spec.root_password_file
        if path.is_file():
            # with the guest's own id mixed in, so that equal passwords do not show
            secret = fingerprint([spec.name, digest_file(path)])[:16]
    keys = fingerprint(authorized_lines(spec))
    return {"authorized_keys": keys, "root password": secret}


def build(job: Job) -> None:
    """Copy the golden image, write the identity, grow it to its size, add swap."""
    _refuse_used(job)
    spec, golden = job.spec, job.upstream("image") / "golden.img"
    epoch = read_snapshot(job.upstream("mirror")).epoch
    image, work = job.scratch / "disk.img", job.scratch / "work"
    work.mkdir()
    _refuse_too_small(spec, golden)
    with progress_bar("writing the disk", total=4, unit="steps") as bar:
        if spec.clone == "cow":
            _make_clone(job, golden, work, epoch)
            bar.advance(3)
        else:
            job.run(["cp", "--sparse=always", "--reflink=auto", golden, image])
            bar.advance()
            _write_identity(job, image, work, epoch)
            bar.advance()
            _grow(job, image, epoch)
            bar.advance()
        if spec.swap_mib:
            _make_swap(job)
        if spec.clone == "full":
            _convert(job)
        bar.advance()
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    _note_written(job)


def _identity_uuid(spec: Spec, what: str) -> str:
    """A UUID of this guest, the same at every build (RFC 9562 version 5)."""
    return str(uuid.uuid5(_UUIDS, f"{spec.name} {what}"))


def _make_clone(job: Job, golden: Path, work: Path, epoch: int) -> None:
    """The steps of a full copy, on an overlay; one namespace for all of them."""
    require_tools(TOOLS)
    overlay = job.scratch / disk_name(job.spec)
    size = job.spec.size_mib * MIB
    make_overlay(job.run, overlay, golden=golden, size_bytes=size)
    script = plan_writing(job.run, golden, _identity(job, golden), work=work, epoch=epoch)
    steps = [
        f'tune2fs -U {_identity_uuid(job.spec, "root")} "$1" >&2',
        f'debugfs -w -f {shlex.quote(str(script))} "$1" > {shlex.quote(str(work / "said"))} 2>&1',
        'resize2fs "$1"',
        'e2fsck -f -n "$1"',
    ]
    edit_overlay(job.run, overlay, steps, work=work, env=fixed_clock(epoch))
    refuse_complaints((work / "said").read_text(), overlay.name)


def _identity(job: Job, golden: Path) -> list[IdentityFile]:
    """The guest's own files; known_hosts is written beside its disk."""
    spec = job.spec
    kept = keep_identity(job.project.identity(spec.name), spec)
    root_hash = read_root_hash(spec, job.project.guests)
    shadow = read_text(job.run, golden, "/etc/shadow")
    (job.scratch / KNOWN_HOSTS).write_text(render_known_hosts(spec, kept))
    return list(identity_files(spec, kept, shadow=shadow, root_hash=root_hash))


def _write_identity(job: Job, image: Path, work: Path, epoch: int) -> None:
    files = _identity(job, image)
    uuid_words = ["tune2fs", "-U", _identity_uuid(job.spec, "root"), image]
    job.run(uuid_words, env=fixed_clock(epoch))
    write_files(job.run, image, files, work=work, epoch=epoch)


def _refuse_too_small(spec: Spec, golden: Path) -> None:
    need = golden.stat().st_size // MIB
    if spec.size_mib < need:
        raise PipelineError(
            f"size={spec.size}: the guest's files and journal need {need} MiB",
            hint=f"write size={need}M or more, or install less",
        )


def _grow(job: Job, image: Path, epoch: int) -> None:
    os.truncate(image, job.spec.size_mib * MIB)
    job.run(["resize2fs", image], env=fixed_clock(epoch))
    job.run(["e2fsck", "-f", "-n", image], env=fixed_clock(epoch))


def _make_swap(job: Job) -> None:
    swap = job.scratch / "swap.img"
    with open(swap, "wb") as stream:
        stream.truncate(job.spec.swap_mib * MIB)
    job.run(["mkswap", "-q", "-U", _identity_uuid(job.spec, "swap"), swap])


def _convert(job: Job) -> None:
    if job.spec.format != "qcow2":
        return
    raw = job.scratch / "disk.img"
    target = job.scratch / disk_name(job.spec)
    job.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target])
    raw.unlink()


def _refuse_used(job: Job) -> None:
    """Never over a disk that is in use or that a guest has written to since it was built."""
    folder = job.project.volume(job.spec.name)
    written = folder / WRITTEN
    disk_times = json.loads(written.read_text()) if written.is_file() else {}
    for name, mtime_ns in disk_times.items():
        path = folder / name
        refuse_if_used(path)
        if path.is_file() and path.stat().st_mtime_ns != mtime_ns and not job.may_replace:
            raise InUseError(
                f"{path}: the guest has written to it since it was built",
                hint="replace=yes builds it anew and loses what the guest wrote",
            )


def _note_written(job: Job) -> None:
    times = {path.name: path.stat().st_mtime_ns for path in job.scratch.glob("*.img")}
    times |= {path.name: path.stat().st_mtime_ns for path in job.scratch.glob("*.qcow2")}
    (job.scratch / WRITTEN).write_text(json.dumps(times))


def is_stale(_artifact: Path, spec: Spec) -> str:
    """A password on standard input cannot be compared with the last one."""
    return "root's password comes from standard input" if spec.root_password_file == "-" else ""


def folder(project: Project, guest: str) -> Path:
    """The guest's disks wait outside the artifact until the configuration joins them."""
    return project.volume(guest)


STAGE = Stage(
    name="volume",
    summary="disks with the guest's identity",
    build=build,
    revision=REVISION,
    after=("image",),
    keys=(
        "name",
        "hostname",
        "domain",
        "hosts",
        "size",
        "swap",
        "fs",
        "format",
        "clone",
        "init",
        "dhcp",
        "address",
        "netmask",
        "gateway",
        "gateway6",
        "nameservers",
        "mtu",
        "interfaces",
        "root_password_hash",
        "root_password_file",
    ),
    inputs=inputs,
    is_stale=is_stale,
    folder=folder,
    mutable=("disk.*", "swap.img"),
    tools={
        "debugfs": "e2fsprogs",
        "tune2fs": "e2fsprogs",
        "resize2fs": "e2fsprogs",
        "e2fsck": "e2fsprogs",
        "mkswap": "util-linux",
        "qemu-img": "qemu-utils",
    },
)
