"""The private bridges of an appliance on the host that it is installed on."""

from collections.abc import Mapping

from pipeline.dom0.layout import Layout
from pipeline.errors import EnvironmentFault


def require_bridges(layout: Layout, appliance: str, bridges: Mapping[str, str]) -> None:
    """EnvironmentFault with the lines of dom0.toml where one is missing.

    They are persistent that way, and `doit dom0` can take them back.
    """
    devices = layout.root / "sys/class/net"
    if not devices.is_dir():
        return  # a folder that is no running host
    missing = [name for name in bridges.values() if not (devices / name / "bridge").is_dir()]
    if missing:
        lines = [line for name in missing for line in (f"[bridge.{name}]", "ports = []", "")]
        raise EnvironmentFault(
            f"{appliance} needs {', '.join(missing)} on this host: private bridges without a port",
            details="\n".join(["# dom0.toml", *lines]).rstrip(),
            hint="add these lines to dom0.toml, then: doit dom0 now=yes",
        )
