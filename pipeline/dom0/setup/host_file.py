"""A file of the host as it is to be, and what a part of dom0.toml makes of a host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.errors import Finding


@dataclass(frozen=True)
class HostFile:
    """A file, by its absolute path on the host; `content` None means that there is to be none.

    `link` makes it a symbolic link instead. `mode` is for one that is not there yet: one that is
    keeps its own, and its owner.
    """

    path: str
    content: bytes | None = b""
    link: str = ""
    mode: int = 0o644


Command = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What one table of dom0.toml is on a host.

    `render` is pure: the files as they are to be, those too that stay as they are. `check` has each
    file read by its own program, out of `tree`, a folder with the new files at their paths (and the
    rest of the host's /etc); a finding of level error stops the change. `after` are the commands
    that make the host take the files up, run when one of them changed, after a change and after its
    undo alike.
    """

    name: str
    render: Callable[[HostSettings, HostView], Iterable[HostFile]]
    check: Callable[[HostSettings, HostView, Path], Iterable[Finding]]
    after: Callable[[HostSettings, HostView], Iterable[Command]]
