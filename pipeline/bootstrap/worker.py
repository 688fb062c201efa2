"""The making of a tree, in a namespace and a process of its own: `python -m ... ORDER`.

Prints a line for every package and every step, for the stage's log and its progress bar.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.bootstrap.database import (
    Control,
    add_packages,
    begin_database,
    read_control,
    write_package,
)
from pipeline.bootstrap.deb import Member, read_deb, read_members
from pipeline.bootstrap.delivery import Intake
from pipeline.bootstrap.diversions import apply_diversions
from pipeline.bootstrap.epoch import find_epoch
from pipeline.bootstrap.filters import PathFilter
from pipeline.bootstrap.order import Deb, Order, arrivals, read_order
from pipeline.bootstrap.scripts import Chroot, keep_from_starting
from pipeline.bootstrap.skeleton import forbid_services, lay_out, mark_automatic, tidy
from pipeline.bootstrap.unpack import Tree
from pipeline.process import run
from pipeline.walls.errand import carry_out


@dataclass(frozen=True)
class Loaded:
    """A package in memory: what it is, and the entries of its tar with their content."""

    control: Control
    members: tuple[Member, ...]
    tar: bytes


def make_tree(table: dict[str, Any]) -> None:
    """Carry out an order: unpack what comes, configure, tidy, pack. Raises PipelineError."""
    os.umask(0o022)
    order = read_order(table)
    tree = Path(order.work) / "tree"
    lay_out(tree, order)
    begin_database(tree)
    mark_automatic(tree, order.automatic, order.arch)
    with Workshop(tree, order) as workshop:
        epoch = workshop.make()
    tidy(tree)
    with _step("pack"):
        _pack(tree, order, epoch)


class Workshop:
    """Two kinds of threads at work on one tree, and the scripts that run in it.

    While the scripts of the essential packages run on one core, the other packages arrive and are
    unpacked into memory; they come into the tree only afterwards, so what those scripts see does
    not depend on speed.
    """

    def __init__(self, tree: Path, order: Order) -> None:
        self._tree, self._order = tree, order
        self._place = Tree(tree)
        self._filter = PathFilter.of(order.unwanted)
        self._packages: dict[str, tuple[Control, Sequence[Member]]] = {}
        self._debs = sum(order.waves, ())
        self._intake = Intake(order.delivery, self._debs)
        self._unpackers = ThreadPoolExecutor(os.cpu_count() or 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._unpackers.shutdown(wait=True, cancel_futures=True)

    def make(self) -> int:
        """Bring all packages into the tree and configure them; SOURCE_DATE_EPOCH meanwhile."""
        essential, *others = self._order.waves
        first, rest, later_debs = arrivals(self._order.waves)
        with _step("essential packages, unpacked"):
            placed = [self._put(self._load(deb)) for deb in first]
            coming = [self._unpackers.submit(self._load_and_put, deb) for deb in rest]
            later = [self._unpackers.submit(self._load, deb) for deb in later_debs]
            self._note([*placed, *(one.result() for one in coming)])
        forbid_services(self._tree)
        lent = keep_from_starting(self._tree, Path(self._order.work))
        with _step("all packages, fetched"):
            epoch = find_epoch(self._intake.await_file(deb).result() for deb in self._debs)
        chroot = Chroot(self._tree, epoch=epoch, lent=lent)
        with _step("essential packages, configured"):
            self._prepare(chroot, essential)
            chroot.configure([self._label(deb) for deb in essential])
        with _step("other packages, unpacked"):
            self._note(self._unpackers.map(self._put_coming, later))
            later.clear()  # 100 MB
        with _step("other packages, configured"):
            for wave in others:
                self._prepare(chroot, wave)
                if wave is not others[-1]:
                    chroot.configure([self._label(deb) for deb in wave])
            chroot.configure_rest()
        return epoch

    def _load(self, deb: Deb) -> Loaded:
        file = self._intake.await_file(deb).result()
        archive = read_deb(file, name=deb.name, installed_kib=deb.installed_kib)
        control = read_control(
            archive, name=deb.name, version=deb.version, architecture=deb.architecture
        )
        return Loaded(control, tuple(read_members(archive.files, name=deb.name)), archive.files)

    def _load_and_put(self, deb: Deb) -> Loaded:
        return self._put(self._load(deb))

    def _put_coming(self, coming: Future[Loaded]) -> Loaded:
        return self._put(coming.result())

    def _put(self, one: Loaded) -> Loaded:
        """Place a package's files; what it holds in memory is let go."""
        name, tar = one.control.name, one.tar
        for member in one.members:
            if not self._filter.skips(member):
                self._place.place(member, tar, package=name, pending=one.control.conffiles)
        write_package(self._tree, one.control, one.members, tar)
        print(f"Unpacking {name}", flush=True)
        return Loaded(one.control, one.members, b"")

    def _note(self, placed: Iterable[Loaded]) -> None:
        """Enter packages whose files are in the tree into dpkg's database."""
        new = {one.control.name: (one.control, one.members) for one in placed}
        self._place.settle()
        add_packages(self._tree, new)
        self._packages |= new
        apply_diversions(self._tree, self._packages)

    def _label(self, deb: Deb) -> str:
        return self._packages[deb.name][0].label

    def _prepare(self, chroot: Chroot, wave: Sequence[Deb]) -> None:
        """Run the preinst of those that have one, then do what they divert."""
        version = self._packages["dpkg"][0].fields["version"]
        # base-passwd's makes /etc/passwd, without which others cannot name an owner
        for deb in sorted(wave, key=lambda deb: (deb.name != "base-passwd", deb.name)):
            control = self._packages[deb.name][0]
            if control.has_working_preinst:
                chroot.run_preinst(control, version=version)
        apply_diversions(self._tree, self._packages)


def _pack(tree: Path, order: Order, epoch: int) -> None:
    """The tar that mmdebstrap would write: sorted, nothing younger than the epoch."""
    form = ["--sort=name", f"--mtime=@{epoch}", "--clamp-mtime", "--numeric-owner"]
    form += ["--one-file-system", "--format=pax", "--xattrs"]
    form += ["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"]
    run(["tar", *form, "-C", tree, "-cf", order.tar, "."])


@contextmanager
def _step(name: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    print(f"step {name}: {time.monotonic() - begun:.2f} s", flush=True)


if __name__ == "__main__":
    sys.exit(carry_out(make_tree))
