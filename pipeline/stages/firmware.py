"""Firmware: UEFI that runs under Xen, built of Debian's edk2 source package.

Debian's own `ovmf` package lost Xen with edk2-stable202108: platform code for Xen moved from
OvmfPkgX64.dsc to OvmfXen.dsc, which no Debian release builds (#1050030; looked at: 2022.11, 2025.02
and 2026.08). It is made once for all guests that ask for it, by the tools of one release in a tree
of their own, in the cage; what it depends on is the version of edk2 and of those tools.
"""

import shutil
from pathlib import Path

from pipeline.console.progress import progress_bar
from pipeline.cutoff import Offer, Taken, name_packages
from pipeline.errors import PipelineError
from pipeline.files import digest_file
from pipeline.mirror.snapshot import read_snapshot
from pipeline.mirror.source_package import SourcePackage, fetch_source, find_source
from pipeline.namespace import has_memory_for_tmpfs, tmpfs
from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.spec.domain import FIRMWARE_FILE
from pipeline.stage import Job, Stage
from pipeline.suites import SUITES
from pipeline.walls.beneath import take
from pipeline.walls.cage import TOOLS as CAGE
from pipeline.walls.cage import caged, make_room

SUITE = "bookworm"
SOURCE = "edk2"
RECIPE = Path(__file__).with_name("ovmf")
# edk2's Build-Depends that OvmfXen needs; the first are those that its bytes depend on
_MAKERS = ("gcc-12", "binutils", "nasm", "acpica-tools", "python3.11-minimal")
_PACKAGES = ("gcc", "g++", "make", "nasm", "acpica-tools", "uuid-dev", "python3")
_MORE = ("python3-distutils", "patch", "xz-utils")
_EPOCH = 1  # what is built says nothing of when
_TREE_MIB = 3000
_MODULES = 190  # for the bar
_ELF = b"\x7fELF"  # Xen starts a PVH domain at the ELF header that OvmfXen has in front


def own_spec(spec: Spec) -> Spec:
    """What it is built by for a guest of any release; of its mirror where that is Debian's."""
    mirror = spec.mirror if spec.suite_facts.distribution == "debian" else "host"
    is_same = spec.suite_facts.is_archived == SUITES[SUITE].is_archived
    values = {"name": spec.name, "suite": SUITE, "mirror": mirror if is_same else "host"}
    return Spec.model_validate(values)


def take_sources(offer: Offer) -> Taken:
    """The source package and the tools that make the bytes."""
    snapshot = read_snapshot(offer.artifacts["mirror"])
    source = find_source(snapshot, SOURCE, cache=offer.project.cache)
    makers = [snapshot.packages.find(name) for name in _MAKERS]
    files = {file.name: file.sha256 for file in source.files}
    return Taken({"edk2": source.version, "files": files, "tools": name_packages(makers)})


def build(job: Job) -> None:
    """Fetch the source, then a tree of tools that builds it: a cage whose way out is the mirror."""
    from pipeline.mirror.relay import relaying

    snapshot = read_snapshot(job.upstream("mirror"))
    source = find_source(snapshot, SOURCE, cache=job.project.cache)
    room = make_room(job.scratch / "room")
    work = make_room(room / "work")
    fetched = fetch_source(snapshot, source, cache=job.project.cache)
    for place, path in zip(_places(source), fetched, strict=True):
        if place:
            shutil.copyfile(path, room / place)
    with (
        relaying(snapshot, cache=job.project.cache) as relay,
        progress_bar(f"building OvmfXen of edk2 {source.version}", unit="files") as bar,
    ):
        argv: list[str | Path] = ["mmdebstrap", "--verbose", "--variant=minbase", "--mode=root"]
        argv += ["--format=null", "--architectures=amd64", f"--keyring={snapshot.keyring}"]
        argv += [f"--include={','.join((*_PACKAGES, *_MORE))}"]
        argv += ['--aptopt=Acquire::Languages "none"', "--dpkgopt=force-unsafe-io"]
        argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
        argv += [f'--customize-hook={RECIPE / "build"} "$1" {room}', SUITE, "-"]
        argv += [entry.one_line(keyring=snapshot.keyring) for entry in relay.snapshot.sources]
        mounts = [tmpfs(work)] if has_memory_for_tmpfs(_TREE_MIB) else []
        job.run(
            caged(argv, room=room, readable=[snapshot.keyring], mounts=mounts, window=relay.window),
            env={
                "TMPDIR": str(work),
                "SOURCE_DATE_EPOCH": str(_EPOCH),
                **relay.environment,
            },
            on_line=lambda line: bar.advance() if line.startswith("Building ... ") else None,
            keep_open=[relay.window.descriptor],
        )
    take(room, FIRMWARE_FILE, job.scratch / FIRMWARE_FILE, mode=0o644)
    remove_tree(room)
    require_xen(job.scratch / FIRMWARE_FILE)


def _places(source: SourcePackage) -> list[str]:
    """What each file of the source package is called for the build, "" for what it does not use."""
    kinds = {".orig.tar.xz": "original.tar.xz", ".debian.tar.xz": "debian.tar.xz"}
    places = [
        next((place for end, place in kinds.items() if file.name.endswith(end)), "")
        for file in source.files
    ]
    if sorted(filter(None, places)) != sorted(kinds.values()):
        raise PipelineError(f"source package {SOURCE} {source.version} has no {', '.join(kinds)}")
    return places


def require_xen(path: Path) -> None:
    """Raises PipelineError for firmware that no PVH guest of Xen could enter."""
    with open(path, "rb") as stream:
        if stream.read(len(_ELF)) != _ELF:
            raise PipelineError(
                f"edk2 gave {path.name} without Xen's entry for PVH guests",
                hint="another edk2 is not known here: its OvmfPkg/OvmfXen.dsc changed",
            )


STAGE = Stage(
    name="firmware",
    summary="UEFI firmware for Xen",
    build=build,
    revision=2,
    after=("mirror",),
    takes={"mirror": take_sources},
    inputs=lambda _spec, _project: {
        "recipe": {path.name: digest_file(path) for path in sorted(RECIPE.iterdir())},
        "packages": [*_PACKAGES, *_MORE],
    },
    outputs=lambda _spec, _project: (FIRMWARE_FILE,),
    tools={"mmdebstrap": "mmdebstrap", **CAGE},
)
