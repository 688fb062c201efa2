"""Where things are on a Xen host; DOMU_ROOT puts all of it below another folder, for trials."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.xen.boot import LAUNCHER

VARIABLE = "DOMU_ROOT"


@dataclass(frozen=True)
class Layout:
    """The host's folders. Paths in installed configurations are these, `root` included."""

    root: Path = Path("/")

    @classmethod
    def here(cls) -> Self:
        """This machine's, or what DOMU_ROOT names."""
        return cls(Path(os.environ.get(VARIABLE) or "/").absolute())

    @property
    def configs(self) -> Path:
        """Where xl and xm look for configurations."""
        return self.root / "etc/xen"

    @property
    def auto(self) -> Path:
        """What the host's xendomains service starts."""
        return self.configs / "auto"

    @property
    def xen_tools(self) -> Path:
        """The configuration of xen-tools, where that is or was installed."""
        return self.root / "etc/xen-tools"

    @property
    def images(self) -> Path:
        """Disks that are files: NAME/GENERATION/disk.img."""
        return self.root / "var/lib/xen/images"

    @property
    def kernels(self) -> Path:
        """Kernels and ramdisks, one folder each, shared by the guests that boot them."""
        return self.root / "var/lib/xen/kernels"

    @property
    def saves(self) -> Path:
        """Saved guests: xendomains' own folder."""
        return self.root / "var/lib/xen/save"

    @property
    def state(self) -> Path:
        """What we installed, and what is under way."""
        return self.root / "var/lib/domu"

    @property
    def launcher(self) -> Path:
        """The program that runs pygrub as a guest's own user."""
        return self.root / LAUNCHER.removeprefix("/")

    def config(self, name: str) -> Path:
        """A guest's configuration."""
        return self.configs / f"{name}.cfg"

    def auto_link(self, name: str) -> Path:
        """Its link for the start with the host."""
        return self.auto / f"{name}.cfg"

    def record(self, name: str) -> Path:
        """What we know of an installed guest."""
        return self.state / "installed" / f"{name}.json"

    def save_file(self, name: str) -> Path:
        """A guest's saved memory."""
        return self.saves / name

    def toolstack_log(self, name: str) -> Path:
        """What xl says of a guest's ends, as long as it runs: xl create stays in the background."""
        return self.root / f"var/log/xen/xl-{name}.log"

    def moved(self, name: str) -> Path:
        """The name of the host that a guest was moved to."""
        return self.state / "moved" / name

    def disks(self, name: str, generation: int) -> Path:
        """The folder of a guest's disks that are files."""
        return self.images / name / str(generation)
