"""What is to be installed: an artifact folder, read back and verified."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.changes import read_record
from pipeline.errors import UsageError, VerificationError
from pipeline.store import read_buildinfo
from pipeline.sums import DISK_SUMS, SUMS, digest_as, read_sums
from pipeline.xen import xl, xm
from pipeline.xen.boot import Direct
from pipeline.xen.domain import Domain

# the first line of what the renderers write
_VERSION = re.compile(r"Xen (\d+\.\d+)")


@dataclass(frozen=True)
class Source:
    """An artifact folder whose files are what its sums say, disks apart (`changed_disks`).

    `xen` is the version that its configuration was rendered for.
    """

    folder: Path
    name: str
    domain: Domain
    spec: dict[str, Any]
    xen: str
    changed_disks: tuple[str, ...]

    @property
    def is_kernel_inside(self) -> bool:
        """Whether the guest boots the kernel that is installed in it."""
        return not isinstance(self.domain.boot, Direct)

    @property
    def abi(self) -> str:
        """The kernel's ABI, "" for one inside."""
        facts = json.loads((self.folder / "kernel.json").read_text())
        return str(facts.get("abi", ""))

    def disk_sums(self) -> dict[str, str]:
        """File name to fs-verity digest of the disks, as they were built."""
        return dict(read_sums((self.folder / DISK_SUMS).read_text()))

    def origin(self) -> dict[str, str]:
        """Stage to the fingerprint that it was made from."""
        found = {stage: made.fingerprint for stage, made in read_record(self.folder).items()}
        own = read_buildinfo(self.folder)
        return {**found, "config": own.fingerprint if own else ""}


def read_source(folder: Path, *, name: str, toolstack: str = "xl") -> Source:
    """Read and verify an artifact; UsageError where there is none, VerificationError if damaged."""
    config = folder / f"{name}.{'xm' if toolstack == 'xm' else 'cfg'}"
    try:
        text = config.read_text()
        spec = json.loads((folder / "spec.json").read_text())
        domain = xm.parse(text) if toolstack == "xm" else xl.parse(text)
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} holds no finished {name} ({Path(error.filename).name} is missing)",
            hint=f"build it: doit build name={name}; or name a folder: from=FOLDER",
        ) from error
    except ValueError as error:
        raise VerificationError(f"{config}: {error}", hint="build it again") from error
    version = _VERSION.search(text.partition("\n")[0])
    xen = version[1] if version else str(spec["xen"])
    return Source(folder, name, domain, spec, xen, _verify(folder, name))


def _verify(folder: Path, name: str) -> tuple[str, ...]:
    """The disks that are not as they were built; raises VerificationError for any other file."""
    try:
        files = read_sums((folder / SUMS).read_text())
        disks = read_sums((folder / DISK_SUMS).read_text())
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: {error.filename} is missing", hint="build it again") from error
    for file, recorded in files.items():
        path = folder / file
        if not path.is_file() or digest_as(recorded, path) != recorded:
            raise VerificationError(
                f"{path} is not what {SUMS} says", hint=f"build it again: doit build name={name}"
            )
    changed = []
    for file, recorded in disks.items():
        path = folder / file
        if not path.exists():
            raise VerificationError(f"{path} is missing", hint=f"doit build name={name}")
        if digest_as(recorded, path) != recorded:
            changed.append(file)
    return tuple(changed)
