"""Guests through the managed proxy: the second build fetches no package upstream."""

import shutil
from pathlib import Path

import pytest

from pipeline.mirror.proxy.control import ProxyControl
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import STAGES
from tests.conftest import require
from tests.host.forwarder import ForwardingMirror
from tests.host.test_base_failover import project_of, server
from tests.patience import free_port

pytestmark = pytest.mark.integration
# what needs packages, every time; whole guests of every kind in the matrix
UP_TO_BASE = ("mirror", "kernel", "base")
WHOLE = tuple(stage.name for stage in STAGES)
GUESTS = [
    pytest.param("bookworm", UP_TO_BASE, id="bookworm's base"),
    *(
        pytest.param(name, WHOLE, id=name, marks=pytest.mark.matrix)
        for name in ("bookworm", "trixie", "bullseye", "sid", "noble")
    ),
]


def build_anew(project: Project, spec: Spec, stages: tuple[str, ...]) -> None:
    """These stages, with nothing kept but the proxy's cache."""
    for name in ("store", "cache", "guests", "volumes"):
        shutil.rmtree(project.output / name, ignore_errors=True)
    recipe = Recipe(project, list(STAGES))
    for stage in stages:
        recipe.build(stage, spec)


@pytest.mark.parametrize(("suite", "stages"), GUESTS)
def test_the_second_build_through_the_proxy_fetches_no_package_upstream(
    tmp_path: Path, suite: str, stages: tuple[str, ...]
) -> None:
    require(shutil.which("approx") is not None, "needs approx")
    project = project_of(tmp_path, 'url = "http://unused/debian"\n')
    with ForwardingMirror(server()) as upstream:
        settings = f'port = {free_port()}\nupstream = "{upstream.address}"\n'
        # the archive at hand may be a frozen copy, of sid above all
        (tmp_path / "mirrors/proxy.toml").write_text(f'{settings}valid_until = "ignore"\n')
        # bullseye's support has ended: its security index names packages that are gone (2026-11)
        keys = {"name": "web1", "suite": suite, "security": suite != "bullseye"}
        spec = Spec.model_validate({**keys, "mirror": "proxy"})
        try:
            build_anew(project, spec, stages)
            first = upstream.debs
            assert first > 60
            build_anew(project, spec, stages)
            print(f"{suite}: {first} packages upstream, then {upstream.debs - first}")
            assert upstream.debs == first
            if "config" in stages:
                assert (project.artifact("web1") / "disk.img").stat().st_size == spec.size_mib << 20
        finally:
            ProxyControl(project).stop()
