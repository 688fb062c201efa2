"""A site that publishes a small guest into a repository, a web server, and a host that follows."""

import json
import os
import random
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

from pipeline.artifact.folder import read_source
from pipeline.artifact.published import promote, publish
from pipeline.artifact.sums import write_sums
from pipeline.commands import delivery, install, options
from pipeline.commands.delivery_options import Update
from pipeline.project import Project
from pipeline.recipe import DISKS, Recipe
from pipeline.repository import metadata
from pipeline.store.store import BuildInfo, Store, list_files
from tests import whole_disk
from tests.conftest import ROOT
from tests.host.bad_mirror import MisbehavingMirror
from tests.host.small_artifact import ABIS, make_artifact, make_kernel

NAME = "web1"
_SHADOW = "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n"


class Site:
    """A site with keys of its own, and what its guest asks for; what it serves is in `served`."""

    def __init__(self, work: Path) -> None:
        self.work, self.spec = work, dict[str, object]()
        self.project = Project(ROOT, work / "output", work / "guests", work / "site")
        self.served = self.project.repository
        metadata.make_keys(self.project, metadata.Passphrases())
        self.root = work / "root.json"
        shutil.copyfile(self.project.keys / metadata.ROOT, self.root)
        self._kernel = make_kernel(work / "kernel", ABIS[0])

    def night(self, generation: str, *, proof: str = "proven", is_served: bool = True) -> str:
        """Another golden image, published and signed; returns the version's name."""
        fingerprint = generation.encode().hex().ljust(64, "0")
        folder = self.project.artifact(NAME)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make_artifact(folder, NAME, kernel=self._kernel, generation=generation, **self.spec)
        built = self._golden(fingerprint, generation)
        (folder / "stages.json").write_text(json.dumps({"image": asdict(built)}))
        (folder / "manifest").write_text(f"one {len(generation)} all\n")
        write_sums(folder, disks=DISKS)
        config = BuildInfo("config", fingerprint[::-1], 1, {}, {})
        (folder / "buildinfo.json").write_bytes(config.to_json())
        version = publish(self.project, read_source(folder, name=NAME), proof=proof)
        promote(self.project, NAME, channel="stable", wanted=version.name, unproven=True)
        if is_served:
            self.sign()
        return version.name

    def sign(self) -> None:
        metadata.refresh(self.project)

    def _golden(self, fingerprint: str, generation: str) -> BuildInfo:
        store = Store.of(self.project)
        folder = store.location("image", fingerprint)
        tree = self.work / "tree"
        for place in ("etc/ssh", "root", "usr"):
            (tree / place).mkdir(parents=True)
        whole_disk.write_loaders(tree)
        (tree / "etc/shadow").write_text(_SHADOW)
        (tree / "etc/release").write_text(f"{generation}\n" * 999)
        for number in range(24):
            # as one package more: everything after it lies elsewhere
            content = random.Random(number).randbytes(300_000)
            (tree / f"usr/{number}{generation if number == 5 else ''}").write_bytes(content)
        folder.mkdir(parents=True)
        image = folder / "golden.img"
        make = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", str(tree)]
        subprocess.run([*make, str(image), "48M"], check=True)
        shutil.rmtree(tree)
        built = BuildInfo("image", fingerprint, 1, {}, {}, files=list_files(folder))
        (folder / "buildinfo.json").write_bytes(built.to_json())
        return built


class Dom0:
    """A host below a folder, with its own output, that installs from a server."""

    def __init__(self, work: Path, server: MisbehavingMirror) -> None:
        self.root, self.url = work / "root", f"http://{server.address}"
        self.project = Project(ROOT, work / "output", work / "guests")
        self.project.output.mkdir(parents=True)
        self.recipe = Recipe(self.project, ())

    def install(self, **given: object) -> None:
        words = {"name": NAME, "from": self.url, **typed(given)}
        install.install(self.recipe, {}, options.Install.model_validate(words))

    def update(self, **given: object) -> None:
        delivery.update(self.recipe, {}, Update.model_validate(typed(given)))

    @property
    def version(self) -> str:
        """What is installed, "" for nothing."""
        record = self.root / f"var/lib/domu/installed/{NAME}.json"
        return str(json.loads(record.read_text())["origin"]["version"]) if record.exists() else ""

    def files(self) -> list[str]:
        """All that an installation leaves on a host."""
        places = (self.root / "etc", self.root / "var/lib/xen")
        return sorted(str(path) for place in places for path in place.rglob("*") if path.is_file())

    def disk(self, generation: int = 1) -> Path:
        return self.root / f"var/lib/xen/images/{NAME}/{generation}/disk.img"


def typed(given: dict[str, object]) -> dict[str, object]:
    """As the command line gives it."""
    return {key: str(each) if isinstance(each, Path) else each for key, each in given.items()}


def read_in(disk: Path, path: str) -> str:
    """A file of an ext disk."""
    argv = ["debugfs", "-R", f"cat {path}", str(disk)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def copy_tree(source: Path, target: Path) -> None:
    """What a server shows from now on is what another one showed."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)
