"""Machines of one fleet that share a store, and small artifacts to share."""

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.files import fingerprint
from pipeline.project import Project
from pipeline.remote.place import open_place
from pipeline.shared.shared_store import SharedStore, open_store
from pipeline.store.store import BuildInfo, Store, list_files
from pipeline.walls.certificates import make_authority, make_party
from tests.conftest import ROOT


def make_fleet(folder: Path, *parties: str, at: datetime | None = None) -> Path:
    """Certificates of an authority of its own."""
    now = at or datetime.now(UTC)
    make_authority(folder, now)
    for name in parties:
        make_party(folder, name, (), now)
    return folder


@dataclass
class Machine:
    """One with an output folder and certificates of its own."""

    project: Project
    url: str
    certificates: Path
    name: str = ""

    @classmethod
    def at(cls, root: Path, url: str, certificates: Path, name: str = "") -> "Machine":
        root.mkdir(parents=True, exist_ok=True)
        return cls(Project(ROOT, root / "output", root / "guests"), url, certificates, name)

    def store(self, *, is_strict: bool = False) -> SharedStore:
        scratch = self.project.scratch
        return open_store(self.url, self.certificates, scratch, name=self.name, is_strict=is_strict)

    def build(self, word: str = "one", *, stage: str = "base", identity: str = "") -> BuildInfo:
        """An artifact of its local store: a file, one with holes, and one in a folder."""
        inputs = {"suite": "bookworm", "word": "" if identity else word}
        made_of = {"inputs": inputs, "upstream": {}}
        key = fingerprint({"stage": stage, "revision": 1, **made_of})
        folder = Store.of(self.project).location(stage, key)
        (folder / "lists").mkdir(parents=True, exist_ok=True)
        (folder / "base.tar").write_bytes(random.Random(word).randbytes(300_000))
        (folder / "lists/Packages").write_text(f"{word}\n" * 1000)
        (folder / "lists/Packages").chmod(0o600)
        with open(folder / "golden.img", "wb") as image:
            image.truncate(16 << 20)
            image.seek(1 << 20)
            image.write(word.encode() * 100_000)
        built = BuildInfo(
            stage,
            key,
            1,
            inputs,
            {},
            identity=identity,
            seconds=1.5,
            built_at=int(time.time()) - 60,
            files=list_files(folder),
        )
        (folder / "buildinfo.json").write_bytes(built.to_json())
        return built

    def folder(self, built: BuildInfo) -> Path:
        return Store.of(self.project).location(built.stage, built.fingerprint)

    def pull(self, built: BuildInfo, store: SharedStore | None = None) -> BuildInfo | None:
        """As a recipe does it, into the local store."""
        room = self.project.scratch / f"pull-{random.randbytes(4).hex()}"
        room.mkdir(parents=True)
        pulled = (store or self.store()).pull(built.stage, built.fingerprint, room)
        if pulled is not None:
            Store.of(self.project).publish(room, pulled)
        return pulled


def files_there(url: str) -> list[str]:
    """Every file of a store."""
    return [listed.name for listed in open_place(url).list("")]


def same_bytes(one: Path, other: Path, *, but: str = "") -> bool:
    """All files of both folders, with their modes; `but` one that says when it was built."""

    def read(folder: Path) -> dict[str, tuple[int, bytes]]:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != but]
        return {
            str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
            for path in files
        }

    return read(one) == read(other)


YEAR = timedelta(days=365)
