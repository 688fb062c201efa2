"""The repository copied to where it is served from: a folder, s3, sftp, whatever fsspec knows.

What a name says for ever (a digest, a number) comes first and is not sent twice; timestamp.json is
last, under another name until it is whole. Until then whoever looks sees the state before.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs

from pipeline.console.progress import progress_bar
from pipeline.errors import EnvironmentFault, PipelineError, UsageError
from pipeline.project import Project
from pipeline.repository.metadata import TIMESTAMP, held

_ASIDE = f"{TIMESTAMP}.new"
_FOLDERS = ("targets/", "metadata/")


def upload(project: Project, url: str) -> int:
    """Bring the copy at `url` up to date; returns how many bytes were sent.

    Raises UsageError for a kind of place that is not known or a repository that is not there,
    EnvironmentFault for a library that is missing, PipelineError for what the place answers.
    """
    if not (project.repository / TIMESTAMP).is_file():
        raise UsageError(
            f"{project.repository}: no repository yet", hint="doit keys, then doit publish"
        )
    try:
        place, base = url_to_fs(url)
        with held(project, is_shared=True):
            return _Upload(project.repository, place, base.rstrip("/")).run()
    except ImportError as error:
        raise EnvironmentFault(
            f"{url}: {error}", hint="put the library that it names into .venv with pip"
        ) from error
    except ValueError as error:
        known = ", ".join(["file", "sftp", "s3"])
        raise UsageError(
            f"{url}: {error}", hint=f"places are {known} and fsspec's others"
        ) from error
    except PipelineError:
        raise
    except Exception as error:  # noqa: BLE001 - each of fsspec's libraries has errors of its own
        raise PipelineError(
            f"{url}: {str(error)[:300] or type(error).__name__}",
            hint="what is served there is the state before; again when it is mended",
        ) from error


class _Upload:
    def __init__(self, root: Path, place: fsspec.AbstractFileSystem, base: str) -> None:
        self._root, self._place, self._base = root, place, base

    def run(self) -> int:
        own = dict(self._list_own())
        there = dict(self._list_there())
        new = [name for name, size in own.items() if there.get(name) != size and name != TIMESTAMP]
        total = sum(own[name] for name in new) + own[TIMESTAMP]
        with progress_bar("uploading", total=total, unit="B") as bar:
            # targets before what speaks of them
            for name in sorted(new, key=lambda name: (name.startswith("metadata/"), name)):
                self._put(name, name)
                bar.advance(own[name])
            self._put(TIMESTAMP, _ASIDE)
            self._place.mv(self._at(_ASIDE), self._at(TIMESTAMP))
            bar.advance(own[TIMESTAMP])
        for name in there.keys() - own.keys() - {_ASIDE}:
            if name.startswith(_FOLDERS):
                self._place.rm_file(self._at(name))
        return total

    def _at(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _put(self, name: str, target: str) -> None:
        self._place.makedirs(self._at(target).rpartition("/")[0], exist_ok=True)
        self._place.put_file(str(self._root / name), self._at(target))

    def _list_own(self) -> Iterator[tuple[str, int]]:
        for path in self._root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(self._root).as_posix(), path.stat().st_size

    def _list_there(self) -> Iterator[tuple[str, int]]:
        self._place.invalidate_cache()
        if not self._place.exists(self._base):
            return
        found: Mapping[str, Mapping[str, object]] = self._place.find(self._base, detail=True)
        for path, facts in found.items():
            size = facts.get("size")
            yield path.removeprefix(self._base).lstrip("/"), size if isinstance(size, int) else -1
