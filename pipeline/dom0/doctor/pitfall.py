"""A finding of the doctor, with the settings of dom0.toml that mend it where `doit dom0` can."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import Finding


@dataclass(frozen=True)
class Pitfall(Finding):
    """`settings` are tables of dom0.toml, {"boot": {"dom0_mem": "1024M"}}; empty for no fix."""

    settings: Mapping[str, Any] = field(default_factory=dict)
