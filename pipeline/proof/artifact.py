"""What is to be proven: a configuration read back, the files that it names, and what is expected.

An artifact of this pipeline has a spec, and so a wish for every answer. Of any other configuration
(`spec` is None) only that is known which stands in it.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import process
from pipeline.errors import PipelineError, UsageError
from pipeline.proof.names import FOLDER
from pipeline.proof.seals import Seal, seal_files
from pipeline.spec import GuestCard, Spec
from pipeline.spec.devices import resolve_card
from pipeline.spec.keys import CardKeys
from pipeline.storage.images import find_backing
from pipeline.xen import xl
from pipeline.xen.boot import Direct, Firmware
from pipeline.xen.devices import Card
from pipeline.xen.domain import Domain

# where xl puts a card that names no bridge: xl-network-configuration(5)
BRIDGE = "xenbr0"


@dataclass(frozen=True)
class Artifact:
    """A guest as it lies there; `domain` is its configuration, parsed.

    `folder` is where it lies, `evidence` the folder that its proof is written to; `origin` is a
    fact about a guest without a spec; `has_sshd` is false where there is known to be none.
    `netboot` is what a guest is offered that starts from the network, None: a script of ours.
    `home` is the folder that the configuration means by its paths, where this is a copy of that.
    """

    folder: Path
    configuration: Path
    evidence: Path
    domain: Domain
    spec: Spec | None = None
    origin: str = "foreign"
    has_sshd: bool = True
    netboot: Path | None = None
    home: Path | None = None

    @property
    def name(self) -> str:
        return self.domain.name

    @property
    def cards(self) -> tuple[GuestCard, ...]:
        """The network cards: as the spec wants them, else with what the configuration says."""
        if self.spec is not None:
            return self.spec.cards
        return tuple(_foreign_card(card, n) for n, card in enumerate(self.domain.cards))

    @property
    def firmware(self) -> str:
        """What the guest finds itself started by: uefi, or bios for all else."""
        boot = self.domain.boot
        return boot.kind if isinstance(boot, Firmware) else "bios"

    @property
    def starts_from(self) -> str:
        """Where an HVM's firmware looks first, if that is not the guest's own disk."""
        boot, has_cd = self.domain.boot, self.domain.hard_disks != self.domain.disks
        first = boot.order[0] if isinstance(boot, Firmware) else ""
        return "the network" if first == "n" else "the CD" if first == "d" and has_cd else ""

    @property
    def short_hostname(self) -> str:
        """The host name up to the first dot; "" when nobody said what it is to be."""
        has_name = self.spec is not None and (self.spec.has_seed or not self.spec.cloud_init)
        return self.spec.short_hostname if self.spec is not None and has_name else ""

    @property
    def host_alias(self) -> str:
        """The name under which known_hosts has the guest's keys."""
        return self.short_hostname or self.name

    @property
    def boot_files(self) -> list[Path]:
        """Kernel and ramdisk, or UEFI firmware, that the configuration names and this machine has.

        A GRUB for Xen is not among them: it belongs to the host that runs the guest.
        """
        boot = self.domain.boot
        if isinstance(boot, Firmware):
            named: tuple[str | None, ...] = (boot.path,)
        else:
            named = (boot.kernel, boot.ramdisk) if isinstance(boot, Direct) else ()
        return [self._find(name) for name in named if name]

    @property
    def disks(self) -> list[tuple[Path, str]]:
        """Each disk of the configuration with its format, in order."""
        disks = [disk for disk in self.domain.disks if disk.target]
        return [(self._find(disk.target), disk.format) for disk in disks]

    @property
    def golden(self) -> list[Path]:
        """The images that copy-on-write disks rest on."""
        disks = [path for path, kind in self.disks if kind == "qcow2" and path.is_file()]
        found = {disk: find_backing(process.run, disk) for disk in disks}
        return [disk.parent / backing for disk, backing in found.items() if backing]

    @property
    def known_hosts(self) -> str:
        """The guest's host keys as the artifact says them, "" when it says none."""
        path = self.folder / "known_hosts"
        return path.read_text() if self.spec is not None else ""

    @property
    def abi(self) -> str:
        """The release of the kernel that must run, "" when it is not known."""
        path = self.folder / "kernel.json"
        if self.spec is None or not path.is_file():
            return ""
        if self.spec.is_kernel_inside:
            manifest = (self.folder / "manifest").read_text()
            installed = re.findall(r"^linux-image-(\d\S*) ", manifest, re.MULTILINE)
            return str(installed[0]) if len(installed) == 1 else ""
        return str(json.loads(path.read_bytes()).get("abi", ""))

    @property
    def facts(self) -> dict[str, object]:
        """What kind of guest it is, for proof.json and the table of proofs."""
        if self.spec is not None:
            keys = tuple("suite type boot init format fs image clone vnc swap".split())
            facts = {key: getattr(self.spec, key) for key in keys}
            facts |= {"adopted": True} if self.spec.adopted else {}
            facts |= {"starts from": self.starts_from} if self.starts_from else {}
            return facts | {"dhcp": self.cards[0].dhcp, "disks": len(self.domain.hard_disks)}
        kinds = {disk.format: None for disk in self.domain.disks}
        boot = type(self.domain.boot).__name__.lower()
        facts = {"type": self.domain.type, "boot": boot, "format": ", ".join(kinds)}
        return {"foreign": True, self.origin: True, **facts}

    def named(self, path: Path) -> Path:
        """What the configuration calls a file of it."""
        is_inside = self.home is not None and path.is_relative_to(self.folder)
        return self.home / path.relative_to(self.folder) if self.home and is_inside else path

    def _find(self, name: str) -> Path:
        """Where a file is that the configuration names."""
        path = Path(name)
        is_moved = self.home is not None and path.is_relative_to(self.home)
        return self.folder / path.relative_to(self.home) if self.home and is_moved else path

    def digests(self) -> dict[str, Seal]:
        """A seal on everything that boots."""
        files = [self.configuration, *self.boot_files]
        return seal_files(self.folder, files, [*(path for path, _ in self.disks), *self.golden])


def read_artifact(folder: Path, spec: Spec, *, home: Path | None = None) -> Artifact:
    """Read the artifact's own configuration; raises PipelineError when something is missing.

    `home` is where it was built, when this is a copy.
    """
    path = folder / f"{spec.name}.cfg"
    again = f"doit build name={spec.name}"
    try:
        domain = xl.parse(path.read_text())
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path}: {error}", hint=f"build it: {again}") from error
    artifact = Artifact(folder, path, folder / FOLDER, domain, spec, home=home)
    return _with_all_files(artifact, hint=f"build it again: {again}")


def read_foreign(configuration: Path, evidence: Path, origin: str = "foreign") -> Artifact:
    """A guest that this pipeline did not build, from its xl configuration alone.

    Keys that our model does not carry are left to xl, which gets the file as it is. Raises
    UsageError when it is no configuration, names no disk, or something that is not there.
    """
    try:
        # a comment may be in Latin-1; the file goes to xl as it is
        domain = xl.parse(configuration.read_text(errors="replace"), strict=False)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"cfg={configuration}: {reason}", hint="give the path of a guest's xl configuration"
        ) from error
    path = configuration.absolute()
    folder = evidence / domain.name / FOLDER
    artifact = Artifact(path.parent, path, folder, domain, origin=origin)
    return _with_all_files(artifact, hint="correct the configuration")


def _with_all_files(artifact: Artifact, *, hint: str) -> Artifact:
    for file in [*artifact.boot_files, *(disk for disk, _ in artifact.disks), *artifact.golden]:
        if not file.is_file() and not file.is_block_device():
            trouble = "is neither a file nor a block device" if file.exists() else "does not exist"
            raise PipelineError(
                f"{artifact.configuration} names {file}, which {trouble}", hint=hint
            )
    return artifact


def _foreign_card(card: Card, index: int) -> GuestCard:
    """ip= in the configuration is the guest's address; its network is taken as a /24 or a /64."""
    prefix = 64 if ":" in (card.ip or "") else 24
    addresses = [f"{card.ip}/{prefix}"] if card.ip else []
    keys = CardKeys.model_validate({"address": addresses})
    device = replace(card, bridge=card.bridge or BRIDGE)
    return replace(resolve_card(keys, name="", index=index), device=device)
