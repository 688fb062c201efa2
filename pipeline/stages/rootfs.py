"""Root filesystem: the base tree plus the guest's elements, by diskimage-builder."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline import process
from pipeline.bootstrap.addition import resolve_addition
from pipeline.bootstrap.bootstrap import fetch_all, is_resolved_here
from pipeline.bootstrap.epoch import EPOCH, find_epoch, read_epoch, write_epoch
from pipeline.bootstrap.order import Deb
from pipeline.console.progress import progress_bar
from pipeline.cutoff import Offer, Taken, name_packages, take_state
from pipeline.errors import Finding, UsageError, WrongValueError, suggest_nearest
from pipeline.files import digest_file, digest_tree, read_named_text
from pipeline.mirror.apt_lists import write_lists, write_selected_lists
from pipeline.mirror.mirrors import find_archive, render_guest_sources
from pipeline.mirror.proxy.control import require_proxy
from pipeline.mirror.snapshot import Snapshot, read_snapshot
from pipeline.namespace import has_memory_for_tmpfs, require_namespace
from pipeline.project import Project
from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.spec.cloud_init import ELEMENT as CLOUD_INIT
from pipeline.spec.domain import command_line
from pipeline.spec.role_scripts import find_scripts, sed_folders, settings_of
from pipeline.spec.values import check_element
from pipeline.stage import Inputs, Job, Stage
from pipeline.stages.dib.dib import prepare_program, program_environment, stock_elements, version
from pipeline.stages.dib.requests import find_loaders, find_unforeseen, list_requests
from pipeline.stages.given_tree import rootfs_of
from pipeline.stages.package_list import STATUS, keep_status, require_packages
from pipeline.storage.boot_code import GOLDEN_ROOT
from pipeline.walls.beneath import take
from pipeline.walls.cage import TOOLS as CAGE
from pipeline.walls.cage import caged, make_room, place_in_cage

REVISION = 2
TAR = "rootfs.tar"
LIBRARY = "dib-lib"
ROLES = "xen-tools-roles"
TREE_MIB = 2000
# what finds a whole disk: Xen's driver, KVM's, a PC's controllers where the kernel has them
WHOLE_DRIVERS = "xen-blkfront virtio_pci virtio_blk virtio_scsi sd_mod ahci ata_piix nvme"
# diskimage-builder's, but environment.d, whose files are read by bash
PHASES = (
    *("root.d", "extra-data.d", "pre-install.d", "install.d", "post-install.d", "post-root.d"),
    *("block-device.d", "pre-finalise.d", "finalise.d", "cleanup.d"),
)


def elements_of(spec: Spec) -> list[str]:
    """The elements that make this guest: ours by what it is, then those that its spec names."""
    own = ["domu", "xen-udev", "xen-console", "ssh-server", "debconf-priority", "timezone-locale"]
    own += ["guest-sources", "domu-network", "domu-packages"]
    if spec.suite_facts.has_old_tools:
        own.append("old-tools")
    own.append("grub-menus" if spec.is_kernel_inside else "kernel-modules")
    if spec.is_whole:
        own.append("whole-disk")
    if spec.init == "systemd":
        own.append("lean-boot")
    if spec.cloud_init:
        own.append(CLOUD_INIT)
    if spec.role:
        own.append(ROLES)
    return own + [name for name in spec.elements if name not in own]


def packages_of(spec: Spec, guest_sources: str) -> list[str]:
    """The spec's packages, and what the guest's own apt needs to reach its sources."""
    return [*spec.packages, *(["ca-certificates"] if "https://" in guest_sources else [])]


def _search_path(spec: Spec, project: Project) -> list[Path]:
    return [*project.elements, *(Path(path) for path in spec.elements_path), stock_elements()]


def _find_all(names: Iterable[str], path: list[Path]) -> dict[str, Path]:
    """Each element and those that it depends on, name -> folder; UsageError for unknown ones."""
    folders: dict[str, Path] = {}
    unknown: list[str] = []
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in folders:
            continue
        folder = next((root / name for root in path if os.path.isdir(root / name)), None)
        if folder is None:
            unknown.append(name)
            continue
        folders[name] = folder
        waiting += _dependencies(folder)
    if unknown:
        names = ", ".join(f"'{name}'" for name in sorted(unknown))
        raise UsageError(
            f"element{'s' if unknown[1:] else ''} {names}: not found in "
            f"{', '.join(map(str, path))}",
            hint=_suggest_elements(unknown, path)
            or "correct `elements`, or add its folder's parent to `elements_path`",
        )
    return folders


def _suggest_elements(unknown: Iterable[str], path: list[Path]) -> str:
    known = [folder.name for root in path if root.is_dir() for folder in root.iterdir()]
    return "; ".join(filter(None, (suggest_nearest(name, known) for name in sorted(unknown))))


def foresee(spec: Spec, _project: Project, snapshot: Snapshot | None) -> Iterator[Finding]:
    """The packages that the archive has not; an element might bring a source of its own."""
    if snapshot is None:
        return
    inside = [spec.kernel] if spec.is_kernel_inside and spec.kernel_source == "package" else []
    index = snapshot.packages
    for key, names in (("packages", spec.packages), ("kernel", inside)):
        for name in names:
            if not index.knows(name.partition("=")[0]):
                text = f"{name}: {spec.suite} has no such package in {' '.join(spec.components)}"
                hint = index.suggest(name) or f"correct `{key}`, or add to `components`"
                yield Finding("warning" if spec.elements else "error", key, text, hint)


def _digest_element(folder: Path) -> dict[str, str]:
    """Its files but READMEs; UsageError for a script that dib-run-parts would skip, saying nothing.

    A hidden file and a link are none of a person's scripts by oversight.
    """
    digests = {
        file: digest
        for file, digest in digest_tree(folder).items()
        if not file.startswith("README")
    }
    for file, digest in digests.items():
        phase, _, name = file.partition("/")
        if phase not in PHASES or "/" in name or name.startswith((".", "README")):
            continue
        if not re.fullmatch("[0-9A-Za-z_-]+", name):
            raise UsageError(
                f"{folder / file}: diskimage-builder would skip a script of this name",
                hint="letters, digits, - and _ alone: 50-my-thing; else move it out of the folder",
            )
        if digest.startswith("- "):
            raise UsageError(
                f"{folder / file}: not executable, so diskimage-builder would skip it",
                hint=f"chmod +x {folder / file}",
            )
    return digests


def _dependencies(folder: Path) -> list[str]:
    """What an element's element-deps names."""
    file = folder / "element-deps"
    if not os.path.lexists(file):
        return []
    names = read_named_text(file).split()
    for name in names:
        try:
            check_element(name)
        except WrongValueError as mistake:
            raise UsageError(f"{file}: {mistake.message}", hint=mistake.hint) from mistake
    return names


def inputs(spec: Spec, project: Project) -> Inputs:
    """Every file of the elements in use but their READMEs, the guest's sources, DIB's version."""
    stock = stock_elements()
    elements = _find_all(elements_of(spec), _search_path(spec, project))
    files = {
        name: _digest_element(folder)
        for name, folder in elements.items()
        if not folder.is_relative_to(stock)
    }
    return {
        "elements used": sorted(elements),
        "elements": files,
        "guest's sources": render_guest_sources(
            spec, find_archive(spec, project.mirrors), project.mirrors
        ),
        "diskimage-builder": version(),
        **_role_inputs(spec),
    }


def _role_inputs(spec: Spec) -> Inputs:
    """The scripts of xen-tools' roles with all that they are given; nothing where there are none.

    Raises UsageError for one that is missing.
    """
    if not spec.role:
        return {}
    scripts = find_scripts(spec)
    return {
        "roles": {str(script): digest_file(script, follow=True) for script in scripts},
        "role settings": settings_of(spec),
        "sed.d": [digest_tree(folder) for folder in sed_folders(scripts)],
    }


def build(job: Job) -> None:
    """Run disk-image-create; the last element's hook writes the finished tree as one tar."""
    from pipeline.mirror.relay import relaying  # an HTTP server: only a build pays for it

    elements = elements_of(job.spec)
    _find_all(elements, _search_path(job.spec, job.project))
    require_namespace(job.run)
    room = make_room(job.scratch / "room")
    for name in ("dib", "home"):
        make_room(room / name)
    snapshot = read_snapshot(job.upstream("mirror"))
    debs = [Deb(**table) for table in job.taken["mirror"].hints.get("debs", ())]
    epoch = _find_epoch(job, snapshot, debs)
    argv = [
        *prepare_program(job.scratch / LIBRARY),
        "-n",
        "-t",
        "raw",
        "-a",
        job.spec.arch,
        "-o",
        room / "unused",
    ]
    with progress_bar("running elements", unit="scripts") as bar:

        def count(line: str) -> None:
            if "dib-run-parts" in line and " Running " in line:
                bar.advance()

        cache, others = job.project.cache, job.spec.element_hosts
        with relaying(snapshot, cache=cache, others=others) as relay:
            _write_lists(job, relay.snapshot)
            env = {**_environment(job, relay.snapshot, epoch), **relay.environment}
            words = caged(
                [*argv, *elements],
                room=room,
                readable=_readable(job, snapshot),
                before=[["cd", room]],
                window=relay.window,
            )
            keep_open = [relay.window.descriptor]
            job.run(words, env=env, on_line=count, keep_open=keep_open)
    _take(job, room)
    write_epoch(job.scratch, epoch)
    _note_packages(job, debs)


def take_packages(offer: Offer) -> Taken:
    """The packages that come to those of the base.

    All of the archive's state where an element that is not ours may install what it likes.
    """
    spec, snapshot = offer.spec, read_snapshot(offer.artifacts["mirror"])
    elements = _find_all(elements_of(spec), _search_path(spec, offer.project))
    if name := find_unforeseen(elements, offer.project.root / "elements"):
        return take_state(snapshot.identity, f"what element {name} installs is not known before")
    if spec.role:
        return take_state(
            snapshot.identity, f"what role {spec.role[0]} installs is not known before"
        )
    if not is_resolved_here(spec):
        return take_state(snapshot.identity, f"bootstrap={spec.bootstrap} reads all of it")
    sources = render_guest_sources(
        spec, find_archive(spec, offer.project.mirrors), offer.project.mirrors
    )
    addition = resolve_addition(
        list_requests(spec, elements, packages_of(spec, sources)),
        snapshot,
        status=(offer.artifacts["base"] / STATUS).read_bytes(),
        arch=spec.arch,
        folder=offer.scratch / "apt",
        run=process.run,
    )
    parts = {"packages": name_packages(addition.debs), "removed": list(addition.removed)}
    return Taken(parts, {"debs": [asdict(deb) for deb in addition.debs]})


def _find_epoch(job: Job, snapshot: Snapshot, debs: Sequence[Deb]) -> int:
    """When the newest package was built; of which there may be any, the archive's state says it."""
    own = snapshot.epoch
    if "state" not in job.taken["mirror"].parts:
        own = find_epoch(fetch_all(debs, snapshot, job.project.cache.debs))
    return max(own, read_epoch(job.upstream("base")))


def _note_packages(job: Job, debs: Sequence[Deb]) -> None:
    status, parts = keep_status(job, job.scratch / TAR), job.taken["mirror"].parts
    if "state" not in parts:
        before = (job.upstream("base") / STATUS).read_text()
        require_packages(status, debs, before=before, removed=parts["removed"])


def _take(job: Job, room: Path) -> None:
    """The finished tree; everything else goes."""
    take(room, TAR, job.scratch / TAR, mode=0o644)
    remove_tree(room)
    for name in ("lists", "short-lists", LIBRARY):
        remove_tree(job.scratch / name)
    for path in job.scratch.iterdir():
        if path.name != TAR:
            path.unlink()


def _readable(job: Job, snapshot: Snapshot) -> list[Path]:
    """What the elements and the program read besides the host's programs."""
    inputs = [job.upstream("base") / "base.tar", snapshot.keyring]
    if not job.spec.is_kernel_inside:
        inputs.append(job.upstream("kernel") / "modules.tar")
    own = [path for path in job.scratch.iterdir() if path.name != "room"]
    scripts = find_scripts(job.spec)
    roles = [*scripts, *sed_folders(scripts)]
    return [*inputs, *own, *_search_path(job.spec, job.project), *roles]


def _write_lists(job: Job, snapshot: Snapshot) -> None:
    """apt's lists twice: whole, for any element, and what the spec's own packages lead to."""
    write_lists(snapshot, job.spec.arch, job.scratch / "lists")
    (job.scratch / "short-lists").mkdir()
    if job.spec.packages:
        write_selected_lists(
            snapshot, job.spec.arch, job.spec.packages, job.scratch / "short-lists"
        )


def _environment(job: Job, snapshot: Snapshot, epoch: int) -> dict[str, str]:
    """What disk-image-create and the elements are told, and nothing of the caller's environment."""
    room = job.scratch / "room"
    return {
        **program_environment(job.scratch / LIBRARY),
        "HOME": str(room / "home"),
        "USER": "root",
        "TMP_DIR": str(room / "dib"),
        "TMPDIR": str(room / "dib"),
        "SOURCE_DATE_EPOCH": str(epoch),
        "ELEMENTS_PATH": ":".join(map(str, _search_path(job.spec, job.project)[:-1])),
        "DIB_NO_TMPFS": "0" if has_memory_for_tmpfs(TREE_MIB) else "1",
        "DIB_MIN_TMPFS": "2",
        "DIB_IMAGE_SIZE": "1",  # spares DIB the measuring of a tree that it will not copy
        "DIB_NO_TIMESTAMP": "1",
        "DIB_IMAGE_CACHE": str(room / "home" / "cache"),
        "DIB_LOCKFILES": str(room / "home" / "locks"),
        **_element_variables(job, snapshot),
    }


def _element_variables(job: Job, snapshot: Snapshot) -> dict[str, str]:
    """The documented variables of our elements, see their README.rst."""
    spec, scratch = job.spec, job.scratch
    build_sources = scratch / "build-sources.list"
    ring = place_in_cage(snapshot.keyring) if spec.suite_facts.apt_knows_signed_by else None
    lines = [source.one_line(keyring=ring) for source in snapshot.sources]
    build_sources.write_text("".join(f"{line}\n" for line in lines))
    form = "sources" if spec.suite_facts.sources_form == "deb822" else "list"
    guest_sources = scratch / f"guest.{form}"
    archive = find_archive(spec, job.project.mirrors)
    guest_sources.write_text(render_guest_sources(spec, archive, job.project.mirrors))
    own = {
        "DISTRO_NAME": spec.suite_facts.distribution,
        "DIB_RELEASE": spec.suite,
        "DIB_INIT_SYSTEM": spec.init,
        "DIB_DOMU_BASE": job.upstream("base") / "base.tar",
        "DIB_DOMU_EXPORT": scratch / "room" / TAR,
        "DIB_DOMU_PACKAGES": " ".join(packages_of(spec, guest_sources.read_text())),
        "DIB_DOMU_APT_LISTS": scratch / "lists",
        "DIB_DOMU_APT_SHORT_LISTS": scratch / "short-lists",
        "DIB_DOMU_BUILD_SOURCES": build_sources,
        "DIB_DOMU_NETWORK_TOOL": spec.suite_facts.network_tool(spec.init),
        "DIB_DEBCONF_PRIORITY_LEVEL": spec.debconf_priority,
        "DIB_TIMEZONE_LOCALE_ZONE": spec.timezone,
        "DIB_TIMEZONE_LOCALE_LANG": spec.locale,
        "DIB_GUEST_SOURCES_FILE": guest_sources,
        # archived suites whose apt cannot be told so in a source
        "DIB_GUEST_SOURCES_DATES": "check" if spec.suite_facts.apt_knows_signed_by else "ignore",
        "DIB_XEN_CONSOLE_DEVICE": spec.console,
    }
    own |= _role_variables(spec)
    if spec.vnc or spec.is_whole:
        own["DIB_XEN_CONSOLE_TTYS"] = "tty1"
    if spec.is_whole:
        own["DIB_WHOLE_DISK_LOADERS"] = " ".join(find_loaders(spec))
    if spec.is_kernel_inside:
        own["DIB_GRUB_MENUS_KERNEL"] = spec.kernel
        own["DIB_GRUB_MENUS_ROOT"] = GOLDEN_ROOT if spec.is_whole else spec.root_device
        drivers = WHOLE_DRIVERS if spec.is_whole else "xen-blkfront"
        own["DIB_GRUB_MENUS_MODULES"] = f"{drivers} {spec.fs}"
        own["DIB_GRUB_MENUS_OPTIONS"] = command_line(spec)
    else:
        own["DIB_KERNEL_MODULES_TAR"] = job.upstream("kernel") / "modules.tar"
    return {name: str(value) for name, value in own.items()}


def _role_variables(spec: Spec) -> dict[str, object]:
    """The scripts of xen-tools' roles and what they are given, as our element wants it."""
    scripts = find_scripts(spec)
    if not scripts:
        return {}
    settings = (f"{name}={text}" for name, text in settings_of(spec).items())
    return {
        "DIB_XEN_TOOLS_ROLES_SCRIPTS": shlex.join(str(place_in_cage(each)) for each in scripts),
        "DIB_XEN_TOOLS_ROLES_ARGUMENTS": shlex.join(shlex.split(spec.role_args)),
        "DIB_XEN_TOOLS_ROLES_SETTINGS": shlex.join(settings),
        "DIB_XEN_TOOLS_ROLES_SED": "".join(map(str, sed_folders(scripts))),
    }


def outputs(_spec: Spec, _project: Project) -> Sequence[str]:
    """The tree, what is installed in it, and the time of that."""
    return (TAR, STATUS, EPOCH)


STAGE = Stage(
    name="rootfs",
    summary="base tree plus the guest's elements",
    build=build,
    revision=REVISION,
    room_mib=225,
    after=("mirror", "base", "kernel"),
    keys=tuple(
        "suite arch init boot cmdline fs kernel packages elements elements_path timezone "
        "locale debconf_priority guest_mirror vnc".split()
    ),
    seldom=("role", "roles_path", "role_args", "is_whole", "cloud_init"),
    reads={
        **dict.fromkeys(
            ("mirror", "components", "updates", "security"),
            "what follows, the guest's sources, is an input",
        ),
        "element_hosts": "it opens the network for elements, whose bytes are inputs",
        "type": "it is hvm where boot is firmware, and only there with a kernel inside",
    },
    checks=(require_proxy,),
    foresees=(foresee,),
    inputs=inputs,
    takes={"mirror": take_packages},
    outputs=outputs,
    other=rootfs_of,
    tools={**CAGE, "tar": "tar", "getopt": "util-linux", "bash": "bash"},
)
