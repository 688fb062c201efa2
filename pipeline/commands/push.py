"""`doit push`: a guest with a whole disk into a pool of XCP-ng or XenServer, as an XVA."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from pipeline.artifact.published import require_version
from pipeline.commands.export import prepared
from pipeline.commands.fleet_options import Push
from pipeline.commands.host import describe_fault
from pipeline.console.answer import ANSWER
from pipeline.console.progress import print_line, progress_bar
from pipeline.errors import UsageError
from pipeline.files import open_plain
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.remote.xapi_pool import Access, Pool
from pipeline.walls.privacy import read_secret_line

PASSWORD = "DOMU_XAPI_PASSWORD"
_MIB = 1 << 20
_CHUNK = 1 << 20
Write = Callable[[IO[bytes]], None]


class _Length:
    """How much is written; nothing of it is kept. Told in MiB, as it grows."""

    def __init__(self, told: Callable[[int], None] = lambda mib: None) -> None:
        self.total = 0
        self._told = told

    def write(self, content: bytes | memoryview) -> int:
        """Only counted."""
        before = self.total // _MIB
        self.total += len(content)
        self._told(self.total // _MIB - before)
        return len(content)


def push(recipe: Recipe, _specs: Mapping[str, object], asked: Push) -> None:
    """Import it there; what was half there is undone by the pool."""
    access = Access(
        user=asked.user,
        password=_read_password(asked),
        certificate=asked.certificate,
        fingerprint=asked.fingerprint,
    )
    try:
        with _machine(recipe.project, asked) as write:
            _push(asked, access, write)
    except OSError as error:
        raise describe_fault(error) from error


def _push(asked: Push, access: Access, write: Write) -> None:
    size = _Length()
    write(cast(IO[bytes], size))
    pool = Pool(asked.host, access).log_in()
    try:
        storage = pool.find_storage(asked.sr)
        mib = size.total // _MIB
        with progress_bar(f"to {pool.host}", total=mib, unit=" MiB") as bar:

            def send(target: IO[bytes]) -> None:
                write(cast(IO[bytes], _Both(target, _Length(bar.advance))))

            machine = pool.import_machine(send, size.total, label=asked.name, storage=storage)
    finally:
        pool.log_out()
    ANSWER.add(asked.name, host=pool.host, uuid=machine.uuid, bytes=size.total)
    print_line(f"{machine.label} is at {pool.host}: {machine.uuid}, {size.total / 1e6:.1f} MB sent")
    print_line("  it has no network card yet; there:")
    print_line(f"  xe vif-create vm-uuid={machine.uuid} network-uuid=... device=0")


class _Both:
    """What is written is sent and counted."""

    def __init__(self, target: IO[bytes], length: _Length) -> None:
        self._target, self._length = target, length

    def write(self, content: bytes | memoryview) -> int:
        """All of it."""
        self._target.write(content)
        return self._length.write(content)


@contextmanager
def _machine(project: Project, asked: Push) -> Iterator[Write]:
    """What writes the XVA, as often as one asks: a file's bytes, or made of a guest's disk.

    Raises UsageError where there is none, or its disk is a bare file system.
    """
    with ExitStack() as stack:
        if isinstance(asked.source, Path):
            if not asked.source.is_file():
                raise UsageError(f"{asked.source} is not there", hint="from=FILE.xva")
            stream = stack.enter_context(open(open_plain(asked.source), "rb"))
            yield partial(_copy, stream)
            return
        is_published = asked.source == "published"
        folder = (
            require_version(project, asked.name).folder
            if is_published
            else project.artifact(asked.name)
        )
        bench, disks = stack.enter_context(prepared(project, folder, asked.name, "xva"))
        bench.refuse_bare(disks[0])

        def write(target: IO[bytes]) -> None:
            bench.write_disk(disks[0], target, asked.name, lambda _count: None, is_pipe=True)

        yield write


def _copy(stream: IO[bytes], target: IO[bytes]) -> None:
    stream.seek(0)
    shutil.copyfileobj(stream, target, _CHUNK)


def _read_password(asked: Push) -> str:
    if asked.password:
        return read_secret_line(asked.password, "password").decode("utf-8", "surrogateescape")
    if password := os.environ.get(PASSWORD):
        return password
    raise UsageError(
        f"the password of {asked.user} is not known",
        hint=f"password=FILE, or {PASSWORD} in the environment",
    )
