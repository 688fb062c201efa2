"""Kernel: vmlinuz, initrd and modules of one ABI, which always travel together."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.archive.index import Package, PackageIndex
from pipeline.archive.route import Route
from pipeline.archive.snapshot import read_snapshot
from pipeline.canonical import digest_file, digest_tree, fingerprint
from pipeline.errors import PipelineError, UsageError
from pipeline.initrd import build as initrd_build
from pipeline.initrd.modules import ModuleFolder
from pipeline.preflight import require_feasible
from pipeline.project import Project
from pipeline.proxy.control import require_proxy
from pipeline.recipe import Inputs, Job, Stage
from pipeline.spec import Spec

REVISION = 3
_PART = re.compile(r"linux-(image|binary|base|modules|modules-extra)-")


@dataclass(frozen=True)
class KernelFiles:
    """A kernel as found: vmlinuz, its modules folder if there is one, where it came from."""

    abi: str
    vmlinuz: Path
    modules: Path | None
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
        "modules files": fingerprint(digest_tree(files.modules)) if files.modules else "packaged",
    }


def build(job: Job) -> None:
    """Get the kernel, index its modules, make the initrd; nothing when the guest brings its own."""
    if job.spec.is_kernel_inside:
        (job.scratch / "kernel.json").write_text('{"inside": true}\n')
        return
    require_feasible(job.spec, job.project)
    require_proxy(job.spec, job.project)
    snapshot = read_snapshot(job.upstream("mirror"))
    packages, route, tree = snapshot.packages, snapshot.route, job.scratch / "tree"
    if _is_package(job):
        found = _unpack_packages(job, packages, route, tree)
    else:
        found = _find_files(job.spec)
    if found.modules is None:
        found = _unpack_modules(job, packages, route, tree, found)
    folder = tree / "lib/modules" / found.abi
    if found.modules and found.modules != folder:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(found.modules, folder, symlinks=True)
    for link in ("build", "source"):
        (folder / link).unlink(missing_ok=True)
    job.run(["depmod", "-b", tree, found.abi])
    shutil.copyfile(found.vmlinuz, job.scratch / "vmlinuz")
    if found.config:
        shutil.copyfile(found.config, job.scratch / "config")
    initrd = _place_initrd(job, (packages, route), ModuleFolder(folder), found.abi)
    if job.spec.suite_facts.has_old_tools:
        name_whole_paths(folder, found.abi)
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
        # base runs beside it and is what the rest waits for
        job.run(["nice", "dpkg-deb", "-x", deb, tree])
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


def _unpack_modules(
    job: Job, packages: PackageIndex, route: Route, tree: Path, found: KernelFiles
) -> KernelFiles:
    """The modules of a kernel given as a file, from the archive's package for that very ABI."""
    cache = job.project.output / "cache/debs"
    for name in (f"linux-modules-{found.abi}", f"linux-image-{found.abi}"):
        if not packages.has(name):
            continue
        part = packages.find(name)
        deb = route.fetch(part.url, cache / part.sha256, size=part.size, sha256=part.sha256)
        job.run(["dpkg-deb", "-x", deb, tree])
        modules = tree / "lib/modules" / found.abi
        if modules.is_dir():
            return replace(found, modules=modules, packages=(part,))
    raise UsageError(
        f"kernel {found.vmlinuz}: its modules are neither in /lib/modules/{found.abi} nor in a "
        f"package linux-modules-{found.abi} of {job.spec.suite}",
        hint="give modules=/lib/modules/ABI",
    )


def name_whole_paths(folder: Path, abi: str) -> None:
    """modules.dep as modprobe before module-init-tools 3.5 reads it: no path is relative.

    The binary indexes, which that modprobe does not know, would say otherwise: they go.
    """
    index = folder / "modules.dep"
    lines = [line.partition(":") for line in index.read_text().splitlines() if line]
    home = f"/lib/modules/{abi}"
    text = "".join(
        f"{home}/{path}:{''.join(f' {home}/{need}' for need in needs.split())}\n"
        for path, _, needs in lines
    )
    index.write_text(text)
    for path in folder.glob("modules.*.bin"):
        path.unlink()


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
        abi = _read_abi(vmlinuz)
        modules = Path(spec.modules or f"/lib/modules/{abi}")
    if not vmlinuz.is_file():
        raise UsageError(
            f"kernel=host: this machine has no {vmlinuz}",
            hint="name a package: kernel=linux-image-...",
        )
    if not modules.is_dir() and (spec.modules or spec.kernel_source == "host"):
        raise UsageError(
            f"kernel {vmlinuz}: its modules are not in {modules}",
            hint="give modules=/lib/modules/ABI, or leave it out: the archive's package has them",
        )
    return KernelFiles(abi, vmlinuz, modules.resolve() if modules.is_dir() else None)


def _read_abi(vmlinuz: Path) -> str:
    """What `uname -r` will say, which names the folder of the modules."""
    from pipeline.xen.kernel_image import read_kernel

    try:
        abi = read_kernel(vmlinuz.read_bytes()).release
    except ValueError as error:
        raise UsageError(f"kernel {vmlinuz}: {error}", hint="correct kernel=") from None
    if not abi:
        raise UsageError(
            f"kernel {vmlinuz}: it does not say its version", hint="take a kernel that is whole"
        )
    return abi


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
    tools={"dpkg-deb": "dpkg", "nice": "coreutils", "depmod": "kmod", "tar": "tar"},
)
