"""A project whose mirror is a small archive behind a server that can misbehave."""

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stage import State
from pipeline.stages.mirror import STAGE
from tests.host.archives import Keys, ReleaseForm, SmallArchive
from tests.host.bad_mirror import MisbehavingMirror

INRELEASE = "/dists/bookworm/InRelease"
SECRET = "se3cret"


@dataclass
class Bench:
    """The archive, its server, and a project that builds the mirror stage from it."""

    root: Path
    archive: SmallArchive
    mirror: MisbehavingMirror
    keyring: Path
    form: ReleaseForm

    @property
    def project(self) -> Project:
        return Project(self.root, self.root / "output", self.root / "guests")

    @property
    def store(self) -> Path:
        return self.project.output / "store/mirror"

    def spec(self, **keys: Any) -> Spec:
        values = {"name": "web1", "suite": "bookworm", "mirror": self.mirror.url}
        values |= {"keyring": str(self.keyring), **keys}
        return Spec.model_validate({key: value for key, value in values.items() if value != ""})

    def build(self, **keys: Any) -> State:
        return Recipe(self.project, [STAGE]).build("mirror", self.spec(**keys))

    def snapshot(self, state: State) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((state.folder / "snapshot.json").read_bytes())
        return found

    def refuse(self, **keys: Any) -> PipelineError:
        """Build, expect one clear error, and check that nothing half made is left."""
        before = sorted(path.name for path in self.store.glob("*"))
        with pytest.raises(PipelineError) as caught:
            self.build(**keys)
        error = caught.value
        assert "\n" not in error.brief and len(error.brief) < 220, error.brief
        assert error.hint
        assert not list(self.project.output.glob("scratch/*"))
        assert sorted(path.name for path in self.store.glob("*")) == before
        assert not list(self.project.output.glob("cache/*/.*"))
        return error

    def publish(self, name: str = "bookworm", area: str = "debian", **changes: Any) -> None:
        """Write a suite again with a changed form."""
        self.archive.publish(name, replace(self.form, **changes), area)

    @property
    def index_by_hash(self) -> str:
        """The end of the path that the main index is asked for by."""
        digest = hashlib.sha256(self.archive.index("bookworm").read_bytes()).hexdigest()
        return f"by-hash/SHA256/{digest}"

    def assert_no_secret(self) -> None:
        """The password stands nowhere below output/, plain or as HTTP sends it."""
        forms = [SECRET.encode(), base64.b64encode(f"user:{SECRET}".encode())]
        for path in self.project.output.rglob("*"):
            assert SECRET not in path.name
            if path.is_file():
                content = path.read_bytes()
                assert not [form for form in forms if form in content], path


def lay_out(root: Path, keys: Keys, signer: str) -> ReleaseForm:
    """bookworm with its updates and security, each with a package; returns main's form."""
    archive = SmallArchive(root, keys)
    archive.add_package("hello", "1.0")
    archive.add_package("hello", "1.1", "debian-security")
    form = ReleaseForm(signers=(signer,))
    archive.publish("bookworm", form)
    for pocket, area in (("updates", "debian"), ("security", "debian-security")):
        names: dict[str, Any] = {"codename": f"bookworm-{pocket}", "suite": f"stable-{pocket}"}
        archive.publish(f"bookworm-{pocket}", replace(form, **names), area)
    return form


def name_two(bench: Bench, other: MisbehavingMirror, more: str = "") -> str:
    """mirrors/lab.toml with the bench's mirror first and another after it."""
    folder = bench.root / "mirrors"
    folder.mkdir(parents=True, exist_ok=True)
    urls = f'["{bench.mirror.url}", "{other.url}"]'
    (folder / "lab.toml").write_text(f"url = {urls}\n{more}")
    return "lab"
