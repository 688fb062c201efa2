"""Bases and kernels through the managed proxy: the second build fetches no package upstream."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.project import Project
from pipeline.proxy.control import ProxyControl
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import base, kernel, mirror
from tests.conftest import require
from tests.host.forwarding import ForwardingMirror
from tests.host.test_base_failover import project_of, server
from tests.host.test_mirror_proxy import free_port

pytestmark = pytest.mark.integration
SUITES = [
    "bookworm",
    *(pytest.param(name, marks=pytest.mark.matrix) for name in ("trixie", "bullseye", "sid")),
    pytest.param("noble", marks=pytest.mark.matrix),
]


def build_anew(project: Project, spec: Spec) -> None:
    """mirror, kernel and base, with nothing kept but the proxy's cache."""
    for name in ("store", "cache"):
        shutil.rmtree(project.output / name, ignore_errors=True)
    recipe = Recipe(project, [mirror.STAGE, base.STAGE, kernel.STAGE])
    for stage in ("mirror", "kernel", "base"):
        recipe.build(stage, spec)


@pytest.mark.parametrize("suite", SUITES)
def test_the_second_build_through_the_proxy_fetches_no_package_upstream(
    tmp_path: Path, suite: str
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
            build_anew(project, spec)
            first = upstream.debs
            assert first > 60
            build_anew(project, spec)
            print(f"{suite}: {first} packages upstream, then {upstream.debs - first}")
            assert upstream.debs == first
        finally:
            ProxyControl(project).stop()
