"""Every guest's configuration below /etc/xen, ours or not: read once, for all that judges them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.dom0.configuration import Grammar, read_text
from pipeline.dom0.layout import Layout
from pipeline.errors import PipelineError
from pipeline.xen.cfg_syntax import Value


@dataclass(frozen=True)
class Configured:
    """A configuration that xl would read: its file, what it assigns, whether auto/ has it too."""

    path: Path
    values: Mapping[str, Value]
    is_autostarted: bool = False

    @property
    def name(self) -> str:
        """The guest's name, as xl has it."""
        return str(self.values.get("name") or self.path.stem)

    @property
    def memory_mib(self) -> int:
        """What it asks for, 0 where it does not say."""
        text = str(self.values.get("memory", ""))
        return int(text) if text.isdecimal() else 0

    @property
    def is_pv(self) -> bool:
        """Whether it is a PV guest's: xl's default, where nothing else is said (xl.cfg(5))."""
        kind = self.values.get("type", self.values.get("builder", "pv"))
        return "disk" in self.values and kind in ("pv", "generic", "linux")


def read_configured(layout: Layout) -> Iterator[Configured]:
    """NAME.cfg and what is in auto/, each file once, by the name that is not a link's if it can.

    One that cannot be read is left out: doctor says so of the installed ones, xl of the others.
    """
    seen = set()
    links = sorted(layout.auto.glob("*"))
    started = set(map(os.path.realpath, links))
    for path in [*sorted(layout.configs.glob("*.cfg")), *links]:
        real = os.path.realpath(path)  # Path.resolve raises in a loop of links
        if path.name.startswith(".") or real in seen:
            continue
        seen.add(real)
        try:
            values = Grammar("xl").values(read_text(path))
            yield Configured(path, values, real in started)
        except (OSError, PipelineError, ValueError):
            continue
