"""kill -9 at every step of replacing a guest: the old one is whole, or the new one."""

import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipeline import process
from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.process import run
from pipeline.project import Project
from pipeline.storage import lvm, staged_volume, switch
from pipeline.storage.block_device import write_image
from pipeline.storage.leftovers import find_leftovers, remove_leftovers
from pipeline.storage.written import Written, read_record
from pipeline.store.store import exchange
from tests import small
from tests.lvm.inside.conftest import FIRST, STRIDE, make_project, remove_guests
from tests.turns import spread

DISK = Path("/dev/VG0/web1-disk")
WHOLE = 'disk = "whole"\nboot = "grub"\n'


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Run in a child that dies by SIGKILL before its N-th command; False when it came to an end."""
    child = os.fork()
    if child == 0:
        small.kill_at(number)
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the child's own, which nobody else would see
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def await_switch(project: Project) -> None:
    """A switch that was begun goes on without its build; wait for its lock, or its end."""
    journal = switch.site_of(project.output).journal_of("web1")
    for _ in range(300):
        if not journal.exists():
            break
        time.sleep(0.1)


def is_whole(project: Project, versions: set[str]) -> str:
    """The guest's version, when its disk, its folder and its configuration are one guest."""
    found = small.version_of(DISK)
    assert found in versions
    text = (project.artifact("web1") / "web1.cfg").read_text()
    assert f"target={DISK}" in text
    record = (project.artifact("web1") / "stages.json").read_text()
    assert f'"version": "{found}"' in record
    return found


@pytest.mark.parametrize(
    ("text", "disks", "stride"),
    [("", {"web1-disk", "web1-swap"}, STRIDE), (WHOLE, {"web1-disk"}, 2 * STRIDE)],
    ids=["file systems", "whole"],
)
def test_a_build_that_is_killed_leaves_the_old_guest_or_the_new(
    group: str, tmp_path: Path, text: str, disks: set[str], stride: int
) -> None:
    project = make_project(tmp_path, "web1", text=f'lvm = "VG0"\n{text}')
    small.build(project, "web1", "1")
    kills, olds, news, number = 0, 0, 0, FIRST
    version = 1
    while True:
        wanted = str(version + 1)
        if not killed_at(number, partial(small.build, project, "web1", wanted)):
            break
        kills += 1
        await_switch(project)
        now = is_whole(project, {str(version), wanted})
        olds, news = (olds + 1, news) if now == str(version) else (olds, news + 1)
        version = int(now)
        number += stride
    list(remove_leftovers(project))
    assert is_whole(project, {wanted}) == wanted
    assert {found.name for found in lvm.list_volumes(run)} == disks
    assert not find_leftovers(project)
    print(f"killed {kills} times: {olds} times the old guest was whole, {news} times the new")
    assert kills >= 10 // stride and olds == kills
    remove_guests(project)


def test_a_build_that_is_killed_while_names_change_is_the_new_guest(
    group: str, tmp_path: Path
) -> None:
    """The process that renames goes on without the build that started it."""
    project = make_project(tmp_path, "web1", text='lvm = "VG0"\n')
    small.build(project, "web1", "1")
    start = process.start_daemon

    def die_after_it(argv, **options):  # type: ignore[no-untyped-def]
        start(argv, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    process.start_daemon = die_after_it
    try:
        assert killed_at(0, partial(small.build, project, "web1", "2"))
    finally:
        process.start_daemon = start
    await_switch(project)
    assert is_whole(project, {"2"}) == "2"
    list(remove_leftovers(project))
    assert {found.name for found in lvm.list_volumes(run)} == {"web1-disk", "web1-swap"}
    remove_guests(project)


def build_with_a_cut_switch(project: Project, version: str, number: int) -> bool:
    """The process that renames dies before its N-th command; False when it had fewer."""
    start, cut = process.start_daemon, []

    def die_in_it(argv, **options):  # type: ignore[no-untyped-def]
        cut.append(killed_at(number, partial(switch.finish_switch, project, "web1")))
        return start(["true"], **options)

    process.start_daemon = die_in_it
    try:
        small.build(project, "web1", version)
    except PipelineError:
        assert cut == [True]
    finally:
        process.start_daemon = start
    return cut == [True]


def test_a_switch_that_a_power_failure_cuts_is_carried_on(group: str, tmp_path: Path) -> None:
    """The process that renames is killed itself: whoever comes next finishes what it began."""
    project = make_project(tmp_path, "web1", text='lvm = "VG0"\n')
    small.build(project, "web1", "1")
    number, version = FIRST % 3 + 1, 1
    while True:
        wanted = str(version + 1)
        cut = build_with_a_cut_switch(project, wanted, number)
        done = list(remove_leftovers(project))
        assert is_whole(project, {wanted}) == wanted
        version += 1
        if not cut:
            break
        assert "switch of web1: finished" in done
        number += max(STRIDE // 2, 1)
    assert {found.name for found in lvm.list_volumes(run)} == {"web1-disk", "web1-swap"}
    remove_guests(project)


def older_journal(project: Project) -> dict[str, object]:
    """The journal of a switch that waits, in the form of the version before."""
    journal = switch.site_of(project.output).journal_of("web1")
    (exchange,) = (
        step for step in json.loads(journal.read_text())["finish"] if step["kind"] == "exchange"
    )
    built = read_record(project.volume("web1"))
    return {
        "guest": "web1",
        "waiting": exchange["source"],
        "final": exchange["path"],
        "buildinfo": exchange["digest"],
        "volumes": [[disk.group, disk.uuid, disk.path.name] for disk in built],
    }


@pytest.mark.parametrize("done", spread(range(6), 3))
def test_a_switch_that_an_earlier_version_began_is_finished(
    group: str, tmp_path: Path, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `done` of its steps, which were: names aside, new names, the folder, removals."""
    project = make_project(tmp_path, "web1", text='lvm = "VG0"\n')
    small.build(project, "web1", "1")
    start = process.start_daemon
    monkeypatch.setattr(process, "start_daemon", lambda _argv, **more: start(["true"], **more))
    with pytest.raises(PipelineError, match="could not be renamed"):
        small.build(project, "web1", "2")
    monkeypatch.undo()
    journal = older_journal(project)
    switch.site_of(project.output).journal_of("web1").write_text(json.dumps(journal))
    staged = {disk.path.name: disk.staged for disk in read_record(project.volume("web1"))}
    steps: list[Callable[[], object]] = []
    for final, new in staged.items():
        aside = f"{final}.old-{new.rpartition('-')[2]}"
        steps.append(partial(lvm.rename_volume, run, group, final, aside))
        steps.append(partial(lvm.rename_volume, run, group, new, final))
    steps.append(lambda: exchange(Path(str(journal["waiting"])), Path(str(journal["final"]))))
    for step in steps[:done]:
        step()
    assert "switch of web1: finished" in list(remove_leftovers(project))
    assert is_whole(project, {"2"}) == "2"
    assert {found.name for found in lvm.list_volumes(run)} == {"web1-disk", "web1-swap"}
    remove_guests(project)


def test_a_full_pool_in_the_middle_of_the_write_is_one_error(
    group: str, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room was there when it was looked for: then another volume took it."""
    run(["lvchange", *lvm.udevless(), "--errorwhenfull", "y", f"{group}/{pool}"])
    text = 'lvm = "VG0"\nlvm_thin = "pool"\n'
    project = make_project(tmp_path, "web1", text=text)
    small.build(project, "web1", "1")
    hog = lvm.create_volume(run, group, "hog", size_bytes=63 << 20, pool=pool)

    def write_late(image: Path, device: Path, *, is_zeroed: bool = False) -> Written:
        run(["dd", "if=/dev/zero", f"of={hog.path}", "bs=1M", "conv=fsync"], accept=(0, 1))
        return write_image(image, device, is_zeroed=is_zeroed)

    monkeypatch.setattr(staged_volume, "write_image", write_late)
    with pytest.raises(EnvironmentFault) as caught:
        small.build(project, "web1", "2")
    assert "after a part was written" in caught.value.brief and "lvextend" in caught.value.hint
    monkeypatch.undo()
    lvm.remove_volume(run, hog)
    assert small.version_of(DISK) == "1"
    names = {found.name for found in lvm.list_volumes(run)}
    assert names == {"web1-disk", "web1-swap", pool}
    remove_guests(project)
