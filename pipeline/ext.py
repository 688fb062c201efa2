"""Writing files into an ext2, ext3 or ext4 file system that is not mounted, by debugfs(8)."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from pipeline.errors import PipelineError
from pipeline.guest.identity import IdentityFile

Run = Callable[..., str]


def fixed_clock(epoch: int) -> dict[str, str]:
    """The environment under which e2fsprogs writes no time of its own."""
    return {"SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch)}


def run_debugfs(run: Run, image: Path, script: Path, epoch: int) -> None:
    """Apply a debugfs script; debugfs ends with 0 even after a failure, so its words count."""
    output = run(["debugfs", "-w", "-f", script, image], env=fixed_clock(epoch))
    refuse_complaints(output, image.name)


def refuse_complaints(output: str, name: str) -> None:
    """Raises PipelineError when debugfs said anything but what it did."""
    for line in output.splitlines():
        if line and not line.startswith(("debugfs", "Allocated inode:")):
            raise PipelineError(f"{name}: debugfs says: {line}")


def read_text(run: Run, image: Path, path: str) -> str:
    """The content of one file in the image; raises PipelineError when it is not there."""
    output = run(["debugfs", "-R", f'cat "{path}"', image])
    head, _, content = output.partition("\n")
    if not head.startswith("debugfs") or content.startswith("cat: File not found"):
        raise PipelineError(f"{image.name}: no {path} in it")
    return content


def existing_paths(run: Run, image: Path, paths: Iterable[str], script: Path) -> set[str]:
    """Which of these absolute paths exist in the image."""
    wanted = list(paths)
    script.write_text("".join(f'stat "{path}"\n' for path in wanted))
    output = run(["debugfs", "-f", script, image])
    parts = re.split(r"^debugfs: stat .*$", output, flags=re.MULTILINE)[1:]
    return {path for path, part in zip(wanted, parts, strict=True) if "Inode:" in part}


def write_files(
    run: Run, image: Path, files: Iterable[IdentityFile], *, work: Path, epoch: int
) -> None:
    """Write files with root as owner, `epoch` as every time; missing parents are made, mode 0755.

    /root/.ssh is made with mode 0700. Raises PipelineError with debugfs's own words.
    """
    run_debugfs(run, image, plan_writing(run, image, files, work=work, epoch=epoch), epoch)


def plan_writing(
    run: Run, image: Path, files: Iterable[IdentityFile], *, work: Path, epoch: int
) -> Path:
    """The debugfs script that writes these files into this image or one with the same tree."""
    entries = list(files)
    script = work / "script"
    parents = sorted({str(parent) for entry in entries for parent in _parents(entry.path)})
    present = existing_paths(run, image, [*parents, *(entry.path for entry in entries)], script)
    lines: list[str] = []
    for parent in parents:
        if parent not in present:
            mode = 0o700 if parent.endswith("/.ssh") else 0o755
            lines += [f'mkdir "{parent}"', *_attributes(parent, stat.S_IFDIR | mode, epoch)]
    for number, entry in enumerate(entries):
        if entry.path in present:
            lines.append(f'rm "{entry.path}"')
        if entry.link:
            lines.append(f'symlink "{entry.path}" "{entry.link}"')
            continue
        source = work / f"file-{number}"
        source.write_bytes(entry.content)
        lines.append(f'write "{source}" "{entry.path}"')
        lines += _attributes(entry.path, stat.S_IFREG | entry.mode, epoch)
    script.write_text("\n".join(lines) + "\n")
    return script


def _parents(path: str) -> list[PurePosixPath]:
    return [parent for parent in PurePosixPath(path).parents if str(parent) != "/"]


def _attributes(path: str, mode: int, epoch: int) -> list[str]:
    group = 42 if path == "/etc/shadow" else 0  # shadow's group id is fixed in base-passwd
    values = {"mode": f"0{mode:o}", "uid": "0", "gid": str(group)}
    values |= dict.fromkeys(("atime", "ctime", "mtime", "crtime"), f"@{epoch}")
    return [f'sif "{path}" {name} {value}' for name, value in values.items()]
