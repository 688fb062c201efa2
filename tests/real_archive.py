"""What the machine's own mirror has of bookworm, cut down to what guests may need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from pipeline.mirror.snapshot import Snapshot, read_snapshot
from pipeline.mirror.stanzas import read_fields, split_stanzas
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.stages import STAGES
from tests.conftest import ROOT
from tests.specs import make_spec

ROLES = ("main", "updates", "security")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_REMARK = re.compile(r"\([^)]*\)|\[[^]]*\]|:any")


@dataclass(frozen=True)
class Stanza:
    """A package of an index: its lines, its fields by lower-case names, where its .deb is."""

    text: bytes
    fields: Mapping[str, str]
    url: str

    @property
    def name(self) -> str:
        return self.fields["package"]

    @property
    def provided(self) -> list[str]:
        """What else others may call it."""
        return _names_in(self.fields.get("provides", ""))

    @property
    def needed(self) -> list[str]:
        """What it depends on, every alternative."""
        fields = (self.fields.get(name, "") for name in ("depends", "pre-depends"))
        return _names_in(", ".join(fields))

    @property
    def is_basic(self) -> bool:
        """Whether it is in every tree."""
        return self.fields.get("essential") == "yes" or self.fields.get("priority") == "required"


@dataclass(frozen=True)
class RealArchive:
    """The stanzas by role, and the way to a .deb; what is fetched is kept in `debs` by digest."""

    snapshot: Snapshot
    debs: Path
    stanzas: Mapping[str, Sequence[Stanza]]

    def fetch(self, stanza: Stanza) -> Path:
        """Its .deb, verified."""
        sha256, size = stanza.fields["sha256"], int(stanza.fields["size"])
        route = self.snapshot.route
        return route.fetch(stanza.url, self.debs / sha256, size=size, sha256=sha256)

    def find(self, name: str) -> Stanza:
        """The stanza that apt would choose."""
        wanted = self.snapshot.packages.find(name).sha256
        every = (one for stanzas in self.stanzas.values() for one in stanzas)
        return next(one for one in every if one.fields["sha256"] == wanted)

    def _cut_down(self, names: Sequence[str]) -> RealArchive:
        """What these and the basic packages may need, whatever alternative apt chooses."""
        by_name: dict[str, list[Stanza]] = {}
        for stanza in (one for stanzas in self.stanzas.values() for one in stanzas):
            for name in (stanza.name, *stanza.provided):
                by_name.setdefault(name, []).append(stanza)
        basic = [one.name for stanzas in self.stanzas.values() for one in stanzas if one.is_basic]
        wanted, taken = [*names, *basic], set[str]()
        while wanted:
            name = wanted.pop()
            if name not in taken:
                taken.add(name)
                for stanza in by_name.get(name, ()):
                    wanted += [stanza.name, *(stanza.needed if stanza.name == name else ())]
        kept = {
            role: [one for one in stanzas if one.name in taken]
            for role, stanzas in self.stanzas.items()
        }
        return RealArchive(self.snapshot, self.debs, kept)


@cache
def read_real_archive(output: Path, *names: str) -> RealArchive:
    """What these packages may need; the whole indexes are kept in an output folder's store."""
    project = Project(ROOT, output, ROOT / "guests")
    snapshot = read_snapshot(Recipe(project, STAGES).build("mirror", make_spec()).folder)
    stanzas = {
        name.split("-")[1]: list(_read_index((snapshot.folder / name).read_bytes(), root))
        for root, name in snapshot.index_files
    }
    return RealArchive(snapshot, project.cache.debs, stanzas)._cut_down(names)


def _read_index(text: bytes, root: str) -> Iterator[Stanza]:
    for stanza in split_stanzas(text):
        fields = read_fields(stanza)
        yield Stanza(stanza.rstrip(), fields, f"{root}/{quote(fields['filename'])}")


def _names_in(relation: str) -> list[str]:
    return _NAME.findall(_REMARK.sub("", relation))
