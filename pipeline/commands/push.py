"""`doit push`: a guest's XVA into a pool of XCP-ng or XenServer."""

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.artifact.published import require_version
from pipeline.commands.push_options import Push
from pipeline.console.answer import ANSWER
from pipeline.console.progress import print_line, progress_bar
from pipeline.errors import UsageError
from pipeline.files import open_plain
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.remote.xapi_pool import Access, Pool
from pipeline.walls.privacy import read_secret_line

PASSWORD = "DOMU_XAPI_PASSWORD"  # noqa: S105 - the name of a variable
_MIB = 1 << 20


def push(recipe: Recipe, _specs: Mapping[str, object], asked: Push) -> None:
    """Import it there; what was half there is undone by the pool."""
    path = _find_xva(recipe.project, asked)
    access = Access(
        user=asked.user,
        password=_read_password(asked),
        certificate=asked.certificate,
        fingerprint=asked.fingerprint,
    )
    with open(open_plain(path), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        pool = Pool(asked.host, access).log_in()
        try:
            storage = pool.find_storage(asked.sr)
            with progress_bar(f"to {pool.host}", total=size // _MIB, unit=" MiB") as bar:
                done = 0

                def sent(count: int) -> None:
                    nonlocal done
                    bar.advance((done + count) // _MIB - done // _MIB)
                    done += count

                machine = pool.import_machine(
                    stream, size, label=asked.name, storage=storage, sent=sent
                )
        finally:
            pool.log_out()
    ANSWER.add(asked.name, host=pool.host, uuid=machine.uuid, bytes=size)
    print_line(f"{machine.label} is at {pool.host}: {machine.uuid}, {size / 1e6:.1f} MB sent")
    print_line("  it has no network card yet; there:")
    print_line(f"  xe vif-create vm-uuid={machine.uuid} network-uuid=... device=0")


def _find_xva(project: Project, asked: Push) -> Path:
    """Raises UsageError where there is none."""
    name = f"{asked.name}.xva"
    if isinstance(asked.source, Path):
        path = asked.source
    elif asked.source == "published":
        path = require_version(project, asked.name).folder / name
    else:
        path = project.artifact(asked.name) / name
    if not path.is_file():
        raise UsageError(
            f"{path} is not there",
            hint=f"format = 'xva' in its spec, then doit build name={asked.name}; or "
            f"doit export name={asked.name} format=xva to=FILE, and from=FILE",
        )
    return path


def _read_password(asked: Push) -> str:
    if asked.password:
        return read_secret_line(asked.password, "password").decode("utf-8", "surrogateescape")
    if password := os.environ.get(PASSWORD):
        return password
    raise UsageError(
        f"the password of {asked.user} is not known",
        hint=f"password=FILE, or {PASSWORD} in the environment",
    )
