"""A file of the host as it is to be, and what a part of dom0.toml makes of a host."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
Commands = Callable[[HostSettings, HostView], Iterable[Command]]


Switch = Callable[[HostSettings, HostSettings, HostView], Iterable[Command]]


def _no_commands(_settings: HostSettings, _host: HostView) -> Iterable[Command]:
    return ()


def _no_switch(
    _leaving: HostSettings, _entering: HostSettings, _host: HostView
) -> Iterable[Command]:
    return ()


@dataclass(frozen=True)
class Part:
    """What one table of dom0.toml is on a host.

    `render` is pure: the files as they are to be, those too that stay as they are; each lies at one
    of `places` (patterns of PurePath.match): no journal, forged or not, changes another path.
    `check` has each file read by its own program, out of `tree`, a folder with the new files at
    their paths and the rest of the host's /etc; a finding of level error stops the change.

    `after` are the commands that make the host take the files up, run whenever one of them changed,
    after a change and after its undo alike, with the settings and files that are in force then.
    `generated` are files that those commands write (grub.cfg): an undo gives them their time back
    where they are as they were.

    Where a change is to work at once (now=yes), `deactivate` is run before its files are put in
    place and `activate` after it, both with the settings that are left, those that are entered (the
    first time they are left empty, in an undo the other way round) and the host's files of that
    moment; each may be repeated. `later` says when the files work otherwise.
    """

    name: str
    places: tuple[str, ...]
    render: Callable[[HostSettings, HostView], Iterable[HostFile]]
    check: Callable[[HostSettings, HostView, Path], Iterable[Finding]]
    after: Commands = _no_commands
    generated: tuple[str, ...] = ()
    deactivate: Switch = _no_switch
    activate: Switch = _no_switch
    later: str = ""

    @property
    def works_at_once(self) -> bool:
        """Whether a change of it can be brought up while the host runs."""
        return self.activate is not _no_switch

    def has_place(self, path: str) -> bool:
        """Whether a path is one that this part renders."""
        pure = PurePosixPath(path)
        is_plain = path == str(pure) and path.startswith("/") and ".." not in pure.parts
        return is_plain and any(pure.match(place) for place in self.places)
