"""What is to be installed: an artifact folder, read back and verified."""

import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.artifact.kernel_folder import PARTS, read_abi
from pipeline.artifact.record import read_record
from pipeline.artifact.sums import DISK_SUMS, SUMS, is_as_summed, read_sum_file
from pipeline.console.progress import print_line
from pipeline.errors import PipelineError, UsageError, VerificationError
from pipeline.files import digest_file, read_bytes, read_table
from pipeline.locks import is_locked, locked
from pipeline.project import Project
from pipeline.spec.domain import FIRMWARE_FILE
from pipeline.storage.images import TOOLS, find_backing
from pipeline.store.store import Store, read_buildinfo
from pipeline.xen import xl, xm
from pipeline.xen.boot import Direct, Firmware
from pipeline.xen.domain import Domain

# the first line of what the renderers write
_VERSION = re.compile(r"Xen (\d+\.\d+)")
_FOLDERS = ("proof",)
_FILE_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs")


@dataclass(frozen=True)
class Source:
    """An artifact folder whose files are what its sums say, every one, disks included.

    `xen` is the version that its configuration was rendered for, `disks` file name to fs-verity
    digest.
    """

    folder: Path
    name: str
    domain: Domain
    spec: dict[str, Any]
    xen: str
    disks: Mapping[str, str]

    @property
    def is_kernel_inside(self) -> bool:
        return not isinstance(self.domain.boot, Direct)

    @property
    def firmware(self) -> Path | None:
        """The UEFI firmware that the guest brings, None for one that is the host's."""
        boot = self.domain.boot
        has_own = isinstance(boot, Firmware) and boot.path
        return self.folder / FIRMWARE_FILE if has_own else None

    @property
    def abi(self) -> str:
        """The kernel's ABI, "" for one inside."""
        return read_abi(self.folder, may_lack=self.is_kernel_inside)

    def origin(self) -> dict[str, str]:
        """Stage to the fingerprint that it was made from."""
        found = {stage: made.fingerprint for stage, made in read_record(self.folder).items()}
        own = read_buildinfo(self.folder)
        return {**found, "config": own.fingerprint if own else ""}


def read_source(folder: Path, *, name: str, toolstack: str = "xl") -> Source:
    """Read and verify an artifact; UsageError where there is none, VerificationError if damaged."""
    config = folder / f"{name}.{'xm' if toolstack == 'xm' else 'cfg'}"
    again = f"build it again: doit build name={name} replace=yes; or another: from=FOLDER"
    _require_plain(folder, again)
    try:
        files, disks = _verify(folder, again)
        text = read_bytes(config).decode()
        spec = read_table(folder / "spec.json", "a spec")
        domain = xm.parse(text) if toolstack == "xm" else xl.parse(text)
        _require_sense(spec)
        read_abi(folder, may_lack=not isinstance(domain.boot, Direct))
        used = (
            config.name,
            "spec.json",
            *PARTS,
            *(Path(disk.target).name for disk in domain.hard_disks),
            *([FIRMWARE_FILE] if isinstance(domain.boot, Firmware) and domain.boot.path else ()),
        )
        _require_listed(folder, used, {*files, *disks}, again)
    except FileNotFoundError as error:
        why = Path(f"{config}.unsupported")
        if error.filename == str(config) and why.is_file():
            reason = read_bytes(why).decode(errors="replace").strip()
            hint = f"build another: doit build name={name} type=pv"
            raise UsageError(f"{name} cannot be {toolstack}'s: {reason}", hint=hint) from error
        raise UsageError(
            f"{folder} holds no finished {name} ({Path(error.filename).name} is missing)",
            hint=f"build it: doit build name={name}; or name a folder: from=FOLDER",
        ) from error
    except VerificationError:
        raise
    except PipelineError as error:
        raise VerificationError(error.brief, hint=again) from error
    except ValueError as error:
        raise VerificationError(f"{config}: {error}", hint=again) from error
    return Source(folder, name, domain, spec, rendered_for(text) or str(spec["xen"]), disks)


def rendered_for(text: str) -> str:
    """The version of Xen that a configuration of ours was written for; "" where it does not say."""
    version = _VERSION.search(text.partition("\n")[0])
    return version[1] if version else ""


@contextmanager
def reading_artifact(project: Project, folder: Path, name: str) -> Iterator[None]:
    """While it is read nobody replaces or reads it; waits for whoever does, and says so."""
    store = Store.of(project)
    paths = [store.lock_path(stage, name) for stage in ("volume", "config")]
    if folder != project.artifact(name):
        paths = [folder.parent.parent / ".locks" / name] if folder.parent.name == name else []
        paths = [path for path in paths if path.parent.parent.name == "published"]
    if any(is_locked(path) for path in paths):
        print_line(f"  waiting: {name} is being built or published")
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(locked(path))
        yield


def _require_plain(folder: Path, again: str) -> None:
    """No link, FIFO, device or folder where a file is to be: seen before anything is opened."""
    if not folder.is_dir():
        return
    for path in _walk(folder):
        mode = path.lstat().st_mode
        is_folder = stat.S_ISDIR(mode) and path.relative_to(folder).parts[0] in _FOLDERS
        if not (stat.S_ISREG(mode) or is_folder):
            raise VerificationError(f"{path} is no plain file", hint=again)


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.name in _FOLDERS and path.is_dir() and not path.is_symlink():
            yield from path.rglob("*")


def _require_sense(spec: Mapping[str, Any]) -> None:
    if spec.get("fs") not in _FILE_SYSTEMS or not isinstance(spec.get("suite"), str):
        raise ValueError("its spec.json is none of ours")


def _verify(folder: Path, again: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The digests of files and disks; VerificationError for the first that is not as built."""
    files, disks = read_sum_file(folder / SUMS), read_sum_file(folder / DISK_SUMS)
    for file, recorded in {**files, **disks}.items():
        path, listed = folder / file, DISK_SUMS if file in disks else SUMS
        if not is_as_summed(path, recorded):
            state = "not what" if path.is_file() else "missing, which"
            more = "; a guest that ran on it has written to it" if file in disks else ""
            raise VerificationError(f"{path} is {state} {listed} says{more}", hint=again)
    return files, disks


def _require_listed(folder: Path, names: Iterable[str], listed: Iterable[str], again: str) -> None:
    """What no sum speaks of could be anything."""
    for name in {*names} - {*listed}:
        if (folder / name).exists():
            raise VerificationError(
                f"{folder / name} is in neither {SUMS} nor {DISK_SUMS}", hint=again
            )


def require_backing(source: Source) -> None:
    """Raises VerificationError when a disk of the artifact rests on what is not a golden image."""
    overlays = [name for name in source.disks if name.endswith(".qcow2")]
    if overlays:
        process.require_tools(TOOLS)
    for name in overlays:
        found = find_backing(process.run, source.folder / name)
        if found:
            _require_golden(source, name, source.folder / found)


def _require_golden(source: Source, disk: str, image: Path) -> None:
    again = f"doit build name={source.name} replace=yes makes both again"
    made = read_buildinfo(image.parent)
    recorded = made.files.get(image.name, {}) if made else {}
    if made is None or not image.is_file() or image.is_symlink() or "sha256" not in recorded:
        raise VerificationError(
            f"{source.name}: {disk} rests on {image}, which is gone or damaged", hint=again
        )
    asked = source.origin().get("image", made.fingerprint)
    if made.fingerprint != asked or digest_file(image) != recorded["sha256"]:
        raise VerificationError(
            f"{source.name}: {disk} rests on {image}, which is not the golden image that it was "
            "made from",
            hint=again,
        )
