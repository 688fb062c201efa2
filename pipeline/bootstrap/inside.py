"""The making of a tree, in a namespace and a process of its own: `python -m ... ORDER`.

Prints a line for every package and every step, for the stage's log and its progress bar; a failure
that the user can mend is the last line, as JSON after `order.FAILURE`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.bootstrap.archive import Member, read_deb, read_members
from pipeline.bootstrap.database import (
    ADMIN,
    Control,
    read_control,
    write_database,
    write_package,
)
from pipeline.bootstrap.dependencies import Dependencies
from pipeline.bootstrap.diversions import apply_diversions
from pipeline.bootstrap.order import FAILURE, Deb, Order, read_order
from pipeline.bootstrap.scripts import Chroot, mounted
from pipeline.bootstrap.skeleton import forbid_services, lay_out, mark_automatic, tidy
from pipeline.bootstrap.unpacking import Tree
from pipeline.command import run
from pipeline.errors import PipelineError
from pipeline.fetch import fetch_file

CONNECTIONS = 4
_FIRST = "base-files"  # has the links of / where the suite ships them


@dataclass(frozen=True)
class Unpacked:
    """A package whose files are in the tree."""

    control: Control
    members: tuple[Member, ...]


def main(path: Path) -> int:
    """Carry out the order in a file; returns the exit status."""
    os.umask(0o022)
    try:
        make_tree(read_order(path))
    except PipelineError as error:
        table = {"brief": error.brief, "details": error.details, "hint": error.hint}
        print(f"{FAILURE}{json.dumps(table)}", flush=True)
        return 1
    return 0


def make_tree(order: Order) -> None:
    """Fetch, unpack, configure, tidy, pack. Raises PipelineError."""
    work = Path(order.work)
    tree = work / "tree"
    with _step("fetch and unpack"):
        lay_out(tree, order)
        found = _unpack_all(tree, order)
        controls = [one.control for one in found]
        write_database(tree, controls)
    with _step("maintainer scripts"):
        dependencies = Dependencies(controls)
        mark_automatic(tree, set(order.automatic) - dependencies.essential, order.arch)
        forbid_services(tree)
        with mounted(tree, work):
            _configure(tree, found, dependencies.waves(), epoch=order.epoch)
        tidy(tree)
    with _step("pack"):
        _pack(tree, order)


def _unpack_all(tree: Path, order: Order) -> list[Unpacked]:
    """Unpack on every core what four connections fetch, the largest first."""
    place = Tree(tree)
    first = [deb for deb in order.debs if deb.name == _FIRST]
    rest = sorted((deb for deb in order.debs if deb.name != _FIRST), key=lambda deb: -deb.size)
    with (
        ThreadPoolExecutor(CONNECTIONS) as fetchers,
        ThreadPoolExecutor(os.cpu_count() or 1) as unpackers,
    ):
        coming = [(deb, fetchers.submit(_fetch, deb, order)) for deb in (*first, *rest)]
        try:
            found = [_unpack(place, *one) for one in coming[: len(first)]]
            found += unpackers.map(lambda one: _unpack(place, *one), coming[len(first) :])
        except BaseException:
            fetchers.shutdown(wait=False, cancel_futures=True)
            unpackers.shutdown(wait=False, cancel_futures=True)
            raise
    place.settle()
    return found


def _fetch(deb: Deb, order: Order) -> Path:
    target = Path(order.cache) / deb.sha256
    return fetch_file(deb.url, target, size=deb.size, sha256=deb.sha256)


def _unpack(tree: Tree, deb: Deb, coming: Future[Path]) -> Unpacked:
    archive = read_deb(coming.result(), name=deb.name)
    control = read_control(archive, name=deb.name)
    members = tuple(read_members(archive.files, name=deb.name))
    for member in members:
        tree.place(member, archive.files, package=deb.name, pending=control.conffiles)
    write_package(Path(tree.root) / ADMIN / "info", control, members, archive.files)
    print(f"Unpacking {deb.name}", flush=True)
    return Unpacked(control, members)


def _configure(tree: Path, found: list[Unpacked], waves: list[set[str]], *, epoch: int) -> None:
    chroot = Chroot(tree, epoch=epoch)
    by_name = {one.control.name: one.control for one in found}
    shipped = {one.control.name: one.members for one in found}
    version = by_name["dpkg"].fields["Version"]
    waiting = {name for name, control in by_name.items() if "preinst" in control.files}
    for wave in waves:
        # base-passwd's makes /etc/passwd, without which others cannot name an owner
        for name in sorted(wave & waiting, key=lambda name: (name != "base-passwd", name)):
            chroot.run_preinst(by_name[name], version=version)
        waiting -= wave
        apply_diversions(tree, shipped)
        if wave is not waves[-1]:
            chroot.configure(sorted(by_name[name].label for name in wave))
    chroot.configure_rest()


def _pack(tree: Path, order: Order) -> None:
    """The tar that mmdebstrap would write: sorted, nothing younger than the epoch."""
    form = ["--sort=name", f"--mtime=@{order.epoch}", "--clamp-mtime", "--numeric-owner"]
    form += ["--one-file-system", "--format=pax", "--xattrs"]
    form += ["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"]
    run(["tar", *form, "-C", tree, "-cf", order.tar, "."])


@contextmanager
def _step(name: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    print(f"step {name}: {time.monotonic() - begun:.2f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
