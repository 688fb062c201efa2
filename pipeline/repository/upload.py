"""The repository copied to where it is served from: a folder, s3, sftp, whatever fsspec knows.

What a name says for ever (a digest, a number) comes first and is not sent twice; timestamp.json is
last, under another name until it is whole. Until then whoever looks sees the state before.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.console.progress import progress_bar
from pipeline.errors import UsageError
from pipeline.project import Project
from pipeline.remote.place import Place, PlaceTrouble, open_place
from pipeline.repository.metadata import TIMESTAMP, held

_FOLDERS = ("targets/", "metadata/")


def upload(project: Project, url: str) -> int:
    """Bring the copy at `url` up to date; returns how many bytes were sent.

    Raises UsageError for a kind of place that is not known or a repository that is not there,
    EnvironmentFault for a library that is missing, PlaceTrouble for what the place answers.
    """
    if not (project.repository / TIMESTAMP).is_file():
        raise UsageError(
            f"{project.repository}: no repository yet", hint="doit keys, then doit publish"
        )
    place = open_place(url)
    with held(project, is_shared=True):
        try:
            return _upload(project.repository, place)
        except PlaceTrouble as error:
            error.hint = f"{error.hint}; what is served there is the state before"
            raise


def _upload(root: Path, place: Place) -> int:
    own = dict(_list_own(root))
    there = {listed.name: listed.size for listed in place.list("")}
    new = [name for name, size in own.items() if there.get(name) != size and name != TIMESTAMP]
    total = sum(own[name] for name in new) + own[TIMESTAMP]
    with progress_bar("uploading", total=total, unit="B") as bar:
        # targets before what speaks of them
        for name in sorted(new, key=lambda name: (name.startswith("metadata/"), name)):
            place.put(root / name, name)
            bar.advance(own[name])
        place.replace(TIMESTAMP, (root / TIMESTAMP).read_bytes())
        bar.advance(own[TIMESTAMP])
    for name in there.keys() - own.keys():
        if name.startswith(_FOLDERS):
            place.remove(name)
    return total


def _list_own(root: Path) -> Iterator[tuple[str, int]]:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(root).as_posix(), path.stat().st_size
