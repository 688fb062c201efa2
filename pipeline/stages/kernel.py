"""Kernel: vmlinuz, initrd and modules of one ABI, which always travel together."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.index import Package, PackageIndex
from pipeline.archive.route import Route
from pipeline.archive.snapshot import read_snapshot
from pipeline.canonical import digest_file, digest_tree, fingerprint
from pipeline.errors import PipelineError, UsageError
from pipeline.initrd import build as initrd_build
from pipeline.initrd.modules import ModuleFolder
from pipeline.project import Project
from pipeline.proxy.control import require_proxy
from pipeline.recipe import Inputs, Job, Stage
from pipeline.spec import Spec

REVISION = 3
_PART = re.compile(r"linux-(image|binary|base|modules|modules-extra)-")


@dataclass(frozen=True)
class KernelFiles:
    """A kernel as found: vmlinuz, its modules folder, and where it came from."""

    abi: str
    vmlinuz: Path
    modules: Path
    packages: tuple[Package, ...] = ()
    config: Path | None = None


def inputs(spec: Spec, _project: Project) -> Inputs:
    """The initrd's recipe, and the files of a kernel that is not a package."""
    recipe = digest_tree(initrd_build.INIT.parent)
    if spec.is_kernel_inside:
        return {}
    if spec.kernel_source == "package":
        return {"initrd recipe": recipe}
    files = _find_files(spec)
    own = {"initrd": digest_file(Path(spec.initrd))} if spec.initrd else {"initrd recipe": recipe}
    return {
        **own,
        "vmlinuz": digest_file(files.vmlinuz),
        "modules files": fingerprint(digest_tree(files.modules)),
    }


def build(job: Job) -> None:
    """Get the kernel, index its modules, make the initrd; nothing when the guest brings its own."""
    if job.spec.is_kernel_inside:
        (job.scratch / "kernel.json").write_text('{"inside": true}\n')
        return
    require_proxy(job.spec, job.project)
    snapshot = read_snapshot(job.upstream("mirror"))
    packages, route, tree = snapshot.packages, snapshot.route, job.scratch / "tree"
    if _is_package(job):
        found = _unpack_packages(job, packages, route, tree)
    else:
        found = _find_files(job.spec)
    folder = tree / "lib/modules" / found.abi
    if found.modules != folder:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(found.modules, folder, symlinks=True)
    for link in ("build", "source"):
        (folder / link).unlink(missing_ok=True)
    job.run(["depmod", "-b", tree, found.abi])
    shutil.copyfile(found.vmlinuz, job.scratch / "vmlinuz")
    if found.config:
        shutil.copyfile(found.config, job.scratch / "config")
    initrd = _place_initrd(job, (packages, route), ModuleFolder(folder), found.abi)
    pack = ["tar", "--sort=name", "--numeric-owner", "--owner=0", "--group=0", "--mode=u=rwX,go=rX"]
    epoch = snapshot.epoch
    job.run(
        [*pack, f"--mtime=@{epoch}", "-C", tree]
        + ["-cf", job.scratch / "modules.tar", f"lib/modules/{found.abi}"]
    )
    shutil.rmtree(tree)
    _describe(job, found, *initrd)


def _is_package(job: Job) -> bool:
    return job.spec.kernel_source == "package"


def _unpack_packages(job: Job, packages: PackageIndex, route: Route, tree: Path) -> KernelFiles:
    name, _, version = job.spec.kernel.partition("=")
    parts = _resolve(packages, name, version)
    cache = job.project.output / "cache/debs"
    for part in parts:
        deb = route.fetch(part.url, cache / part.sha256, size=part.size, sha256=part.sha256)
        job.run(["dpkg-deb", "-x", deb, tree])
    _gather_boot_files(tree)
    images = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise PipelineError(
            f"kernel package {job.spec.kernel} brings {len(images)} kernels, expected one",
            hint="name a linux-image package, see `apt-cache search linux-image`",
        )
    abi = images[0].name.removeprefix("vmlinuz-")
    modules = tree / "lib/modules" / abi
    if not modules.is_dir() and (tree / "usr/lib/modules" / abi).is_dir():
        modules.parent.mkdir(parents=True, exist_ok=True)
        (tree / "usr/lib/modules" / abi).rename(modules)
    config = tree / "boot" / f"config-{abi}"
    return KernelFiles(abi, images[0], modules, tuple(parts), config if config.is_file() else None)


def _gather_boot_files(tree: Path) -> None:
    """From Linux 7.2 on Debian ships vmlinuz and config beside the modules, not in /boot."""
    for name in ("vmlinuz", "config"):
        for path in tree.glob(f"usr/lib/modules/*/{name}"):
            (tree / "boot").mkdir(exist_ok=True)
            path.rename(tree / "boot" / f"{name}-{path.parent.name}")


def _resolve(packages: PackageIndex, name: str, version: str) -> list[Package]:
    """The package and those that it depends on: the image behind a metapackage, its modules."""
    found = [packages.find(name, version)]
    for wanted in re.split(r"\s*,\s*", found[0].depends):
        first = wanted.partition("|")[0].strip()
        match = re.fullmatch(r"([a-z0-9.+-]+)(?::any)?(?:\s*\(=\s*(\S+)\))?", first)
        if match and _PART.match(match[1]):
            found += _resolve(packages, match[1], match[2] or "")
    return found


def _find_files(spec: Spec) -> KernelFiles:
    if spec.kernel_source == "host":
        abi = os.uname().release
        vmlinuz, modules = Path(f"/boot/vmlinuz-{abi}"), Path(f"/lib/modules/{abi}")
    else:
        vmlinuz = Path(spec.kernel)
        if not vmlinuz.is_file():
            raise UsageError(f"kernel {vmlinuz}: no such file", hint="correct kernel=")
        from pipeline.xen.kernel_image import read_kernel

        abi = read_kernel(vmlinuz.read_bytes()).version.partition(" ")[0]
        modules = Path(spec.modules or f"/lib/modules/{abi}")
    if not vmlinuz.is_file():
        raise UsageError(
            f"kernel=host: this machine has no {vmlinuz}",
            hint="name a package: kernel=linux-image-...",
        )
    if not modules.is_dir():
        raise UsageError(
            f"kernel {vmlinuz}: its modules are not in {modules}",
            hint="give modules=/lib/modules/ABI",
        )
    return KernelFiles(abi, vmlinuz, modules.resolve())


def _place_initrd(
    job: Job, origin: tuple[PackageIndex, Route], folder: ModuleFolder, abi: str
) -> tuple[tuple[str, ...], tuple[Package, ...]]:
    """Its modules, and the packages that it was made from."""
    target = job.scratch / "initrd.img"
    if job.spec.initrd:
        shutil.copyfile(job.spec.initrd, target)
        return (), ()
    packages, route = origin
    busybox = packages.find("busybox-static")
    cache = job.project.output / "cache/debs" / busybox.sha256
    deb = route.fetch(busybox.url, cache, size=busybox.size, sha256=busybox.sha256)
    unpacked = job.scratch / "busybox"
    job.run(["dpkg-deb", "-x", deb, unpacked])
    # bin/, or usr/bin/ since the /usr merge; other files of that name are not the program
    program = next(unpacked.glob("**/bin/busybox"))
    made = initrd_build.build_initrd(program.read_bytes(), folder, abi, file_system=job.spec.fs)
    shutil.rmtree(unpacked)
    target.write_bytes(made.content)
    return made.modules, (busybox,)


def _describe(
    job: Job,
    found: KernelFiles,
    initrd_modules: tuple[str, ...],
    initrd_packages: tuple[Package, ...],
) -> None:
    facts = {
        "abi": found.abi,
        "source": job.spec.kernel,
        "packages": {part.name: [part.version, part.sha256] for part in found.packages},
        "initrd_packages": {part.name: [part.version, part.sha256] for part in initrd_packages},
        "initrd_modules": initrd_modules,
    }
    (job.scratch / "kernel.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


STAGE = Stage(
    name="kernel",
    summary="kernel, initrd and modules of one ABI",
    build=build,
    revision=REVISION,
    after=("mirror",),
    keys=("arch", "boot", "kernel", "initrd", "modules", "fs"),
    inputs=inputs,
    tools={"dpkg-deb": "dpkg", "depmod": "kmod", "tar": "tar"},
)
