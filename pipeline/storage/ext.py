"""Writing files into an ext2, ext3 or ext4 file system that is not mounted, by debugfs(8)."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import PipelineError
from pipeline.storage.ext_image import ExtImage
from pipeline.walls.cage import caged_reader
from pipeline.walls.privacy import make_private

Run = Callable[..., str]
_MOST_TEXT = 1 << 20
_PLAIN = re.compile(r"[A-Za-z0-9/._+@:,=~-]+")  # what a script may hold
_HINT = "an element left it so: look into its scripts"


def fixed_clock(epoch: int) -> dict[str, str]:
    """The environment under which e2fsprogs writes no time of its own."""
    return {"SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch)}


def run_debugfs(run: Run, image: Path, script: Path, epoch: int) -> None:
    """Apply a debugfs script; debugfs ends with 0 even after a failure, so its words count."""
    argv = ["debugfs", "-w", "-f", script, image]
    walled = caged_reader(argv, readable=[script.parent], writable=[image])
    output = run(walled, env=fixed_clock(epoch))
    refuse_complaints(output, image.name)


def refuse_complaints(output: str, name: str) -> None:
    """Raises PipelineError when debugfs said anything but what it did."""
    for line in output.splitlines():
        if line and not line.startswith(("debugfs", "Allocated inode:")):
            raise PipelineError(f"{name}: debugfs says: {line}")


def read_text(image: Path, path: str) -> str:
    """The content of one file in the image; raises PipelineError when it is not there."""
    with ExtImage(image) as tree:
        found = tree.find(path)
        if found is None or found.kind != "file":
            raise PipelineError(f"{image.name}: no {path} in it", hint=_HINT)
        return tree.read(found, limit=_MOST_TEXT).decode("utf-8", "replace")


@dataclass(frozen=True)
class Places:
    """Where paths lead in an image: each folder's own path, and which files are there."""

    folders: dict[str, str]
    present: frozenset[str]

    def of(self, path: str) -> str:
        """A path whose folder goes through no link: debugfs does not follow every one."""
        parent, _, name = path.rpartition("/")
        return f"{self.folders.get(parent, parent)}/{name}"


def find_places(image: Path, parents: Iterable[str], paths: Iterable[str]) -> Places:
    """Which of these folders and files exist, and where, links followed inside the image.

    Raises PipelineError where an element left something else: a folder that is a file or a link to
    nowhere, a file that is a folder.
    """
    folders: dict[str, str] = {}
    present: set[str] = set()
    with ExtImage(image) as tree:
        for path in parents:
            found = tree.resolve(path)
            if found is not None and found[1].kind == "folder":
                if not _PLAIN.fullmatch(found[0]):
                    raise PipelineError(f"the guest's {path} leads to {found[0]!r}", hint=_HINT)
                folders[path] = found[0]
            elif found is not None or tree.find(path, follow_last=False) is not None:
                what = "is no folder" if found else "is a link to what is not there"
                raise PipelineError(f"the guest's {path} {what}", hint=_HINT)
        for path in paths:
            last = tree.find(path, follow_last=False)
            if last is not None and last.kind == "folder":
                raise PipelineError(f"the guest's {path} is a folder", hint=_HINT)
            present |= {path} if last else set()
    return Places(folders, frozenset(present))


def write_files(
    run: Run, image: Path, files: Iterable[IdentityFile], *, work: Path, epoch: int
) -> None:
    """Write files with root as owner, `epoch` as every time; missing parents are made, mode 0755.

    /root/.ssh is made with mode 0700. Raises PipelineError with debugfs's own words.
    """
    run_debugfs(run, image, plan_writing(image, files, work=work, epoch=epoch), epoch)


def plan_writing(image: Path, files: Iterable[IdentityFile], *, work: Path, epoch: int) -> Path:
    """The debugfs script that writes these files into this image or one with the same tree."""
    entries = list(files)
    script = work / "script"
    parents = sorted({str(parent) for entry in entries for parent in _parents(entry.path)})
    places = find_places(image, parents, (entry.path for entry in entries))
    lines: list[str] = []
    for parent in parents:
        if parent not in places.folders:
            mode = 0o700 if parent.endswith("/.ssh") else 0o755
            path = places.of(parent)
            lines += [f'mkdir "{path}"', *_attributes(path, stat.S_IFDIR | mode, epoch)]
    for number, entry in enumerate(entries):
        path = places.of(entry.path)
        if entry.path in places.present:
            lines.append(f'rm "{path}"')
        if entry.link:
            lines.append(f'symlink "{path}" "{entry.link}"')
            continue
        source = work / f"file-{number}"
        make_private(source).write_bytes(entry.content)
        lines.append(f'write "{source}" "{path}"')
        lines += _attributes(path, stat.S_IFREG | entry.mode, epoch)
    script.write_text("\n".join(lines) + "\n")
    return script


def _parents(path: str) -> list[PurePosixPath]:
    return [parent for parent in PurePosixPath(path).parents if str(parent) != "/"]


def _attributes(path: str, mode: int, epoch: int) -> list[str]:
    group = 42 if path.endswith("/shadow") else 0  # shadow's group id is fixed in base-passwd
    values = {"mode": f"0{mode:o}", "uid": "0", "gid": str(group)}
    values |= dict.fromkeys(("atime", "ctime", "mtime", "crtime"), f"@{epoch}")
    return [f'sif "{path}" {name} {value}' for name, value in values.items()]


@dataclass(frozen=True)
class IdentityFile:
    """One file in the guest: absolute path, content, permission bits; a link when `link` is set."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    link: str = ""
