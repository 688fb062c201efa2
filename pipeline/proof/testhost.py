"""The test host: Xen, a small dom0 and its toolstack, built from the mirror, kept as it runs.

Two artifacts in the store. `testhost-tree` is the packages: a tar with kernel, ramdisk and
hypervisor beside it; its fingerprint holds the versions of Xen and of the kernel, not the whole
state of the mirror, so that a night's other updates do not build it again. `testhost` is that tree
booted once and frozen when its daemons run: a disk, the memory and the devices' state.
"""

import gzip
import os
import re
import shutil
import tarfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline import suites
from pipeline.console.progress import print_line, progress_bar
from pipeline.errors import Broken, PipelineError
from pipeline.files import digest_file
from pipeline.mirror.relay import relaying
from pipeline.mirror.snapshot import Snapshot, read_snapshot
from pipeline.namespace import has_memory_for_tmpfs, tmpfs
from pipeline.project import Project
from pipeline.proof import accelerators, machine
from pipeline.proof.accelerators import TCG, Accelerator
from pipeline.proof.timeouts import patient
from pipeline.recipe import Recipe
from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.stage import Job, Stage
from pipeline.suites.ages import state_on
from pipeline.walls.beneath import take
from pipeline.walls.cage import caged, make_room

HOST = Path(__file__).with_name("host")
SUITES = {"4.14": "bullseye", "4.17": "bookworm", "4.20": "trixie"}
TREE_MIB = 1500
DISK_MIB = 4096
READY_S = 240.0
TAR = "tree.tar"
# with {xen} the version; QEMU for Xen serves qcow2 disks and screens, as it does on a real host;
# lvm2 and what follows make dom0 a host that this pipeline itself can run on (tests/dom0.py)
PACKAGES = (
    "linux-image-amd64",
    "xen-hypervisor-{xen}-amd64",
    "xen-utils-{xen}",
    "xenstore-utils",
    "{qemu}",
    "grub-xen-host",
    "udev",
    "kmod",
    "iproute2",
    "bridge-utils",
    "dnsmasq-base",
    "openssh-client",
    "e2fsprogs",
    "vncsnapshot",
    "libjpeg-turbo-progs",
    "lvm2",
    "thin-provisioning-tools",
    "drbd-utils",
    "procps",
    "qemu-utils",
    "bubblewrap",
    "uidmap",
    # and that `doit dom0` can set up and one that guests migrate between
    "ifupdown",
    "systemd",
    "nftables",
    "grub2-common",
    "openssh-server",
)
_QEMU_BEFORE = {"4.14": "qemu-system-x86"}  # bookworm made a package of its own for Xen
TOOLS = {
    accelerators.QEMU: "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
}


@dataclass(frozen=True)
class TestHost:
    """A test host that is ready: where it is and which Xen runs in it."""

    __test__ = False  # not a test, whatever pytest thinks of its name

    folder: Path
    fingerprint: str
    xen: str
    accelerator: Accelerator = TCG


def ensure_host(recipe: Recipe, spec: Spec) -> TestHost:
    """The test host with the Xen that the guest's spec names; built when there is none yet.

    Raises Broken when it cannot be made, which says nothing about any guest.
    """
    suite = SUITES.get(spec.xen)
    if suite is None:
        raise Broken(
            f"there is no test host with Xen {spec.xen}",
            hint=f"prove it under xen={', '.join(SUITES)}, the versions that Debian ships",
        )
    own = Spec.model_validate(
        {
            "name": "testhost",
            "suite": suite,
            "xen": spec.xen,
            "mirror": _mirror_for(spec),
            # what the security archive of an ended suite names is not all in it any more
            "security": state_on(suites.SUITES[suite], date.today()) == "live",
        }
    )
    try:
        snapshot = read_snapshot(recipe.build("mirror", own).folder)
        return _start_host(recipe.project, own, snapshot, is_nested=spec.type != "pv")
    except PipelineError as error:
        if isinstance(error, Broken):
            raise
        broken = Broken(f"the test host: {error.brief}", details=error.details, hint=error.hint)
        broken.log, broken.stage, broken.guest = error.log, error.stage, error.guest
        raise broken from error


def _start_host(project: Project, own: Spec, snapshot: Snapshot, *, is_nested: bool) -> TestHost:
    """The running snapshot, made under KVM where that can run Xen."""
    tree_stage, log = _tree_stage(snapshot), project.log(own.name, "kvm")
    tree = Recipe(project, (tree_stage,)).build("testhost-tree", own).folder
    log.parent.mkdir(parents=True, exist_ok=True)
    words = machine.boot_words(tree, machine.TRIED_WORDS)
    chosen = accelerators.choose_accelerator(project, words, is_nested=is_nested, log=log)
    try:
        state = Recipe(project, (tree_stage, _host_stage(chosen))).build("testhost", own)
    except PipelineError as error:
        if chosen == TCG:
            raise
        print_line(f"  note: the test host does not start under KVM ({error}): it is emulated")
        accelerators.note_answer(project.cache.accelerator, str(error))
        chosen = TCG
        state = Recipe(project, (tree_stage, _host_stage(chosen))).build("testhost", own)
    return TestHost(state.folder, state.fingerprint, own.xen, chosen)


def _mirror_for(spec: Spec) -> str:
    """The guest's own mirror when it is named and Debian's, else the machine's."""
    return spec.mirror if spec.suite_facts.distribution == "debian" else "host"


def packages_for(xen: str) -> tuple[str, ...]:
    """What the test host is made of, besides Debian's essential packages."""
    qemu = _QEMU_BEFORE.get(xen, "qemu-system-xen")
    return tuple(name.format(xen=xen, qemu=qemu) for name in PACKAGES)


def _tree_stage(snapshot: Snapshot) -> Stage:
    def inputs(spec: Spec, _project: Project) -> dict[str, object]:
        packages = snapshot.packages
        pinned = [name for name in packages_for(spec.xen) if re.match("linux|xen-", name)]
        return {
            "packages": list(packages_for(spec.xen)),
            "versions": {name: packages.find(name).version for name in pinned},
            "hooks": {name: digest_file(HOST / name) for name in ("essential", "trim", "modules")},
        }

    return Stage(
        name="testhost-tree",
        summary="packages of the Xen test host",
        build=lambda job: _build_tree(job, snapshot),
        revision=1,
        keys=("suite", "xen"),
        inputs=inputs,
        tools=TOOLS,
    )


def _host_stage(accelerator: Accelerator) -> Stage:
    return Stage(
        name="testhost",
        summary="Xen test host, running",
        build=lambda job: _build_host(job, accelerator),
        revision=1,
        after=("testhost-tree",),
        inputs=lambda _spec, _project: {
            "scripts": {name: digest_file(HOST / name) for name in ("init", "agent")},
            "machine": machine.describe(accelerator),
        },
        tools=TOOLS,
    )


def _build_tree(job: Job, snapshot: Snapshot) -> None:
    room = make_room(job.scratch / "room")
    work = make_room(room / "work")
    packages = packages_for(job.spec.xen)
    with (
        relaying(snapshot, cache=job.project.cache) as relay,
        progress_bar("bootstrapping the test host", unit="packages") as bar,
    ):
        argv: list[str | Path] = ["mmdebstrap", "--verbose", "--variant=minbase", "--format=tar"]
        argv += ["--mode=root", "--architectures=amd64"]
        argv += [f"--keyring={snapshot.keyring}", f"--include={','.join(packages)}"]
        argv += ['--aptopt=Acquire::Languages "none"', "--dpkgopt=force-unsafe-io"]
        argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
        argv += [f"--essential-hook={HOST / 'essential'}", f"--customize-hook={HOST / 'trim'}"]
        argv += [job.spec.suite, room / TAR]
        argv += [source.one_line(keyring=snapshot.keyring) for source in relay.snapshot.sources]
        mounts = [tmpfs(work)] if has_memory_for_tmpfs(TREE_MIB) else []
        window = relay.window
        words = caged(argv, room=room, readable=[snapshot.keyring], mounts=mounts, window=window)
        job.run(
            words,
            env={
                "TMPDIR": str(work),
                "SOURCE_DATE_EPOCH": str(snapshot.epoch),
                **relay.environment,
            },
            on_line=lambda line: bar.advance() if line.startswith("Setting up ") else None,
            keep_open=[window.descriptor],
        )
    take(room, TAR, job.scratch / TAR, mode=0o644)
    remove_tree(room)
    _take_boot_files(job.scratch)


def _take_boot_files(folder: Path) -> None:
    """Kernel, ramdisk and hypervisor beside the tar: QEMU loads them itself."""
    wanted = {"vmlinuz-": machine.KERNEL, "initrd.img-": machine.INITRD, "xen-": machine.XEN}
    with tarfile.open(folder / TAR) as archive:
        for member in archive:
            match = re.fullmatch(r"(?:\./)?boot/(vmlinuz-|initrd\.img-|xen-)[^/]*", member.name)
            if not match or not member.isfile() or not _is_bootable(member.name):
                continue
            stream = archive.extractfile(member)
            assert stream is not None
            content = stream.read()
            # QEMU's multiboot loader wants the hypervisor as plain ELF
            content = gzip.decompress(content) if member.name.endswith(".gz") else content
            (folder / wanted[match[1]]).write_bytes(content)
    missing = [name for name in wanted.values() if not (folder / name).is_file()]
    if missing:
        raise Broken(f"the test host's packages bring no {', '.join(missing)}")


def _is_bootable(name: str) -> bool:
    return not name.endswith((".config", ".efi"))


def _build_host(job: Job, accelerator: Accelerator) -> None:
    tree, scratch = job.upstream("testhost-tree"), job.scratch
    for name in (machine.XEN, machine.KERNEL, machine.INITRD):
        os.link(tree / name, scratch / name)
    work = scratch / "work"
    work.mkdir()
    with progress_bar("starting the test host", total=3, unit="steps") as bar:
        _make_disk(job, tree / TAR, work)
        bar.advance()
        with machine.boot(scratch, work, accelerator, log=job.log) as host:
            host.agent.wait_until_there(timeout_s=patient(READY_S))
            bar.advance()
            host.agent.demand(["sync"])
            machine.save_state(host, scratch / machine.STATE)
        bar.advance()
    shutil.rmtree(work)


def _make_disk(job: Job, tar: Path, work: Path) -> None:
    """The tree with init and agent as an ext4 disk, without mounting it."""
    scripts = " ".join(str(HOST / name) for name in ("init", "agent"))
    room = make_room(work / "room")
    raw, tree = room / "root.raw", make_room(room / "tree")
    tree.chmod(0o755)
    steps = (
        'tar -C "$1" --numeric-owner --exclude="./dev/*" -xpf "$2" && '  # no mknod in a cage
        f'install -m 755 {scripts} "$1/proof/" && '
        'mke2fs -q -F -t ext4 -O ^has_journal -E root_owner=0:0 -d "$1" "$3" "$4"'
    )
    mounts = [tmpfs(tree)] if has_memory_for_tmpfs(TREE_MIB) else []
    words: list[str | Path] = ["sh", "-c", steps, "sh", tree, tar, raw, f"{DISK_MIB}M"]
    job.run(caged(words, room=room, readable=[tar], mounts=mounts))
    take(room, raw.name, work / raw.name)
    remove_tree(room)
    raw = work / raw.name
    job.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, job.scratch / machine.ROOT])
    raw.unlink()
