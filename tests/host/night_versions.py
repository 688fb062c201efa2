"""Two versions of a guest for a night's report: small disks with dpkg's records, and real .debs."""

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.project import Project
from pipeline.store.store import BuildInfo, Store
from tests.crafted_packages import deb, file, folder, link
from tests.specs import make_spec

EPOCH = 1_700_000_000
CHANGELOG = """{source} ({version}) bookworm-security; urgency=high

  * {text}

 -- A Maintainer <a@example.org>  Fri, 27 Nov 2026 10:00:00 +0000

"""


@dataclass(frozen=True)
class Kept:
    """A package: what status says, its files, and the documentation in its .deb by name."""

    name: str
    version: str
    source: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    docs: Mapping[str, bytes] = field(default_factory=dict)
    docs_at: str = ""
    deb: bytes = b""

    @property
    def content(self) -> bytes:
        """The .deb."""
        if self.deb:
            return self.deb
        home = f"./usr/share/doc/{self.name}"
        entries = [folder(b"./usr/share/"), folder(b"./usr/share/doc/")]
        if self.docs_at:
            entries += [link(home.encode(), self.docs_at.encode())]
        else:
            entries += [folder(f"{home}/".encode())]
            entries += [file(f"{home}/{n}".encode(), text) for n, text in self.docs.items()]
        fields = f"Package: {self.name}\nVersion: {self.version}\nArchitecture: amd64\n"
        return deb(*entries, control=f"{fields}Description: x\n".encode())

    def stanza(self, *more: str) -> str:
        source = [f"Source: {self.source}"] if self.source else []
        lines = [f"Package: {self.name}", *source, f"Version: {self.version}"]
        return "\n".join([*lines, "Architecture: amd64", *more, "Description: x", "", ""])


def changelog(*entries: tuple[str, str], source: str = "src") -> bytes:
    """A packed changelog: (version, text), the newest first."""
    text = "".join(
        CHANGELOG.format(source=source, version=version, text=text) for version, text in entries
    )
    return gzip.compress(text.encode(), mtime=0)


def make_version(
    project: Project,
    place: Path,
    guest: str,
    packages: list[Kept],
    *,
    files: Mapping[str, bytes] | None = None,
    change: Callable[[Path], None] | None = None,
) -> Path:
    """A version's folder: disk, manifest, records; its packages are in the cache and a snapshot."""
    place.mkdir(parents=True)
    tree = place / "tree"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "lib").symlink_to("usr/lib")
    records = tree / "var/lib/dpkg/info"
    records.mkdir(parents=True)
    status = "".join(kept.stanza("Status: install ok installed") for kept in packages)
    (records.parent / "status").write_text(status)
    owned = {name: text for kept in packages for name, text in kept.files.items()}
    for name, content in {**owned, **(files or {})}.items():
        (tree / name.strip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tree / name.strip("/")).write_bytes(content)
    for kept in packages:
        (records / f"{kept.name}.list").write_text("".join(f"{name}\n" for name in kept.files))
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    if change:
        change(tree)
    disk = place / "disk.img"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, disk, "24M"], check=True)
    subprocess.run(["rm", "-r", tree], check=True)
    (place / "manifest").write_text("".join(f"{k.name} {k.version} amd64\n" for k in packages))
    (place / "kernel.json").write_text(json.dumps({"inside": True}))
    (place / "spec.json").write_text(json.dumps(make_spec(name=guest, size="1G").as_json()))
    (place / f"{guest}.cfg").write_text('name = "x"\n')
    mirror = _make_snapshot(project, packages)
    base = BuildInfo("base", "0" * 64, 1, {}, {}, taken={"mirror": {"packages": _name(packages)}})
    stages = {"mirror": asdict(mirror), "base": asdict(base)}
    (place / "stages.json").write_text(json.dumps(stages))
    return place


def _name(packages: list[Kept]) -> dict[str, str]:
    """What base says that it took: the packages of the source tool."""
    names = [kept for kept in packages if "tool" in (kept.name, kept.source)]
    digests = {kept.name: hashlib.sha256(kept.content).hexdigest() for kept in names}
    return {kept.name: f"{kept.version} amd64 {digests[kept.name]}" for kept in names}


def _make_snapshot(project: Project, packages: list[Kept]) -> BuildInfo:
    debs = project.cache.debs
    debs.mkdir(parents=True, exist_ok=True)
    index = ""
    for kept in packages:
        digest = hashlib.sha256(kept.content).hexdigest()
        (debs / digest).write_bytes(kept.content)
        where = f"Filename: pool/{kept.name}.deb"
        index += kept.stanza(where, f"Size: {len(kept.content)}", f"SHA256: {digest}")
    fingerprint = hashlib.sha256(index.encode()).hexdigest()
    home = Store.of(project).location("mirror", fingerprint)
    home.mkdir(parents=True, exist_ok=True)
    (home / "Packages-main-main").write_text(index)
    facts = {"sources": [], "epoch": EPOCH, "identity": "x"}
    indexes = [["http://127.0.0.1/debian", "Packages-main-main"]]
    (home / "snapshot.json").write_text(json.dumps({**facts, "indexes": indexes}))
    return BuildInfo("mirror", fingerprint, 1, {}, {})
