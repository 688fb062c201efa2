"""Config: the artifact folder, with the domain configurations and everything that boots."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.artifact.record import RECORD, render_manifest
from pipeline.artifact.sums import DISK_SUMS, SUMS, write_sums
from pipeline.console.progress import progress_bar
from pipeline.formats import xva
from pipeline.guest.domains import domain_of
from pipeline.guest.portable_machine import machine_of, write_guest, xva_name
from pipeline.project import Project
from pipeline.recipe import DISKS, KNOWN_HOSTS
from pipeline.spec import Spec
from pipeline.spec.domain import FIRMWARE_FILE
from pipeline.stage import Inputs, Job, Stage
from pipeline.stages import firmware
from pipeline.storage.disks import targets_of
from pipeline.storage.switch import publish_guest
from pipeline.storage.written import read_record
from pipeline.store.store import read_buildinfo
from pipeline.walls.privacy import make_private

REVISION = 3


def inputs(spec: Spec, project: Project) -> Inputs:
    """Where the artifact is: its configurations name its files by full path."""
    made = {"firmware": firmware.STAGE.revision} if spec.is_uefi else {}
    if spec.format == "xva":
        made["xva"] = xva.REVISION
    return {"artifact folder": str(project.artifact(spec.name)), **made}


def build(job: Job) -> None:
    """Bring disks, kernel and configurations together; check sums last."""
    from pipeline.guest.configurations import render_all  # Jinja2: 60 ms that only a build pays

    spec, scratch = job.spec, job.scratch
    volume, kernel = job.upstream("volume"), job.upstream("kernel")
    for target in targets_of(spec, job.project):
        if target.kind == "file":
            os.link(volume / target.path.name, scratch / target.path.name)
    os.link(volume / KNOWN_HOSTS, scratch / KNOWN_HOSTS)
    if not spec.is_kernel_inside:
        for name in ("vmlinuz", "initrd.img"):
            shutil.copyfile(kernel / name, scratch / name)
    shutil.copyfile(kernel / "kernel.json", scratch / "kernel.json")
    if spec.is_uefi:
        made = job.beside(firmware.STAGE, firmware.own_spec(spec))
        shutil.copyfile(made / FIRMWARE_FILE, scratch / FIRMWARE_FILE)
    for name, text in render_all(spec, job.project):
        (scratch / name).write_text(text)
    if spec.format == "xva":
        _write_xva(job)
    status = (job.upstream("rootfs") / "dpkg-status").read_text()
    # a tree that was adopted may know no dpkg
    manifest = render_manifest(status) if status or not spec.adopted else ""
    (scratch / "manifest").write_text(manifest)
    resolved = json.dumps(job.record, indent=1, sort_keys=True)
    (scratch / "spec.json").write_text(f"{resolved}\n")
    _write_record(job)
    write_sums(scratch, disks=DISKS)


def _write_xva(job: Job) -> None:
    """What XCP-ng and XenServer import, beside the disk that it holds."""
    spec = job.spec
    disk = job.scratch / targets_of(spec, job.project)[0].path.name
    machine = machine_of(
        spec.name,
        domain_of(spec, job.project),
        description=spec.description,
        is_uefi=spec.is_uefi,
        is_template=spec.cloud_init,
    )
    name = xva_name(spec.name)
    with (
        make_private(job.scratch / name).open("r+b") as stream,
        progress_bar(f"writing {name}", total=disk.stat().st_size, unit="B") as bar,
    ):
        write_guest(disk, stream, machine, advance=bar.advance)


def _write_record(job: Job) -> None:
    record = {}
    for stage in ("mirror", "base", "kernel", "rootfs", "image", "volume"):
        buildinfo = read_buildinfo(job.upstream(stage))
        assert buildinfo is not None, stage
        record[stage] = asdict(buildinfo)
    (job.scratch / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def publish(job: Job, final: Path) -> None:
    """The folder and the names of the guest's volumes appear together."""
    built = read_record(job.upstream("volume"))
    publish_guest(job.project, job.spec.name, job.scratch, final, built, job.log)


def folder(project: Project, guest: str) -> Path:
    """output/guests/<name>/."""
    return project.artifact(guest)


def outputs(spec: Spec, project: Project) -> Sequence[str]:
    """All that the guest starts from, and what says what it is."""
    files = [target.path.name for target in targets_of(spec, project) if target.kind == "file"]
    boot = [] if spec.is_kernel_inside else ["vmlinuz", "initrd.img"]
    boot += [FIRMWARE_FILE] if spec.is_uefi else []
    boot += [xva_name(spec.name)] if spec.format == "xva" else []
    texts = (f"{spec.name}.cfg", "kernel.json", "manifest", "spec.json", KNOWN_HOSTS, RECORD)
    return (*files, *boot, *texts, SUMS, DISK_SUMS)


STAGE = Stage(
    name="config",
    summary="artifact folder, ready to boot",
    build=build,
    revision=REVISION,
    after=("volume", "kernel"),
    keys=tuple(
        "name uuid type boot boot_order cdrom cmdline bootloader xen format swap lvm image_dev "
        "swap_dev partitions fs memory maxmem vcpus maxvcpus cpus cpu_weight cap bridge mac "
        "vifname mtu rate model interfaces vnc vncdisplay vncunused vnclisten keymap "
        "on_poweroff on_reboot on_crash autostart description".split()
    ),
    seldom=("shared", "is_whole", "firmware", "seed"),
    reads={
        "user_data": "the volume has it",
        "adopted": "its tree comes through the stages before",
        "mirror": "UEFI firmware comes from it, which its own versions tell apart",
    },
    inputs=inputs,
    outputs=outputs,
    folder=folder,
    publish=publish,
    mutable=DISKS,
)
