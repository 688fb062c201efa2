"""What the toolstack prints, and what a migration would mean, read without a Xen."""

import pytest

from pipeline.dom0.migrate import judge_storage, xend_settings
from pipeline.dom0.toolstack import parse_list
from pipeline.errors import PipelineError

XL_LIST = """Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   900     2     r-----      21.4
web1                                         3   256     1     -b----       4.5
saved one                                    4   256     1     ---s--       0.1
(null)                                       2     0     1     --ps-d       9.9
gone                                         5   128     2     ------       0.0
"""
MOUNTS = """22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /srv/shared rw - nfs4 filer:/vol rw
31 22 0:27 / /srv rw - xfs /dev/vdb rw
"""


def test_the_list_of_domains_is_read_with_states_in_words() -> None:
    found = parse_list(XL_LIST)
    assert set(found) == {"Domain-0", "web1", "saved one", "gone"}
    assert (found["web1"].memory_mib, found["web1"].state) == (256, "running")
    assert found["saved one"].state == "shutting down"
    assert found["gone"].vcpus == 2


def test_a_list_without_dom0_is_no_list() -> None:
    with pytest.raises(PipelineError, match="empty"):
        parse_list("xencall: error: Could not obtain handle\n")


@pytest.mark.parametrize(
    ("target", "is_shared", "word"),
    [
        ("/srv/shared/web1/disk.img", True, "nfs4"),
        ("/srv/web1/disk.img", False, "xfs"),
        ("/srv/sharedness/disk.img", False, "xfs"),
        ("/var/lib/xen/disk.img", False, "ext4"),
        ("/dev/VG0/web1-disk", None, "iSCSI"),
        ("/dev/drbd/by-res/r0/0", None, "DRBD resource r0"),
    ],
)
def test_where_a_disk_is_decides_whether_it_can_be_reached(
    target: str, is_shared: bool | None, word: str
) -> None:
    found = judge_storage(target, MOUNTS)
    assert found.is_shared is is_shared
    assert word in found.where


def test_xends_relocation_settings_are_spelled_out_and_ours_are_judged() -> None:
    off = "\n".join(xend_settings("(xend-relocation-server no)\n", "peer"))
    assert "(xend-relocation-port 8002)" in off
    assert "could not come back" in off
    text = "(xend-relocation-server yes)\n(xend-relocation-hosts-allow '')\n"
    assert "every host may send" in "\n".join(xend_settings(text, "peer"))
    text = "(xend-relocation-server yes)\n(xend-relocation-hosts-allow '^peer$')\n"
    good = "\n".join(xend_settings(text, "peer"))
    assert "every host" not in good
    assert "come back" not in good
