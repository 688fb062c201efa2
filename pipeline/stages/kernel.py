"""Kernel: vmlinuz, initrd and modules of one ABI, which always travel together."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.bootstrap.epoch import find_epoch
from pipeline.cutoff import Offer, Taken, name_packages
from pipeline.errors import Finding, PipelineError, UsageError
from pipeline.files import digest_file, digest_tree, fingerprint
from pipeline.kernel.assembly import FACTS, Order
from pipeline.kernel.initrd import INIT
from pipeline.mirror.index import Package, PackageIndex
from pipeline.mirror.proxy.control import require_proxy
from pipeline.mirror.snapshot import Snapshot, read_snapshot
from pipeline.preflight import require_feasible
from pipeline.project import Project
from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.stage import Inputs, Job, Stage
from pipeline.walls.beneath import Beneath, take
from pipeline.walls.cage import TOOLS as CAGE
from pipeline.walls.cage import make_room
from pipeline.walls.errand import send

REVISION = 4
_ASSEMBLY = "pipeline.kernel.assembly"
_FACTS_BYTES = 1 << 20
_GIVEN = "given"
_PART = re.compile(r"linux-(image|binary|base|modules|modules-extra)-")


@dataclass(frozen=True)
class KernelFiles:
    """A kernel that is given as a file: vmlinuz, and its modules folder if there is one."""

    abi: str
    vmlinuz: Path
    modules: Path | None


def inputs(spec: Spec, _project: Project) -> Inputs:
    """The initrd's recipe, and the files of a kernel that is not a package."""
    recipe = digest_file(INIT)
    if spec.is_kernel_inside:
        return {}
    if spec.kernel_source == "package":
        return {"initrd recipe": recipe, "old tools": spec.suite_facts.has_old_tools}
    files = _find_files(spec)
    own = {"initrd recipe": recipe, "old tools": spec.suite_facts.has_old_tools}
    if spec.initrd:
        own |= {"initrd": digest_file(Path(spec.initrd), follow=True)}
        own.pop("initrd recipe")
    return {
        **own,
        "vmlinuz": digest_file(files.vmlinuz, follow=True),
        "modules files": fingerprint(digest_tree(files.modules)) if files.modules else "packaged",
    }


def build(job: Job) -> None:
    """Fetch what it is made of, have it put together; nothing when the guest brings its own."""
    if job.spec.is_kernel_inside:
        (job.scratch / "kernel.json").write_text('{"inside": true}\n')
        return
    snapshot = read_snapshot(job.upstream("mirror"))
    room = make_room(job.scratch / "room")
    order, parts = _plan(job, snapshot, room)
    readable = [Path(deb) for deb in (*order.debs, order.busybox) if deb]
    readable += [Path(path) for path in (order.vmlinuz, order.initrd, order.modules) if path]
    file = job.scratch / _GIVEN / "order.json"
    send(
        "pipeline.kernel.assembly",
        asdict(order),
        file=file,
        room=room,
        run=job.run,
        readable=readable,
    )
    with Beneath(room, follow=False) as inside:
        facts = json.loads(inside.read(FACTS, limit=_FACTS_BYTES))
        has_config = inside.exists("config")
    for name in ("vmlinuz", "initrd.img", "modules.tar", *(["config"] if has_config else [])):
        take(room, name, job.scratch / name, mode=0o644)
    _describe(job, snapshot, facts, [parts[number] for number in facts["used"]])
    for path in (room, file.parent):
        remove_tree(path)


def _plan(job: Job, snapshot: Snapshot, room: Path) -> tuple[Order, list[Package]]:
    """What the assembly is told, everything fetched, and the packages that its `debs` are."""
    spec, packages = job.spec, snapshot.packages
    (job.scratch / _GIVEN).mkdir()
    given, parts = _find_parts(spec, packages)
    debs = tuple(_fetch(job, snapshot, part) for part in parts)
    busybox = "" if spec.initrd else _fetch(job, snapshot, packages.find("busybox-static"))
    order = Order(
        room=str(room),
        debs=debs,
        name=spec.kernel,
        epoch=find_epoch(Path(deb) for deb in (*debs, busybox) if deb),
        fs=spec.fs,
        abi=given.abi,
        vmlinuz=_give(job, "vmlinuz", given.vmlinuz) if given.abi else "",
        modules=str(given.modules or ""),
        busybox=busybox,
        initrd=_give(job, "initrd", Path(spec.initrd)) if spec.initrd else "",
        has_old_tools=spec.suite_facts.has_old_tools,
    )
    return order, parts


def _find_parts(spec: Spec, packages: PackageIndex) -> tuple[KernelFiles, list[Package]]:
    """The files that the spec names, if it does, and the packages."""
    if spec.kernel_source == "package":
        name, _, version = spec.kernel.partition("=")
        return KernelFiles("", Path(), None), resolve_parts(packages, name, version)
    given = _find_files(spec)
    if given.modules:
        return given, []
    names = [f"linux-modules-{given.abi}", f"linux-image-{given.abi}"]
    return given, [packages.find(name) for name in names if packages.has(name)]


def take_packages(offer: Offer) -> Taken:
    """The packages that it is made of, in their order."""
    spec = offer.spec
    if spec.is_kernel_inside:
        return Taken({"packages": {}})
    packages = read_snapshot(offer.artifacts["mirror"]).packages
    parts = _find_parts(spec, packages)[1]
    busybox = [] if spec.initrd else [packages.find("busybox-static")]
    named = name_packages([*parts, *busybox])
    return Taken({"packages": named, "order": [part.name for part in parts]})


def _fetch(job: Job, snapshot: Snapshot, part: Package) -> str:
    kept = job.project.cache.debs / part.sha256
    return str(snapshot.route.fetch(part.url, kept, size=part.size, sha256=part.sha256))


def _give(job: Job, name: str, path: Path) -> str:
    """A copy of a file of the user's that the cage may read: kernels in /boot are often root's."""
    copy = job.scratch / _GIVEN / name
    shutil.copyfile(path, copy)
    return str(copy)


def resolve_parts(packages: PackageIndex, name: str, version: str) -> list[Package]:
    """The package and those that it depends on: the image behind a metapackage, its modules.

    Each once: jammy's image and modules depend on one another.
    """
    parts: dict[str, Package] = {}
    waiting = [(name, version)]
    while waiting:
        wanted, exactly = waiting.pop(0)
        if wanted in parts:
            continue
        parts[wanted] = packages.find(wanted, exactly)
        for clause in re.split(r"\s*,\s*", parts[wanted].depends):
            first = clause.partition("|")[0].strip()
            match = re.fullmatch(r"([a-z0-9.+-]+)(?::any)?(?:\s*\(=\s*(\S+)\))?", first)
            if match and _PART.match(match[1]):
                waiting.append((match[1], match[2] or ""))
    return list(parts.values())


def foresee(spec: Spec, _project: Project, snapshot: Snapshot | None) -> Iterator[Finding]:
    """A kernel that the archive has not."""
    if snapshot is None or spec.is_kernel_inside or spec.kernel_source != "package":
        return
    name, _, version = spec.kernel.partition("=")
    try:
        resolve_parts(snapshot.packages, name, version)
    except PipelineError as error:
        hint = snapshot.packages.suggest(name) or error.hint
        yield Finding("error", "kernel", error.brief, error.hint if version else hint)


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
    from pipeline.kernel.image import read_kernel

    try:
        abi = read_kernel(vmlinuz.read_bytes()).release
    except ValueError as error:
        raise UsageError(f"kernel {vmlinuz}: {error}", hint="correct kernel=") from None
    if not abi:
        raise UsageError(
            f"kernel {vmlinuz}: it does not say its version", hint="take a kernel that is whole"
        )
    return abi


def _describe(job: Job, snapshot: Snapshot, facts: dict[str, Any], used: list[Package]) -> None:
    busybox = [] if job.spec.initrd else [snapshot.packages.find("busybox-static")]
    text = {
        "abi": facts["abi"],
        "source": job.spec.kernel,
        "packages": {part.name: [part.version, part.sha256] for part in used},
        "initrd_packages": {part.name: [part.version, part.sha256] for part in busybox},
        "initrd_modules": facts["initrd_modules"],
    }
    (job.scratch / "kernel.json").write_text(json.dumps(text, indent=1, sort_keys=True) + "\n")


def outputs(spec: Spec, _project: Project) -> Sequence[str]:
    """Nothing but a note when the guest brings its own."""
    files = () if spec.is_kernel_inside else ("vmlinuz", "initrd.img", "modules.tar")
    return ("kernel.json", *files)


STAGE = Stage(
    name="kernel",
    summary="kernel, initrd and modules of one ABI",
    build=build,
    revision=REVISION,
    room_mib=105,
    after=("mirror",),
    keys=("arch", "boot", "kernel", "initrd", "modules", "fs"),
    reads={"suite": "what follows, whether its tools are old, is an input"},
    checks=(require_feasible, require_proxy),
    foresees=(foresee,),
    inputs=inputs,
    takes={"mirror": take_packages},
    outputs=outputs,
    tools={**CAGE, "dpkg-deb": "dpkg", "nice": "coreutils", "depmod": "kmod", "tar": "tar"},
)
