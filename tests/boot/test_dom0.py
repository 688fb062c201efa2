"""The project runs in the test host's own dom0: what others build their end-to-end tests on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dom0 import EMPTY_DISK, running_dom0
from tests.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build, pytest.mark.timeout(1800)]


@pytest.mark.boot
def test_the_project_runs_in_a_real_dom0_with_its_own_volume_group(
    workshop: Workshop, tmp_path: Path
) -> None:
    with running_dom0(workshop, tmp_path) as dom0:
        assert "Domain-0" in dom0.demand("xl list")
        listed = dom0.doit("list")
        assert listed.status == 0, listed.output
        assert "boot under real Xen" in listed.output

        dom0.demand(f"vgcreate VG0 {EMPTY_DISK}")
        dom0.demand("lvcreate -y -L 64M -n test-drbd-disk VG0")
        dom0.demand("mke2fs -q -t ext4 /dev/VG0/test-drbd-disk")
        dom0.demand("lvcreate -y --type thin-pool -L 256M -n pool VG0")
        dom0.demand("lvcreate -y -V 1G -T VG0/pool -n thin")
        assert "thin" in dom0.demand("lvs --noheadings -o lv_name VG0")
