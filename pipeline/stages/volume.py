"""Volume: the disks that a guest boots from, the golden image with this guest's identity in it."""

import importlib
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.bootstrap.epoch import read_epoch
from pipeline.console.progress import progress_bar
from pipeline.errors import PipelineError
from pipeline.files import digest_file, fingerprint
from pipeline.formats import vhd
from pipeline.guest.adopted_tree import read_adopted
from pipeline.guest.identity import (
    authorized_lines,
    identity_files,
    keep_identity,
    render_known_hosts,
    template_files,
)
from pipeline.guest.passwords import read_root_hash
from pipeline.guest.replication_files import digest_given, read_secrets, replication_files
from pipeline.guest.seed import read_user_data, seed_files
from pipeline.mirror.apt_sources import installed_version
from pipeline.preflight import refuse_places
from pipeline.project import Project
from pipeline.recipe import DISKS, KNOWN_HOSTS
from pipeline.spec import Spec
from pipeline.stage import Inputs, Job, Stage
from pipeline.stages.user_data import check_user_data
from pipeline.storage import make_disks
from pipeline.storage.boot_code import BootCode, name_root, read_boot_code
from pipeline.storage.disks import targets_of
from pipeline.storage.ext import MOST_FILE, IdentityFile, read_bytes
from pipeline.storage.fat import TOOLS as FAT
from pipeline.storage.filesystems import MOUNTED
from pipeline.storage.images import golden_name, refuse_too_small
from pipeline.storage.leftovers import reclaim_own
from pipeline.storage.lvm import require_lvm
from pipeline.storage.refusals import refuse_targets
from pipeline.storage.replicated import require_drbd
from pipeline.storage.staged_volume import removed_on_failure
from pipeline.storage.written import read_record
from pipeline.walls.beneath import Beneath
from pipeline.walls.cage import TOOLS as CAGE
from pipeline.walls.cage import caged_reader

REVISION = 1


def inputs(spec: Spec, project: Project) -> Inputs:
    """The keys that may enter, and a digest of the password file: never the secret itself."""
    secret = ""
    if spec.root_password_file and spec.root_password_file != "-":
        path = project.guests / spec.root_password_file
        if path.is_file():
            # with the guest's own id mixed in, so that equal passwords do not show
            secret = fingerprint([spec.name, digest_file(path, follow=True)])[:16]
    keys = fingerprint(authorized_lines(spec))
    own: Inputs = {"authorized_keys": keys, "root password": secret}
    if spec.replicated:
        own = {**own, **_drbd(spec)}
    if spec.format == "vhd":
        own = {**own, "vhd": vhd.REVISION}
    if spec.has_seed:
        # as with the password: what is equal does not show
        told = seed_files(spec, read_user_data(spec), {})
        own = {**own, "seed": fingerprint([spec.name, *map(bytes.decode, told.values())])[:16]}
    return {**own, "tools": _tools(spec, project)} if spec.adopted else own


def _drbd(spec: Spec) -> Inputs:
    """What the guest is told but for the secret, and a digest of a secret that is the user's."""
    unsaid = {node.name: "" for node in spec.replicated}
    files = [[file.path, file.content.decode()] for file in replication_files(spec, unsaid)]
    tool = installed_version("drbd-utils")
    return {"drbd-utils": tool, "drbd": fingerprint(files), "drbd secrets": digest_given(spec)}


def _tools(spec: Spec, project: Project) -> dict[str, Any]:
    """How an adopted tree is told what it is called and where it is."""
    adopted = read_adopted(project, spec.adopted)
    return {"network": adopted.network, "systemd": adopted.is_systemd, "fstab": list(adopted.fstab)}


def build(job: Job) -> None:
    """For each disk: the golden image, this guest's identity, its size; then onto its place.

    Volumes get a temporary name, which the stage config exchanges for the final one.
    """
    spec, golden = job.spec, job.upstream("image")
    _load_templates()
    last = job.project.volume(spec.name)
    targets = [target for target in targets_of(spec, job.project) if target.is_own]
    for part in spec.parts:
        if part.has_files:
            refuse_too_small(part, golden / golden_name(part.mountpoint))
    if any(target.is_volume for target in targets):
        require_lvm()
        reclaim_own(job.project, spec.name, job.run)
    before = read_record(last)
    refuse_targets(job.run, targets, last, before, may_replace=job.may_replace)
    work = job.scratch / "work"
    work.mkdir(mode=0o700)
    bench = make_disks.Bench(
        spec=spec,
        golden=golden,
        scratch=job.scratch,
        work=work,
        epoch=read_epoch(job.upstream("rootfs")),
        files=_identity(job, work),
        code=_read_code(job, work),
        seed=_read_seed(job, work),
    )
    with (
        removed_on_failure(job.run) as made,
        progress_bar("writing the disks", total=len(targets), unit="disks") as bar,
    ):
        # a given device is written in place: not before all the others are there
        for target in sorted(targets, key=lambda target: target.kind == "device"):
            make_disks.make_disk(job.run, target, bench, made)
            bar.advance()
        bench.finish()


def _load_templates() -> None:
    """In a thread, while programs run: the stage config, right after this one, saves 60 ms."""
    module = "pipeline.guest.configurations"
    threading.Thread(target=importlib.import_module, args=(module,), daemon=True).start()


def _identity(job: Job, work: Path) -> list[IdentityFile]:
    """The guest's own files; known_hosts is written beside its disk."""
    spec = job.spec
    known_hosts = job.scratch / KNOWN_HOSTS
    shadow = _read_file(job, work, "/etc/shadow").decode("utf-8", "replace")
    menus = name_root(partial(_read_file, job, work), spec) if spec.is_whole else []
    if spec.cloud_init and not spec.has_seed:
        known_hosts.write_text("")  # its host keys are made at its first boot
        return [*template_files(spec, shadow=shadow), *menus]
    kept = keep_identity(job.project.identity(spec.name), spec)
    known_hosts.write_text(render_known_hosts(spec, kept))
    if spec.cloud_init:
        return [*template_files(spec, shadow=shadow), *menus]
    root_hash = job.root_hash or read_root_hash(spec, job.project.guests)
    adopted = read_adopted(job.project, spec.adopted) if spec.adopted else None
    files = identity_files(
        spec,
        kept,
        shadow=shadow,
        root_hash=root_hash,
        adopted=adopted,
        secret_of=read_secrets(spec, job.project),
    )
    return [*files, *menus]


def _read_seed(job: Job, work: Path) -> dict[str, bytes]:
    """What cloud-init is told; UsageError for what it would not understand."""
    if not job.spec.has_seed:
        return {}
    text = read_user_data(job.spec)
    if job.spec.user_data:
        check_user_data(job, text, work)
    kept = keep_identity(job.project.identity(job.spec.name), job.spec)
    return seed_files(job.spec, text, kept.host_keys)


def _read_code(job: Job, work: Path) -> BootCode | None:
    if not job.spec.is_whole:
        return None
    return read_boot_code(partial(_read_file, job, work), has_efi=job.spec.has_efi_loader)


def _read_file(job: Job, work: Path, path: str) -> bytes:
    """A file of the golden image; where only a mount would show it, of its tree."""
    if job.spec.fs not in MOUNTED:
        return read_bytes(job.upstream("image") / golden_name("/"), path)
    tree, room = job.upstream("rootfs") / "rootfs.tar", work / "read"
    room.mkdir(exist_ok=True)
    unpack = ["tar", "-C", room, "--no-same-owner", "-xf", tree, f".{path}", "--transform=s,.*/,,"]
    job.run(caged_reader(unpack, readable=[tree], writable=[room]))
    with Beneath(room, follow=False) as inside:
        return inside.read(path.rpartition("/")[2], limit=MOST_FILE)


def is_stale(artifact: Path, spec: Spec) -> str:
    """A volume that is gone; a password on standard input, which nothing can be compared with."""
    try:
        built = read_record(artifact)
    except PipelineError as error:
        return error.brief
    for disk in built:
        if disk.uuid and not disk.path.exists() and not (disk.path.parent / disk.staged).exists():
            return f"its volume {disk.group}/{disk.path.name} is gone"
    return "root's password comes from standard input" if spec.root_password_file == "-" else ""


def folder(project: Project, guest: str) -> Path:
    """The guest's disks wait outside the artifact until the configuration joins them."""
    return project.volume(guest)


def outputs(spec: Spec, project: Project) -> Sequence[str]:
    """The disks that are files; what a guest has written to one is its own affair."""
    files = [target.path.name for target in targets_of(spec, project) if target.kind == "file"]
    return (KNOWN_HOSTS, *files)


STAGE = Stage(
    name="volume",
    summary="disks with the guest's identity",
    build=build,
    revision=REVISION,
    after=("image",),
    keys=tuple(
        "name hostname domain hosts size swap fs format image clone lvm lvm_thin image_dev "
        "swap_dev partitions nodes init dhcp address netmask gateway gateway6 nameservers mtu "
        "interfaces root_password_hash root_password_file".split()
    ),
    seldom=("replicated", "shared", "is_whole", "cloud_init", "seed"),
    reads={
        "authorized_keys": "the lines that they give are an input",
        "user_data": "what it says is an input",
        "adopted": "what of it counts is an input",
        "type": "`nodes` has what follows from it",
        **dict.fromkeys(("bridge", "mac", "vifname", "rate", "model"), "the host's side of a card"),
    },
    checks=(refuse_places, require_drbd),
    inputs=inputs,
    outputs=outputs,
    is_stale=is_stale,
    folder=folder,
    mutable=DISKS,
    tools={
        **CAGE,
        "debugfs": "e2fsprogs",
        "tune2fs": "e2fsprogs",
        "resize2fs": "e2fsprogs",
        "e2fsck": "e2fsprogs",
        "mkswap": "util-linux",
        **FAT,
    },
)
