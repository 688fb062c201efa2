"""doit dom0 now=yes over a connection: the same TCP connection lives on, or all is taken back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, require
from tests.host.network_bench import build_tree
from tests.host.trial_host import INTERFACES, OWN, ROUTER
from tests.turns import spread
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]
PROGRAMS = ("ifup", "ifdown", "ifquery", "brctl")
ADDRESSES = {"right": f"{OWN}/24", "killed": f"{OWN}/24", "wrong": "192.168.9.5/24"}


def prepare(tree: Path, folder: Path, address: str) -> None:
    """What the host has of ifupdown, its /etc, its dom0.toml."""
    for name in ("sbin", "domu", "guests"):
        (folder / name).mkdir(parents=True)
    for program in PROGRAMS:
        source = next(
            path for path in (tree / "usr/sbin", tree / "sbin") if (path / program).exists()
        )
        shutil.copy(source / program, folder / "sbin" / program)
    library = next(
        path for path in (tree / "usr/lib", tree / "lib") if (path / "bridge-utils").is_dir()
    )
    shutil.copytree(library / "bridge-utils", folder / "lib/bridge-utils")
    subprocess.run(["cp", "-a", "/etc", folder / "etc"], check=True)
    shutil.rmtree(folder / "etc/network", ignore_errors=True)
    shutil.copytree(tree / "etc/network", folder / "etc/network", symlinks=True)
    (folder / "etc/network/interfaces").write_text(INTERFACES)
    gateway = f"{address.rpartition('.')[0]}.1"
    (folder / "dom0.toml").write_text(
        f'[bridge.br-xen]\nports = ["eth0"]\naddress = "{address}"\ngateway = "{gateway}"\n'
    )


@pytest.mark.parametrize("scenario", spread(["right", "wrong", "killed"], 3))
def test_a_connection_lives_through_it_or_it_is_taken_back(
    workshop: Workshop, tmp_path: Path, scenario: str
) -> None:
    require(os.geteuid() == 0, "needs root for namespaces")
    folder = tmp_path / "host"
    prepare(build_tree(workshop, "bookworm", tmp_path), folder, ADDRESSES[scenario])
    environment = {
        **os.environ,
        "DOMU_GUESTS": f"{folder}/guests",
        "DOMU_OUTPUT": f"{folder}/output",
    }
    unshare = ["unshare", "--mount", "--net", "--fork", "--kill-child"]
    words = [*unshare, sys.executable, "-m", "tests.host.trial_host", str(folder), scenario]
    with open(tmp_path / "log", "w+") as log:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            timeout=400,
            check=False,
        )
        log.seek(0)
        assert done.returncode == 0, log.read()
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["after"] == seen["before"], seen["heard"]
    has_bridge = any(line.startswith("br-xen") and OWN in line for line in seen["between"])
    if scenario == "right":
        assert (seen["status"], seen["undone"]) == (0, 0), seen["heard"]
        assert has_bridge
        assert seen["heard"].count(f"does {ROUTER} still answer? (3 of 3)") == 2
        assert seen["heard"].count("it does: the change stays") == 2
        assert "    bridge_ports eth0" in seen["between"]
    elif scenario == "wrong":
        assert seen["status"] == 5
        # it comes over the connection that was cut
        assert "this connection did not answer over the new network" in seen["heard"]
    else:
        assert seen["status"] == -9
        assert "iface eth0 inet manual" in seen["between"]
