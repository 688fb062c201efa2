"""`doit modernize` below a folder, without Xen: plans, exchanges, undo, kills, refusals.

The guests are small and boot nowhere; tests/boot/test_modernize.py has those of xen-create-image.
"""

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.commands import COMMANDS
from pipeline.commands.command_line import read_command_line
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import require_installed
from pipeline.dom0.layout import Layout
from pipeline.dom0.rebuild import undo_rebuild
from pipeline.errors import GuestFailed, InUseError, PipelineError
from pipeline.files import digest_file
from pipeline.foreign.modernization import WORD, Modernization, modernize, plan_modernization
from pipeline.foreign.old_guest import read_old_guest
from pipeline.kernel.cpio import Archive, compress, read_initrd
from pipeline.namespace import is_root
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.stages import STAGES
from pipeline.storage.transaction import list_unfinished, recover_all
from pipeline.xen import xl
from pipeline.xen.boot import Direct, Grub
from tests.conftest import ROOT, require
from tests.host.kill_points import SURVIVED, run_and_kill
from tests.host.old_guests import (
    ABI,
    DIRECT,
    NAME,
    PROGRAM,
    PYGRUB,
    OldGuest,
    files_in,
    make_kernel,
)
from tests.host.small_artifact import is_clean

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
MOST_STEPS = 300
STRIDE = int(os.environ.get("KILL_STRIDE", "3"))


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OldGuest:
    require(is_root(), "mounts a file system")
    made = OldGuest(tmp_path / "domains", tmp_path / "root")
    made.make()
    monkeypatch.setenv("DOMU_ROOT", str(made.root))
    return made


def ask(guest: OldGuest, word: str, *words: str) -> tuple[PipelineError | None, str]:
    """A word of the command line, in this process; its error and what it said."""
    command = COMMANDS[word]
    project = Project(ROOT, guest.root.parent / "output", guest.root.parent / "guests")
    heard = io.StringIO()
    with redirect_stdout(heard):
        try:
            line = read_command_line([word, *words])
            command.run(Recipe(project, STAGES), {}, line.options_of(command))
        except PipelineError as error:
            return error, heard.getvalue()
    return None, heard.getvalue()


def demand(guest: OldGuest, *words: str) -> str:
    error, said = ask(guest, "modernize", f"cfg={guest.config}", *words)
    assert error is None, f"{error} {error.details}\n{said}"
    return said


def refused(guest: OldGuest, *words: str) -> PipelineError:
    """One clear error, and nothing is another than before."""
    before = stock(guest)
    error, said = ask(guest, "modernize", f"cfg={guest.config}", *words)
    assert error is not None, said
    assert error.hint, error.brief
    assert "\n" not in error.brief
    assert stock(guest) == before
    return error


def stock(guest: OldGuest) -> dict[str, str]:
    """Every file of the host, and of the guest's own, by its bytes."""
    found = {}
    for top in (guest.root, guest.folder):
        for path in sorted(top.rglob("*")):
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif path.is_file() and "domu/locks" not in str(path):
                found[str(path)] = f"{path.stat().st_mode:o} {digest_file(path)}"
    return found


def plan_of(guest: OldGuest) -> Modernization:
    work = guest.root.parent / "work"
    work.mkdir(exist_ok=True)
    old = read_old_guest(guest.config)
    return plan_modernization(Layout(guest.root), old, boot=None, xen="4.17", work=work)


def carry_out(guest: OldGuest, plan: Modernization, prove: Callable[[Path], str]) -> None:
    modernize(plan, None, prove=prove, log=guest.root.parent / "log")


def test_dry_says_everything_and_does_nothing(guest: OldGuest) -> None:
    before = stock(guest)

    said = demand(guest, "dry=yes")

    assert stock(guest) == before
    for text in ("XSA-508", "file: before the path of xvda2, xvda1", "dhcp", "card-name"):
        assert text in said
    assert "-bootloader = 'pygrub'" in said
    assert '+type = "pvh"' in said
    assert "+allow-hotplug eth0 enX0" in said
    assert f"copy {guest.disk}" in said


def test_a_pygrub_guest_becomes_a_pvh_guest_and_is_brought_back(
    guest: OldGuest, tmp_path: Path
) -> None:
    auto = guest.root / "etc/xen/auto"
    auto.mkdir()
    (auto / f"{NAME}.cfg").symlink_to(guest.config)
    before = stock(guest)

    demand(guest, "unproven=yes")

    assert {path: digest for path, digest in stock(guest).items() if str(guest.folder) in path} == {
        path: digest for path, digest in before.items() if str(guest.folder) in path
    }
    text = guest.config.read_text()
    domain = xl.parse(text, strict=False)
    assert (domain.type, type(domain.boot)) == ("pvh", Grub)
    assert [disk.target for disk in domain.disks] == [
        str(guest.new_disk),
        str(guest.folder / "swap.img"),
    ]
    assert "name        = 'old1'   # its name" in text
    assert domain.cards[0].mac == "00:16:3e:00:00:01"
    assert is_clean(guest.new_disk)
    was, now = files_in(guest.disk, tmp_path / "was"), files_in(guest.new_disk, tmp_path / "now")
    assert {path for path in was.keys() | now.keys() if was.get(path) != now.get(path)} == set(
        "etc/network/interfaces boot/grub/menu.lst boot/grub/grub.cfg "
        "etc/default/xen-grub-menus etc/kernel/postinst.d/zz-xen-grub-menus "
        "etc/kernel/postrm.d/zz-xen-grub-menus".split()
    )
    _, listed = ask(guest, "list-guests")
    assert f"doit modernize cfg={guest.config} undo=yes" in listed
    assert "is installed already" in refused(guest, "unproven=yes").brief

    demand(guest, "undo=yes")

    assert stock(guest) == before


def test_a_guest_with_dom0s_kernel_keeps_it(guest: OldGuest) -> None:
    guest.make(DIRECT)

    demand(guest, "unproven=yes")

    domain = xl.parse(guest.config.read_text())
    assert domain.boot == Direct(f"{guest.folder}/vmlinuz", None, "/dev/xvda2", "ro console=hvc0")
    assert [disk.vdev for disk in domain.disks] == ["xvda2", "xvda1"]


def test_an_initrd_without_xen_blkfront_gets_one_of_ours_beside_it(
    guest: OldGuest, tmp_path: Path
) -> None:
    store = tmp_path / "output/store/kernel/any"
    store.mkdir(parents=True)
    archive = Archive()
    archive.add_file("bin/busybox", PROGRAM)
    (store / "initrd.img").write_bytes(compress(archive.pack()))
    home = f"usr/lib/modules/{ABI}"
    guest.more = {
        f"{home}/modules.builtin": "kernel/fs/ext4/ext4.ko\n",
        f"{home}/modules.dep": "kernel/xen-blkfront.ko:\n",
        f"{home}/kernel/xen-blkfront.ko": "the driver of Xen's disks",
        f"boot/initrd.img-{ABI}": compress(Archive().pack()),
    }
    guest.make()

    demand(guest, "unproven=yes")

    files = files_in(guest.new_disk, tmp_path / "now")
    menu = files["boot/grub/grub.cfg"]
    assert isinstance(menu, bytes)
    assert f"initrd /boot/initrd.img-{ABI}.xen" in menu.decode()
    image = files[f"boot/initrd.img-{ABI}.xen"]
    assert isinstance(image, bytes)
    inside = {entry.path: entry.content for entry in read_initrd(image)}
    assert b"the driver of Xen's disks" in inside.values()
    assert inside["bin/busybox"].startswith(b"\x7fELF")


def test_purge_names_the_old_disks_and_removes_none(guest: OldGuest) -> None:
    demand(guest, "unproven=yes")

    said = demand(guest, "purge=yes")

    assert f"rm {guest.disk}" in said
    assert str(guest.folder / "swap.img") not in said
    assert guest.disk.exists()
    assert "no modernize that can be undone" in refused(guest, "undo=yes").brief


def test_remove_wants_to_be_sure_and_leaves_the_old_disks(guest: OldGuest) -> None:
    demand(guest, "unproven=yes")

    error, _ = ask(guest, "remove", f"name={NAME}")
    assert isinstance(error, InUseError)
    assert "configuration that it had before" in error.details
    error, said = ask(guest, "remove", f"name={NAME}", "yes=yes")
    assert error is None
    assert f"left, not ours: {guest.disk}" in said
    assert not guest.new_disk.exists()


@pytest.fixture
def open_disk(guest: OldGuest) -> Iterator[Path]:
    """Somebody has the disk open, as a running guest's backend would."""
    with open(guest.disk, "rb") as stream:
        holder = subprocess.Popen(["sleep", "600"], stdin=stream)
        yield guest.disk
        holder.send_signal(signal.SIGKILL)
        holder.wait()


def test_a_guest_that_runs_is_refused(guest: OldGuest, open_disk: Path) -> None:
    error = refused(guest, "unproven=yes")
    assert error.exit_code == 4
    assert f"{open_disk} is in use by process" in error.brief


def _write_disk(guest: OldGuest) -> None:
    with open(guest.disk, "r+b") as stream:
        stream.seek(1024)
        stream.write(stream.read(1))


def _edit(guest: OldGuest) -> None:
    guest.config.write_text(f"{guest.config.read_text()}# edited\n")


@pytest.mark.parametrize("meanwhile", [_write_disk, _edit])
def test_what_changes_between_copy_and_exchange_stops_it(
    guest: OldGuest, meanwhile: Callable[[OldGuest], None]
) -> None:
    seen: list[dict[str, str]] = []

    def prove(configuration: Path) -> str:
        assert xl.parse(configuration.read_text(), strict=False).type == "pvh"
        meanwhile(guest)
        seen.append({path: one for path, one in stock(guest).items() if "domu" not in path})
        return "proven"

    with pytest.raises(InUseError):
        carry_out(guest, plan_of(guest), prove)
    left = stock(guest)
    assert left == {path: one for path, one in seen[0].items() if path in left}
    assert not guest.new_disk.parent.exists()


def test_a_guest_that_is_not_proven_stays_as_it_was(guest: OldGuest) -> None:
    before = stock(guest)

    def prove(_configuration: Path) -> str:
        raise GuestFailed("1 of 40 checks does not hold")

    with pytest.raises(GuestFailed):
        carry_out(guest, plan_of(guest), prove)
    assert stock(guest) == before
    assert not guest.new_disk.parent.exists()


def _state(guest: OldGuest) -> dict[str, str]:
    """By bytes, records without their times and copies by what is in them."""
    found = stock(guest)
    for path in found:
        if path.endswith(f"installed/{NAME}.json"):
            found[path] = "a record"
        elif path == str(guest.new_disk):
            assert is_clean(guest.new_disk)
            found[path] = "a copy"
    return found


@pytest.mark.parametrize("what", [WORD, "undo"])
def test_killed_at_every_step_it_is_the_old_guest_or_the_new_one(
    guest: OldGuest, tmp_path: Path, what: str
) -> None:
    layout, plan = Layout(guest.root), plan_of(guest)
    old = _state(guest)
    carry_out(guest, plan, lambda _configuration: "proven")
    new = _state(guest)
    assert xl.parse(guest.config.read_text(), strict=False).type == "pvh"

    def action() -> None:
        if what == WORD:
            carry_out(guest, plan, lambda _configuration: "proven")
        else:
            undo_rebuild(layout, NAME, None, word=WORD)

    if what == WORD:
        undo_rebuild(layout, NAME, None, word=WORD)
    shutil.copytree(guest.root, tmp_path / "before", symlinks=True)
    ended = {"old": 0, "new": 0}
    for at in range(1, MOST_STEPS, STRIDE):
        shutil.rmtree(guest.root)
        shutil.copytree(tmp_path / "before", guest.root, symlinks=True)
        status = run_and_kill(action, at)
        if status == SURVIVED:
            break
        assert status == -9, f"step {at}: ended with {status}"
        xl.parse(guest.config.read_text(), strict=False)  # there is always one
        recover_all(site_of(layout))
        assert not list_unfinished(site_of(layout))
        seen = _state(guest)
        assert seen in (old, new), f"killed at step {at}: {set(seen.items()) ^ set(new.items())}"
        ended["old" if seen == old else "new"] += 1
    print(f"{what}: {ended}")
    assert ended["old"] > 0
    assert ended["new"] > 0
    if what == WORD:
        assert require_installed(layout, NAME).previous is not None


def test_without_room_it_says_how_much_is_missing(guest: OldGuest) -> None:
    images = guest.root / "var/lib/xen/images"
    images.mkdir(parents=True)
    script = 'mount -t tmpfs -o size=64k none "$1" && shift && exec "$@"'
    words = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        str(images),
    ]
    words += [sys.executable, "-m", "doit", "modernize", f"cfg={guest.config}", "unproven=yes"]
    output = {"DOMU_OUTPUT": str(guest.root.parent / "output")}
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **output}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "MiB are needed for copies of its disks, 0 MiB are free" in done.stderr


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (lambda text: text.replace("'pygrub'", "open('x')"), 2, "no Python"),
        (
            lambda text: text.replace("name        = 'old1'", "name = 'other'"),
            2,
            "of the guest other",
        ),
        (lambda text: text.replace("swap.img", "gone.img"), 3, "put it back"),
        (lambda text: text.replace("file:{folder}/swap.img", "phy:/dev/zero"), 3, "neither a file"),
        (lambda text: text + "type = 'pvh'\n", 5, "PVH guest already"),
        (lambda text: text + "type = 'hvm'\nboot = 'c'\n", 5, "full PC"),
        (lambda text: text.replace("xvda1,w", "hda2,w"), 2, "would both be xvda2"),
        (
            lambda text: text.replace("file:{folder}/disk.img", "qcow2:{folder}/disk.img"),
            2,
            "no disk",
        ),
        (lambda text: text + "bootloader = 'pygrub'\n", 5, "more than once"),
    ],
)
def test_configurations_that_are_refused(
    guest: OldGuest, change: Callable[[str], str], code: int, text: str
) -> None:
    guest.make(change(PYGRUB))
    error = refused(guest, "unproven=yes")
    assert error.exit_code == code, error
    assert text in f"{error.brief} {error.hint}"


HOSTILE: dict[str, dict[str, str | bytes | None]] = {
    "links to the host": {
        "etc/network/interfaces": "-> /../../../../../../witness",
        "boot/grub/menu.lst": "-> /witness",
    },
    "a /boot that is a link": {"boot": "-> /witness-folder", "boot/grub/menu.lst": None},
    "no kernel for PVH": {"boot/vmlinuz-6.1.0-56-amd64": make_kernel(pvh=False)},
    "no root": {"etc/fstab": None, "etc/os-release": None},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_guest_whose_root_wants_the_host_changes_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    require(is_root(), "mounts a file system")
    more: dict[str, str | bytes | None] = {**HOSTILE[case]}
    if case.startswith("a /boot"):
        more["boot/vmlinuz-6.1.0-56-amd64"] = None
    guest = OldGuest(tmp_path / "domains", tmp_path / "root", more)
    guest.make()
    monkeypatch.setenv("DOMU_ROOT", str(guest.root))
    witness = Path("/witness")
    assert not witness.exists()

    error, said = ask(guest, "modernize", f"cfg={guest.config}", "unproven=yes")

    assert not witness.exists()
    if case != "links to the host":
        assert error is not None, said
        assert error.hint
        assert not guest.new_disk.exists()


def test_a_disk_that_is_another_than_planned_is_not_changed(guest: OldGuest) -> None:
    plan = plan_of(guest)
    change = replace(plan.changes[0], now="what it never was")
    before = stock(guest)
    with pytest.raises(PipelineError, match="not what it was"):
        carry_out(guest, replace(plan, changes=(change,)), lambda _configuration: "proven")
    assert stock(guest) == before
