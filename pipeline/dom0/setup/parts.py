"""The parts of dom0.toml, in the order in which their files are written and taken up."""

from __future__ import annotations

from pipeline.dom0.setup.host_file import Part

PARTS: tuple[Part, ...] = ()
