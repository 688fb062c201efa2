"""A guest with one replicated disk, as tests want one."""

from typing import Any

from pipeline.spec import Spec
from tests.specs import make_spec

NODE: dict[str, Any] = {
    "name": "r0",
    "size": "64M",
    "address": "10.77.0.1",
    "peer": "db-b",
    "peer_address": "10.77.0.2",
    "pair": "db",
}


def make_node(*tables: dict[str, Any], **keys: Any) -> Spec:
    """A node with these replicated disks, r0 without any, and a card with their address."""
    cards = [{"bridge": "br-db", "address": "10.77.0.1/29"}]
    return make_spec(**{"replicated": list(tables) or [NODE], "interfaces": cards, **keys})
