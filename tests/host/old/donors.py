"""Packages of today's Debian, unpacked, as what fills the packages of an old one in the tests."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from pipeline.bootstrap.resolution import read_relation
from pipeline.mirror.snapshot import read_snapshot
from pipeline.mirror.stanzas import read_stanzas
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import mirror
from tests.conftest import ROOT

SUITE = "bookworm"


class Donors:
    """Fetches packages of one architecture from the host's archive, verified by our own stage."""

    def __init__(self, folder: Path, arch: str) -> None:
        self._folder = folder
        project = Project(ROOT, folder / "output", folder / "guests")
        spec = Spec.model_validate(
            {"name": "donor", "suite": SUITE, "arch": arch, "updates": False, "security": False}
            | ({"kernel": "linux-image-686-pae", "type": "pvh"} if arch == "i386" else {})
        )
        snapshot = read_snapshot(Recipe(project, [mirror.STAGE]).build("mirror", spec).folder)
        self._route = snapshot.route
        self._root = snapshot.sources[0].uri
        text = (snapshot.folder / snapshot.index_files[0][1]).read_text()
        self._known = {fields["package"]: fields for fields in read_stanzas(text)}
        self._unpacked: dict[str, Path] = {}

    def closure(self, names: Iterable[str]) -> set[str]:
        """The packages and all that they depend on, the first of alternatives."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in found or name not in self._known:
                continue
            found.add(name)
            for field in ("pre-depends", "depends"):
                waiting += [words[0] for words in read_relation(self._known[name].get(field, ""))]
        return found

    def unpack(self, name: str) -> Path:
        """The files of a package; unpacked once."""
        if name not in self._unpacked:
            fields = self._known[name]
            deb = self._route.fetch(
                f"{self._root}/{fields['filename']}",
                self._folder / "debs" / name,
                size=int(fields["size"]),
                sha256=fields["sha256"],
            )
            tree = self._folder / "trees" / name
            tree.mkdir(parents=True)
            subprocess.run(["dpkg-deb", "-x", str(deb), str(tree)], check=True)
            self._unpacked[name] = tree
        return self._unpacked[name]
