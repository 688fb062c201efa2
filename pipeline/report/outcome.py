"""What became of a night, guest by guest: the night fills it in, the report is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Verdict = Literal["published", "unchanged", "failed", "broken", "not begun"]


@dataclass(frozen=True)
class Fault:
    """Why a guest has no new version: `stage` is a stage or check, prove, describe, publish.

    `log` is a path below output/, "" where there is none.
    """

    stage: str
    brief: str
    hint: str = ""
    details: str = ""
    log: str = ""


@dataclass(frozen=True)
class GuestNight:
    """One guest's night.

    `failed` is the guest's fault, `broken` the machine's or the mirror's; `unchanged`: its bytes
    would be those of the last version. `version` is where its channel `nightly` leads now, and
    `before` where it led, "" for nowhere; `folder` and `folder_before` are those versions' folders.
    `built` is the artifact that was built this night, published or not. `channels` are all of
    its channels with their versions afterwards. `seconds` is by step: build, check, prove,
    describe, publish.
    """

    guest: str
    verdict: Verdict
    version: str = ""
    before: str = ""
    folder: Path | None = None
    folder_before: Path | None = None
    built: Path | None = None
    channels: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    fault: Fault | None = None
    notes: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Night:
    """A whole night: when (seconds since 1970), where, and what became of each guest in order.

    `name` is its folder below output/reports/, by its date; `mirrors` says for each mirror what it
    stands at. `is_complete` is false where the time limit or a signal ended it. `tracker` is a file
    of Debian's security tracker, with which the report holds each guest's bill of materials.
    """

    name: str
    began_at: float
    ended_at: float
    host: str
    guests: tuple[GuestNight, ...]
    mirrors: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = True
    tracker: Path | None = None
    notes: tuple[str, ...] = ()
