"""A host as its files say: which release, which init, who sets up its network and its boot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.files import read_bytes


@dataclass(frozen=True)
class HostView:
    """What the renderings look at. `root` is / or, for trials and tests, a folder.

    `suite` is Debian's code name, "" where it is none that we know; `loader` is grub-legacy where
    there is a menu.lst and no GRUB 2.
    """

    root: Path
    suite: str
    init: Literal["systemd", "sysvinit"]
    network: Literal["ifupdown", "networkd"]
    loader: Literal["grub2", "grub-legacy"]
    toolstack: Literal["xl", "xm"]
    xen_version: str = ""

    def read(self, path: str) -> str | None:
        """A text of the host by its absolute path, foreign bytes as surrogates; None without it.

        Raises PipelineError for what is no plain file or cannot be read.
        """
        try:
            content = read_bytes(self.root / path.lstrip("/"), follow=True)
        except FileNotFoundError:
            return None
        return content.decode(errors="surrogateescape")

    def exists(self, path: str) -> bool:
        """Whether there is anything of that name."""
        try:
            (self.root / path.lstrip("/")).lstat()
        except OSError:
            return False
        return True
