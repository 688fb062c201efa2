"""Base: the minimal tree of a suite, with what every lean guest of it needs, as a tar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import process
from pipeline.bootstrap import bootstrap as making
from pipeline.bootstrap.epoch import EPOCH, find_epoch, write_epoch
from pipeline.bootstrap.filters import CONFIG, PathFilter
from pipeline.bootstrap.resolution import Resolution
from pipeline.bootstrap.skeleton import LEFT_OVER
from pipeline.console.progress import progress_bar
from pipeline.cutoff import Offer, Taken, name_packages, take_state
from pipeline.files import fingerprint
from pipeline.mirror.apt_lists import write_lists
from pipeline.mirror.apt_sources import installed_version
from pipeline.mirror.proxy.control import require_proxy
from pipeline.mirror.snapshot import Snapshot, read_snapshot
from pipeline.namespace import Mount, has_memory_for_tmpfs, require_namespace, tmpfs
from pipeline.preflight import require_feasible
from pipeline.project import Project
from pipeline.scratch import remove_tree
from pipeline.spec import Spec
from pipeline.stage import Inputs, Job, Stage
from pipeline.stages.given_tree import left_out
from pipeline.stages.package_list import STATUS, keep_status, require_packages
from pipeline.walls.beneath import take
from pipeline.walls.cage import TOOLS as CAGE
from pipeline.walls.cage import caged, make_room

if TYPE_CHECKING:
    from pipeline.mirror.relay import Relay

REVISION = 4
TREE_MIB = 1500
TAR = "base.tar"
# debootstrap says why only in the tree's own log, which goes with the tree
WITH_ITS_LOG = (
    '"$@" || { code=$?; grep -v " URL:" "$0/debootstrap/debootstrap.log" | tail -n 20 >&2; '
    "exit $code; }"
)
PROGRAMS = Path(__file__).with_name("debootstrap")
# A merged /usr, with a stand-in for usr-is-merged until the real one is installed, so that apt does
# not take usrmerge and its perl. From trixie on mmdebstrap's own hook no longer makes the links.
MERGE_USR = (
    'set -e; for name in {links}; do mkdir -p "$1/usr/$name"; ln -s "usr/$name" "$1/$name"; done; '
    'printf "%s\\n" "Package: usr-is-merged" "Status: install ok installed" "Version: 1" '
    '"Architecture: all" "Multi-Arch: foreign" "Maintainer: none" "Description: stand-in" "" '
    '>>"$1/var/lib/dpkg/status"; touch "$1/var/lib/dpkg/info/usr-is-merged.list"'
)


def inputs(spec: Spec, _project: Project) -> Inputs:
    """The packages that the suite's table names for this init, and the bootstrap tool's version."""
    unwanted = filter_of(spec)
    return {
        "not unpacked": unwanted.options(),
        "empty folders": list(unwanted.empty_folders),
        "base packages": list(spec.suite_facts.base_packages(spec.init, spec.arch)),
        spec.bootstrap: making.version()
        if spec.bootstrap == "parallel"
        else installed_version(spec.bootstrap),
    }


def filter_of(spec: Spec) -> PathFilter:
    """What of the packages the spec does not want in the tree."""
    if not spec.suite_facts.has_path_filters:
        return PathFilter()
    return PathFilter.wanted(documentation=spec.documentation, locale=spec.locale)


def build(job: Job) -> None:
    """Bootstrap with the tool that the spec names."""
    require_namespace(job.run)
    snapshot = read_snapshot(job.upstream("mirror"))
    cache, resolution = job.project.cache, _recall_resolution(job)
    if job.spec.bootstrap == "parallel":
        scratch = job.scratch
        epoch = making.make_base(
            job.spec,
            snapshot,
            scratch=scratch,
            tar=scratch / TAR,
            cache=cache.debs,
            run=job.run,
            unwanted=filter_of(job.spec),
            resolution=resolution,
        )
        _note(job, epoch, resolution)
        return
    from pipeline.mirror.relay import relaying  # an HTTP server: only a build pays for it

    epoch = snapshot.epoch
    if resolution is not None:
        epoch = find_epoch(making.fetch_all(resolution.debs, snapshot, cache.debs))
    room = make_room(job.scratch / "room")
    with relaying(snapshot, cache=cache) as relay:
        run = _run_debootstrap if job.spec.bootstrap == "debootstrap" else _run_mmdebstrap
        run(job, relay, room, epoch)
    take(room, TAR, job.scratch / TAR, mode=0o644)
    for path in job.scratch.iterdir():
        if path.name != TAR:
            remove_tree(path)
    _note(job, epoch, resolution)


def take_packages(offer: Offer) -> Taken:
    """The packages that apt resolves for it.

    All of the archive's state for the other programs: what they leave open, as the order in which
    they unpack, was not shown to depend on nothing else.
    """
    spec, snapshot = offer.spec, read_snapshot(offer.artifacts["mirror"])
    whole = take_state(snapshot.identity, f"bootstrap={spec.bootstrap} reads all of it")
    if not making.is_resolved_here(spec):
        return whole
    folder = offer.scratch / "bootstrap"
    resolution = making.resolve_base(spec, snapshot, folder=folder, run=process.run)
    if spec.bootstrap != "parallel":
        return replace(whole, hints=asdict(resolution))
    parts = {
        "packages": name_packages(resolution.debs),
        "automatic": list(resolution.automatic),
        "waves": fingerprint([[deb.name for deb in wave] for wave in resolution.waves]),
        # which of them the tree's own apt asks, until the guest's sources take their place
        "sources": [[it.role, it.suite, list(it.components)] for it in snapshot.sources],
    }
    return Taken(parts, asdict(resolution))


def _recall_resolution(job: Job) -> Resolution | None:
    """What was resolved for the fingerprint; None where nothing was."""
    if not making.is_resolved_here(job.spec):
        return None
    return Resolution.from_table(job.taken["mirror"].hints)


def _note(job: Job, epoch: int, resolution: Resolution | None) -> None:
    """What the stages after it ask of the tree: its packages and their time."""
    write_epoch(job.scratch, epoch)
    status = keep_status(job, job.scratch / TAR)
    if resolution is not None:
        require_packages(status, resolution.debs)


def _run_mmdebstrap(job: Job, relay: Relay, room: Path, epoch: int) -> None:
    snapshot, work, lists = relay.snapshot, make_room(room / "work"), job.scratch / "lists"
    packages = job.spec.suite_facts.base_packages(job.spec.init, job.spec.arch)
    write_lists(snapshot, job.spec.arch, lists)
    config = _write_filter(job)
    give_lists = f'mkdir -p "$1"/var/lib/apt && cp -a "{lists}" "$1"/var/lib/apt/'
    argv: list[str | Path] = [
        "mmdebstrap",
        "--verbose",
        "--variant=minbase",
        "--format=tar",
        "--mode=root",
        f"--architectures={job.spec.arch}",
        f"--keyring={snapshot.keyring}",
        f"--include={','.join(packages)}",
        "--skip=update",
        f"--setup-hook={give_lists}",
        *hooks_of(job.spec),
        *(f"--dpkgopt={option}" for option in filter_of(job.spec).options()),
        f'--setup-hook=mkdir -p "$1"/etc/dpkg && cp -rT "{config}" "$1"/etc/dpkg/dpkg.cfg.d',
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        job.spec.suite,
        room / TAR,
        *(source.one_line(keyring=snapshot.keyring) for source in snapshot.sources),
    ]
    words = caged(
        argv,
        room=room,
        readable=[lists, config, snapshot.keyring],
        mounts=_work_mounts(work),
        window=relay.window,
    )
    with progress_bar("bootstrapping", unit=" packages") as bar:

        def count(line: str) -> None:
            if line.startswith("Get:"):
                bar.expect()
            elif line.startswith("Setting up "):
                bar.advance()

        env = {"TMPDIR": str(work), "SOURCE_DATE_EPOCH": str(epoch), **relay.environment}
        job.run(words, env=env, on_line=count, keep_open=[relay.window.descriptor])


def _write_filter(job: Job) -> Path:
    """A dpkg.cfg.d with what is not to be unpacked; empty where everything is."""
    folder, unwanted = job.scratch / "dpkg.cfg.d", filter_of(job.spec)
    folder.mkdir()
    if unwanted.rules:
        (folder / Path(CONFIG).name).write_text(unwanted.config(job.spec.locale))
    return folder


def hooks_of(spec: Spec) -> list[str]:
    """Work that would be done only to be thrown away: SSH host keys, usrmerge with its perl."""
    kinds = ("rsa", "ecdsa", "ed25519")
    keys = " ".join(f'"$1"/etc/ssh/ssh_host_{kind}_key' for kind in kinds)
    hooks = [f'--setup-hook=mkdir -p "$1"/etc/ssh && touch {keys}']
    hooks.append(f"--customize-hook=rm -f {keys}")
    if folders := " ".join(f'"$1"/{name}' for name in filter_of(spec).empty_folders):
        hooks.append(f"--setup-hook=mkdir -p {folders}")
    if links := " ".join(spec.suite_facts.merged_folders(spec.arch)):
        hooks += [f"--setup-hook={MERGE_USR.format(links=links)}", "--include=usr-is-merged"]
    return hooks


def _work_mounts(work: Path) -> list[Mount]:
    return [tmpfs(work, mode="0755")] if has_memory_for_tmpfs(TREE_MIB) else []


def _run_debootstrap(job: Job, relay: Relay, room: Path, epoch: int) -> None:
    """debootstrap knows one suite only: updates and security follow with its own apt."""
    snapshot, tree = relay.snapshot, make_room(room / "tree")
    tree.chmod(0o755)
    main = snapshot.sources[0]
    packages = job.spec.suite_facts.base_packages(job.spec.init, job.spec.arch)
    bootstrap: list[object] = ["sh", "-c", WITH_ITS_LOG, tree]
    bootstrap += ["debootstrap", "--variant=minbase", "--force-check-gpg"]
    bootstrap += [f"--keyring={snapshot.keyring}", f"--arch={job.spec.arch}"]
    bootstrap += [f"--components={','.join(main.components)}", f"--include={','.join(packages)}"]
    bootstrap += [main.suite, tree, main.uri]
    steps = [
        bootstrap,
        *_sweep_steps(job, tree),
        *(_upgrade_steps(job, snapshot, tree) if len(snapshot.sources) > 1 else ()),
        # what is of this day and this machine: the same packages are the same bytes
        ["rm", "-f", *(tree / name for name in LEFT_OVER)],
        ["find", tree / "etc", "-path", f"{tree}/etc/ssh/ssh_host_*", "-type", "f", "-delete"],
        ["truncate", "--no-create", "--size=0", tree / "etc/machine-id"],
    ]
    given = [job.scratch / name for name in ("lent", "dpkg.cfg.d")]
    words = caged(
        _pack(tree, room / TAR, epoch),
        room=room,
        readable=[snapshot.keyring, *(path for path in given if path.exists())],
        mounts=_work_mounts(tree),
        before=steps,
        window=relay.window,
    )
    env = {
        "DEBIAN_FRONTEND": "noninteractive",
        "SOURCE_DATE_EPOCH": str(epoch),
        "container": "lxc",  # debootstrap does not try whether devices work here
        "PATH": f"{PROGRAMS}:{process.PATH}",
        **relay.environment,
    }
    with progress_bar("bootstrapping", unit=" steps") as bar:
        job.run(
            words,
            env=env,
            on_line=lambda line: bar.advance() if line[:2] == "I:" else None,
            keep_open=[relay.window.descriptor],
        )


def _pack(tree: Path, tar: Path, epoch: int) -> list[object]:
    words: list[object] = ["tar", "-C", tree, "--sort=name", "--numeric-owner", "--xattrs"]
    words += ["--one-file-system", "--exclude=./dev/*", f"--mtime=@{epoch}", "--clamp-mtime"]
    words += ["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"]
    return [*words, "-cf", tar, "."]


def _sweep_steps(job: Job, tree: Path) -> list[list[object]]:
    """debootstrap knows no filter: what the spec does not want goes before anything else comes."""
    unwanted = filter_of(job.spec)
    if not unwanted.rules:
        return []
    folders = [pattern.removesuffix("/*") for kind, pattern in unwanted.rules if kind == "exclude"]
    kept = ["!", "-name", "copyright", "!", "-name", "locale.alias"]
    here = [f"{tree}{folder}" for folder in folders]
    return [
        ["cp", "-rT", _write_filter(job), tree / Path(CONFIG).parent],
        # an essential package may lack one of these folders
        ["mkdir", "-p", *here],
        ["find", *here, "-type", "f", *kept, "-delete"],
        ["find", *here, "-mindepth", "1", "-type", "d", "-empty", "-delete"],
        *(["mkdir", "-p", tree / name] for name in unwanted.empty_folders),
    ]


def _upgrade_steps(job: Job, snapshot: Snapshot, tree: Path) -> list[list[object]]:
    """Commands that bring a debootstrapped tree to the snapshot's updates and security.

    apt gets the verified lists: an old one could not check their signatures any more.
    """
    lent, keyring = job.scratch / "lent", Path("/tmp/build-keyring.gpg")
    ring = keyring if job.spec.suite_facts.apt_knows_signed_by else None
    lines = [source.one_line(keyring=ring) for source in snapshot.sources]
    files = {
        "etc/apt/sources.list": "".join(f"{line}\n" for line in lines).encode(),
        "etc/resolv.conf": b"",
        "usr/sbin/policy-rc.d": b"#!/bin/sh\nexit 101\n",
        str(keyring)[1:]: snapshot.keyring.read_bytes(),
    }
    steps: list[list[object]] = [
        list(Mount(tree / "proc", "proc", "proc").argv()),
        ["mount", "--rbind", "/dev", tree / "dev"],
    ]
    for name, content in files.items():
        path = lent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if name.endswith("policy-rc.d") else 0o644)
        # over whatever is there: systemd-resolved's package leaves a link into /run
        steps.append(["cp", "--remove-destination", "--preserve=mode", path, tree / name])
    options = ["-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root"]
    write_lists(snapshot, job.spec.arch, lent / "lists")
    steps.append(["rm", "-rf", tree / "var/lib/apt/lists"])
    steps.append(["cp", "-r", lent / "lists", tree / "var/lib/apt/lists"])
    for words in (["-y", "--no-install-recommends", "dist-upgrade"], ["clean"]):
        steps.append(["chroot", tree, "apt-get", *options, *words])
    steps.append(["rm", *(tree / name for name in files if not name.endswith("sources.list"))])
    return [*steps, ["umount", "--lazy", tree / "dev", tree / "proc"]]


def outputs(_spec: Spec, _project: Project) -> Sequence[str]:
    """The tree, what is installed in it, and the time of that."""
    return (TAR, STATUS, EPOCH)


_LEFT_OUT = left_out("base")
STAGE = Stage(
    name="base",
    summary="minimal tree of the suite",
    build=build,
    revision=REVISION,
    room_mib=210,
    after=("mirror",),
    keys=("suite", "arch", "init", "bootstrap", "documentation", "locale"),
    checks=(require_feasible, require_proxy),
    inputs=inputs,
    takes={"mirror": take_packages},
    outputs=outputs,
    other=lambda spec: _LEFT_OUT if spec.adopted else None,
    tools={
        "mmdebstrap": "mmdebstrap",
        "debootstrap": "debootstrap",
        "apt-get": "apt",
        "setpriv": "util-linux",
        **CAGE,
        "tar": "tar",
    },
)
