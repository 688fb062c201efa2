"""A kernel package needs no script to do harm; here none does, and each says what is wrong."""

import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline import process
from pipeline.errors import PipelineError
from pipeline.kernel.assembly import Order
from pipeline.walls.cage import make_room
from pipeline.walls.errand import send
from tests.host.crafted_kernels import ABI, CASES, make_package, whole

pytestmark = pytest.mark.integration
SECRET = "the host's own line"


def assemble(folder: Path, name: str, witness: Path) -> Path:
    """Put a crafted kernel together as the stage does; returns the room."""
    craft = CASES[name] if name in CASES else (lambda contents, _witness: whole(contents))
    deb = make_package(folder / "kernel.deb", craft, witness)
    initrd = folder / "initrd"
    initrd.write_bytes(b"given")
    room = make_room(folder / "room")
    order = Order(
        room=str(room), debs=(str(deb),), name="evil", epoch=1, fs="ext4", initrd=str(initrd)
    )
    send(
        "pipeline.kernel.assembly",
        asdict(order),
        file=folder / "order.json",
        room=room,
        run=process.run,
        readable=[deb, initrd],
    )
    return room


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    folder = tmp_path / "witness"
    folder.mkdir()
    (folder / "file").write_text(f"{SECRET}\n")
    return folder


def test_a_kernel_that_is_right_is_put_together(tmp_path: Path, witness: Path) -> None:
    room = assemble(tmp_path, "right", witness)
    assert (room / "vmlinuz").read_bytes().startswith(b"kernel")
    assert (room / "modules.tar").stat().st_size > 0
    assert ABI in (room / "facts.json").read_text()


def test_a_link_among_the_modules_stays_one(tmp_path: Path, witness: Path) -> None:
    room = assemble(tmp_path, "a link beside", witness)
    listed = process.run(["tar", "-tvf", room / "modules.tar"])
    assert "vdso/a.debug -> ../modules.builtin" in listed


@pytest.mark.parametrize("name", sorted(set(CASES) - {"a link beside"}))
def test_a_crafted_kernel_harms_nothing(tmp_path: Path, witness: Path, name: str) -> None:
    before = (witness.stat().st_mtime_ns, os.listdir(witness), (witness / "file").stat())
    begun = time.monotonic()
    try:
        room = assemble(tmp_path, name, witness)
    except PipelineError as error:
        said = f"{error.brief}\n{error.details}"
        assert "Traceback" not in said, said
        assert "\n" not in error.brief
    else:
        for path in room.iterdir():
            if path.is_file() and not path.is_symlink():
                assert SECRET.encode() not in path.read_bytes(), path.name
                assert b"root:" not in path.read_bytes(), path.name
    assert time.monotonic() - begun < 30
    after = (witness.stat().st_mtime_ns, os.listdir(witness), (witness / "file").stat())
    assert after[:2] == before[:2]
    assert after[2].st_mtime_ns == before[2].st_mtime_ns and after[2].st_nlink == 1
