"""Where things are: the project's folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import Store


@dataclass(frozen=True)
class Project:
    """The folders of one checkout; `output` holds everything made, the rest is read only."""

    root: Path
    output: Path
    guests: Path

    @classmethod
    def here(cls) -> Project:
        """This checkout; DOMU_OUTPUT and DOMU_GUESTS in the environment move two folders."""
        root = Path(__file__).resolve().parent.parent
        output = Path(os.environ.get("DOMU_OUTPUT", root / "output")).absolute()
        guests = Path(os.environ.get("DOMU_GUESTS", root / "guests")).absolute()
        return cls(root, output, guests)

    @property
    def store(self) -> Store:
        """The content-addressed store of the golden half."""
        return Store(self.output / "store")

    @property
    def elements(self) -> Path:
        """Our own diskimage-builder elements."""
        return self.root / "elements"

    @property
    def mirrors(self) -> Path:
        """The named mirrors, <name>.toml."""
        return self.root / "mirrors"

    def artifact(self, guest: str) -> Path:
        """The finished artifact folder of a guest."""
        return self.output / "guests" / guest

    def volume(self, guest: str) -> Path:
        """The guest's disks before its configuration joins them."""
        return self.output / "volumes" / guest

    def identity(self, guest: str) -> Path:
        """What makes the guest itself and is kept: host keys, machine-id; mode 0700."""
        return self.output / "identity" / guest

    def log(self, guest: str, stage: str) -> Path:
        """The log of a stage, from its last run for this guest."""
        return self.output / "logs" / guest / f"{stage}.log"
