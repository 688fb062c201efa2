"""The mirror of the tests that moves: what the pipeline and dpkg see of it."""

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.mirror.snapshot import Snapshot, read_snapshot
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.stages.mirror import STAGE
from tests.conftest import require
from tests.host.archives import missing_tools, run_tool
from tests.night_mirror import KEYRING, NightMirror, night_mirror
from tests.specs import make_spec
from tests.workshop import Workshop

pytestmark = pytest.mark.integration


@pytest.fixture
def mirror(workshop: Workshop, tmp_path: Path) -> Iterator[NightMirror]:
    require(not missing_tools(), f"needs {', '.join(missing_tools())}")
    with night_mirror(tmp_path, workshop.output, "less") as mirror:
        yield mirror


def look(mirror: NightMirror, root: Path) -> Snapshot:
    """What a build would use now; kept, since the next state takes its place."""
    (root / "mirrors").mkdir(parents=True, exist_ok=True)
    (root / "mirrors/night.toml").write_text(mirror.definition)
    project = Project(root, root / "output", root / "guests")
    spec = make_spec(mirror="night", snapshot_max_age="0")
    state = Recipe(project, [STAGE]).build("mirror", spec)
    kept = root / f"state-{mirror.states}"
    shutil.copytree(state.folder, kept, dirs_exist_ok=True)
    return read_snapshot(kept)


def test_an_update_is_a_real_package_with_a_new_entry_and_everything_else_stays(
    mirror: NightMirror, tmp_path: Path
) -> None:
    root = tmp_path / "project"
    before = look(mirror, root)
    version = mirror.add_update(
        "less",
        "CVE-2026-99999: a file name could run commands.",
        files={"usr/share/less/NOTE": b"mended\n"},
    )
    after = look(mirror, root)

    old, new = before.packages.find("less"), after.packages.find("less")
    assert (new.version, new.depends) == (version, old.depends)
    assert old.version != version and before.identity != after.identity
    for name in ("libc6", "openssh-server", KEYRING, "linux-image-cloud-amd64"):
        assert after.packages.find(name) == before.packages.find(name)
    deb = after.route.fetch(new.url, tmp_path / "less.deb", size=new.size, sha256=new.sha256)
    run_tool(["dpkg-deb", "-R", deb, tmp_path / "tree"])
    packed = (tmp_path / "tree/usr/share/doc/less/changelog.Debian.gz").read_bytes()
    log = gzip.decompress(packed).decode()
    assert log.startswith(f"less ({version}) bookworm-security; urgency=high\n\n  * CVE-2026-99999")
    assert f"\nless ({old.version}) " in log
    run_tool(["md5sum", "-c", "--quiet", "DEBIAN/md5sums"], cwd=tmp_path / "tree")
    shutil.rmtree(tmp_path / "tree")


def test_a_state_may_be_new_with_the_same_packages_or_one_that_nobody_has(
    mirror: NightMirror, tmp_path: Path
) -> None:
    root = tmp_path / "project"
    first = look(mirror, root)
    mirror.publish()
    second = look(mirror, root)
    mirror.add_unrelated()
    third = look(mirror, root)

    assert first.epoch < second.epoch < third.epoch
    assert len({first.identity, second.identity, third.identity}) == 3
    assert [one.packages.has("nobody-has-this") for one in (first, second, third)] == [0, 0, 1]
    assert first.packages.find("less") == third.packages.find("less")


def test_its_keyring_package_brings_our_key_and_the_server_can_be_down(
    mirror: NightMirror, tmp_path: Path
) -> None:
    root = tmp_path / "project"
    snapshot = look(mirror, root)
    package = snapshot.packages.find(KEYRING)
    kept = tmp_path / "keyring.deb"
    snapshot.route.fetch(package.url, kept, size=package.size, sha256=package.sha256)
    listed = run_tool(["dpkg-deb", "-c", kept]).decode()
    assert "./etc/apt/trusted.gpg.d/tests.gpg" in listed
    sent = mirror.server.sent

    mirror.server.stop()
    with pytest.raises(PipelineError, match="refused"):
        look(mirror, root)
    assert mirror.server.sent == sent

    mirror.server.start()
    assert look(mirror, root).identity == snapshot.identity
