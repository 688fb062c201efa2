"""What is to be proven: an artifact folder, its configuration read back, its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError, UsageError
from pipeline.proof.digests import Seal, seal_files
from pipeline.spec import Spec
from pipeline.xen import xl
from pipeline.xen.boot import Direct
from pipeline.xen.domain import Domain


@dataclass(frozen=True)
class Artifact:
    """An artifact as it lies there; `domain` is its emitted configuration, parsed."""

    folder: Path
    spec: Spec
    domain: Domain

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.domain.name

    @property
    def configuration(self) -> Path:
        """The emitted configuration, which xl reads as it is."""
        return self.folder / f"{self.spec.name}.cfg"

    @property
    def boot_files(self) -> list[Path]:
        """Kernel and ramdisk that the configuration names and this machine has.

        A GRUB for Xen is not among them: it belongs to the host that runs the guest.
        """
        if not isinstance(self.domain.boot, Direct):
            return []
        named = (self.domain.boot.kernel, self.domain.boot.ramdisk)
        return [Path(name) for name in named if name]

    @property
    def disks(self) -> list[tuple[Path, str]]:
        """Each disk of the configuration with its format, in order."""
        return [(Path(disk.target), disk.format) for disk in self.domain.disks if disk.target]

    @property
    def known_hosts(self) -> Path:
        """The guest's host keys, as the artifact says them."""
        return self.folder / "known_hosts"

    @property
    def is_systemd(self) -> bool:
        """Whether the guest's init is systemd."""
        return self.spec.init == "systemd"

    def digests(self) -> dict[str, Seal]:
        """A seal on everything that boots."""
        files = [self.configuration, *self.boot_files]
        return seal_files(self.folder, files, [path for path, _ in self.disks])


def read_artifact(folder: Path, spec: Spec) -> Artifact:
    """Read the artifact's own configuration; raises PipelineError when something is missing."""
    path = folder / f"{spec.name}.cfg"
    try:
        domain = xl.parse(path.read_text())
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{path}: {error}", hint=f"build it: doit build name={spec.name}"
        ) from error
    if spec.clone == "cow":
        raise UsageError(
            f"{spec.name}: the test host cannot reach the golden image that its disk rests on",
            hint="prove a guest with clone=full from the same golden image, or: doit flatten",
        )
    artifact = Artifact(folder, spec, domain)
    for file in [*artifact.boot_files, *(disk for disk, _ in artifact.disks)]:
        if not file.exists():
            raise PipelineError(
                f"{path} names {file}, which does not exist",
                hint=f"build it again: doit build name={spec.name}",
            )
    return artifact
