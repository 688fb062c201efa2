"""Whole base trees from mirrors that die half way or ask for a password, with each bootstrap."""

import secrets
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.errors import PipelineError
from pipeline.mirror.apt_sources import host_archive
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import base, mirror
from tests.conftest import ROOT, require
from tests.host.forwarder import ForwardingMirror
from tests.onlooker import Onlooker
from tests.specs import make_spec
from tests.turns import in_turn

pytestmark = pytest.mark.integration
SECRET = f"pw-{secrets.token_hex(16)}"
# the others get their packages through the same relay; mmdebstrap's is met below every time
BOOTSTRAPS = [
    pytest.param("parallel", marks=in_turn("build", "a mirror that dies half way")),
    *(pytest.param(name, marks=pytest.mark.matrix) for name in ("mmdebstrap", "debootstrap")),
]


def server() -> str:
    """The server of the host's own Debian archive."""
    root = host_archive("debian")
    parts = urlsplit(root)
    require(parts.scheme == "http" and parts.path == "/debian", "needs http://HOST/debian in apt")
    return f"{parts.scheme}://{parts.netloc}"


def project_of(folder: Path, text: str) -> Project:
    """A project with one mirror, named lab."""
    (folder / "mirrors").mkdir()
    (folder / "mirrors/lab.toml").write_text(text)

    class Elsewhere(Project):
        @property
        def mirrors(self) -> Path:
            return folder / "mirrors"

    return Elsewhere(ROOT, folder / "output", folder / "guests")


def recipe_of(project: Project) -> Recipe:
    return Recipe(project, [mirror.STAGE, base.STAGE])


def spec_of(bootstrap: str) -> Spec:
    return make_spec(mirror="lab", bootstrap=bootstrap)


@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
@pytest.mark.fault(name="dies after 40 packages", place="whole base", ending="another mirror")
@pytest.mark.fault(name="password needed", place="whole base", ending="another mirror")
def test_a_build_that_loses_its_first_mirror_half_way_finishes_and_its_password_stays_unsaid(
    tmp_path: Path, bootstrap: str
) -> None:
    login = f"me:{SECRET}"
    with (
        Onlooker((SECRET.encode(),)) as onlooker,
        ForwardingMirror(server(), dies_after=40, login=login) as first,
        ForwardingMirror(server(), login=login) as second,
    ):
        both = (first.address, second.address)
        urls = ", ".join(f'"http://{one}/debian"' for one in both)
        project = project_of(tmp_path, f'url = [{urls}]\ncredentials = "lab.auth"\n')
        secret = tmp_path / "mirrors/lab.auth"
        lines = [f"machine http://{one} login me password {SECRET}\n" for one in both]
        secret.write_text("".join(lines))
        secret.chmod(0o600)
        recipe, spec = recipe_of(project), spec_of(bootstrap)
        recipe.build("mirror", spec)
        state = recipe.build("base", spec)
        assert (state.folder / "base.tar").stat().st_size > 50 << 20
        assert first.debs == 40
        assert second.debs >= 60
    assert onlooker.seen == {} and len(onlooker.processes) > 20
    # kept: of all that the first one gave, nothing was fetched again
    again = set(first.requests) & set(second.requests)
    assert not [path for path in again if path.endswith(".deb")]
    for path in project.output.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.fault(name="dies after 5 packages", place="whole base", ending="message")
def test_a_bootstrap_without_any_working_mirror_says_which_and_why(tmp_path: Path) -> None:
    with ForwardingMirror(server(), dies_after=5) as only:
        recipe = recipe_of(project_of(tmp_path, f'url = "http://{only.address}/debian"\n'))
        spec = spec_of("mmdebstrap")
        recipe.build("mirror", spec)
        with pytest.raises(PipelineError) as caught:
            recipe.build("base", spec)
    error = caught.value
    assert only.address in error.brief and "503" in error.brief
    assert error.hint and error.log.endswith("base.log")
    assert not list((tmp_path / "output").glob("scratch/*"))
