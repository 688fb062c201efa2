"""The root file system of a guest that is shut down, mounted where nobody else sees it.

In a mount namespace that dies with the command: a kill unmounts it, by the kernel, and what the
file system's journal holds is whole. debugfs would need no mount but leaves an inconsistent file
system when it is killed. Before that e2fsck looks at it, outside the kernel.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipeline import PACKAGE, process
from pipeline.console.progress import print_line
from pipeline.dom0 import modules_in_guest
from pipeline.dom0.inventory import Installed, InstalledDisk, read_installed, require_disk
from pipeline.dom0.layout import Layout
from pipeline.dom0.other_host import refuse_running
from pipeline.dom0.restriction import perform_drop
from pipeline.dom0.toolstack import find_toolstack
from pipeline.errors import (
    CommandFailed,
    EnvironmentFault,
    InUseError,
    PipelineError,
    UsageError,
    VerificationError,
)
from pipeline.namespace import is_root, isolated
from pipeline.storage.disks import INSTALLED_TAG
from pipeline.storage.images import SHOWN, edit_overlay
from pipeline.storage.images import TOOLS as QCOW2_TOOLS
from pipeline.storage.in_use import refuse_if_used
from pipeline.storage.root_place import Place
from pipeline.storage.steps import Kind, Site, Step
from pipeline.storage.transaction import work_folder
from pipeline.walls.cage import caged_reader

_TOOLS = {"bwrap": "bubblewrap", "e2fsck": "e2fsprogs"}
_TIMEOUT_S = 1800
_WITHOUT = "this kernel or mount(8) has no nosymfollow"
_EXT = ("ext2", "ext3", "ext4")
_DYING_S = 3.0


def root_disk(record: Installed) -> InstalledDisk:
    """The disk with the root file system; raises UsageError where there is none."""
    for disk in record.disks:
        if disk.role == "root" or disk.is_whole:
            return disk
    raise UsageError(
        f"{record.name} has no disk with a root file system", hint="look at its record"
    )


def change_modules(layout: Layout, record: Installed, words: Sequence[str | Path]) -> None:
    """Run pipeline.dom0.modules_in_guest on the guest's root file system.

    Raises InUseError while the guest runs or its disk is open, EnvironmentFault without root or
    when there is no room in the guest, VerificationError for a damaged file system or one whose
    links lead the modules elsewhere.
    """
    if not is_root():
        raise EnvironmentFault("a guest's file system is opened by root only", hint="sudo ./doit")
    process.require_tools(_TOOLS)
    refuse_running(layout, find_toolstack(), record.name, "changing its modules")
    disk = root_disk(record)
    require_disk(disk)
    refuse_if_used(disk.path)
    try:
        with work_folder(site_of(layout).work_of(record.name)) as work:
            said = _run_inside(record, disk, work, [str(word) for word in words])
    except CommandFailed as error:
        raise _explain(record, error) from error
    if _WITHOUT in said:
        print_line(f"  {_WITHOUT}: only openat2 stands before the guest's links")


def _explain(record: Installed, error: CommandFailed) -> PipelineError:
    last = (error.details.strip().splitlines() or [""])[-1]
    if error.status == modules_in_guest.NO_SPACE:
        return EnvironmentFault(
            f"{record.name}: {last}", hint=f"doit resize name={record.name} size=..."
        )
    if error.status == modules_in_guest.REFUSED:
        return VerificationError(
            f"{record.name}: in the guest: {last}",
            hint="start the guest and make it a folder of its own there",
        )
    if error.status in (124, 137):
        return EnvironmentFault(
            f"{record.name}: its file system was not done with after {_TIMEOUT_S} s",
            hint="look at it: e2fsck -f, or at the load of this host",
        )
    return error


def _run_inside(record: Installed, disk: InstalledDisk, work: Path, words: list[str]) -> str:
    root, place = work / "root", Place(disk=disk.path)
    root.mkdir()
    program = shlex.join(map(str, _caged(words)))
    steps = [
        f"root={shlex.quote(str(root))} follow=,nosymfollow",
        # an older kernel or mount does not know the option
        'if mount -t tmpfs -o "ro$follow" none "$root" 2>/dev/null; then umount "$root"; '
        f'else follow=; echo "{_WITHOUT}"; fi',
        f'mount -t {record.fs} -o "{mount_options(record, place)}$follow" "$1" "$root"',
        f'{program} 9<"$root"',
        'umount "$root"',
    ]
    if disk.format == "qcow2":
        process.require_tools(QCOW2_TOOLS)
        if record.fs in _EXT:
            shown = work / SHOWN
            check = shlex.join(caged_reader(["e2fsck", "-f", "-p", shown], writable=[shown]))
            steps.insert(0, f"{check} || [ $? -le 1 ]")
        return edit_overlay(process.run, disk.path, steps, work=work, env={})
    check_file_system(place, record.fs)
    return process.run(isolated(["sh", "-euc", "\n".join(steps), "sh", disk.path]))


def _caged(words: list[str]) -> list[object]:
    """`inside` where there are programs and nothing else: no host, no network, no capability but
    those that write a tree of several owners. The guest's tree is descriptor 9, from another mount
    namespace, so that its mount keeps its options."""
    python = Path(sys.executable).resolve()
    cage: list[object] = ["timeout", "-k", "5", str(_TIMEOUT_S), "bwrap", "--die-with-parent"]
    cage += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--new-session"]
    cage += ["--cap-drop", "ALL", "--cap-add", "CAP_DAC_OVERRIDE", "--cap-add", "CAP_FOWNER"]
    for folder in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", sys.base_prefix):
        cage += ["--ro-bind-try", folder, folder]
    cage += ["--ro-bind", PACKAGE, "/source/pipeline", "--dev", "/dev"]
    if words[0] == "put":
        cage += ["--ro-bind", words[2], "/modules.tar"]
        words = [*words[:2], "/modules.tar"]
    start = (
        "import sys; sys.path.insert(0, '/source'); from pipeline.dom0 import modules_in_guest; "
    )
    start += "sys.exit(modules_in_guest.main(sys.argv[1:]))"
    return [*cage, "--", python, "-I", "-S", "-B", "-c", start, "9", *words]


def mount_options(record: Installed, place: Place) -> str:
    """How a guest's file system is mounted here.

    Its superblock may ask for a panic of whoever finds an error in it: of this host, then.
    """
    errors = ("errors=remount-ro",) if record.fs in _EXT else ()
    return ",".join(("nodev", "nosuid", "noexec", *errors, *place.mount_options))


def check_file_system(place: Place, fs: str) -> None:
    """Replay an ext file system's journal and look all of it over; the others do it when mounted.

    Whatever its guest's root made of it, the kernel is not the first to read it. What is clean is
    not written to: its time of change tells whether the guest ran.
    """
    if fs not in _EXT:
        return
    try:
        read_ext(place, "e2fsck", "-f", "-n")
    except CommandFailed:
        pass
    else:
        return
    try:
        write_ext(place, "e2fsck", "-f", "-p", accept=(0, 1))
    except CommandFailed as error:
        raise VerificationError(
            f"{place.disk}: e2fsck finds what it does not mend by itself",
            details=error.details,
            hint=f"look at it: e2fsck -f {place.name}",
        ) from error


def read_ext(place: Place, *words: str) -> str:
    """One of e2fsprogs' programs over a disk that its guest made, where it sees nothing else."""
    return process.run(caged_reader([*words, place.name], readable=[place.disk]))


def write_ext(place: Place, *words: str, more: str = "", accept: tuple[int, ...] = (0,)) -> str:
    """The same for one that writes; `more` stands behind the disk."""
    argv = [*words, place.name, *filter(None, [more])]
    return process.run(caged_reader(argv, writable=[place.disk]), accept=accept)


def modules_step(record: Installed, what: str, *abis: str) -> Step:
    """A journal's step that changes the modules in the guest, `drop` or `back`."""
    return {"kind": "modules", "guest": record.name, "what": what, "abis": " ".join(abis)}


def site_of(layout: Layout) -> Site:
    """Where the changes of installed guests are noted, and where their things lie."""
    return Site(
        state=layout.state,
        files=(layout.configs, layout.auto, layout.saves, layout.record("").parent),
        trees=(layout.images,),
        tag=INSTALLED_TAG,
        kinds={
            "modules": Kind(("guest", "what", "abis"), partial(_perform_modules, layout)),
            "drop-user": Kind(("guest",), lambda _site, guest, _step: perform_drop(layout, guest)),
        },
    )


def _perform_modules(layout: Layout, _site: Site, _guest: str, step: Step) -> None:
    """The step; modules that stay because the guest runs by now or cannot be read harm nobody."""
    record = read_installed(layout, step["guest"])
    if record is None:
        return
    _await_dying(root_disk(record).path)
    with suppress(PipelineError):
        change_modules(layout, record, [step["what"], *step["abis"].split()])


def _await_dying(disk: Path) -> None:
    """The programs of a killed command end a moment after it."""
    end = time.monotonic() + _DYING_S
    while time.monotonic() < end:
        try:
            refuse_if_used(disk)
        except InUseError:
            time.sleep(0.05)
        else:
            return
