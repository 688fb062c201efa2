"""[lvm]: this host's LVM does not look into the volumes of guests."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.dom0.setup import lvm_filter
from pipeline.dom0.setup.host_file import HostFile, Part
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.reader import read_by, refused
from pipeline.errors import Finding, PipelineError
from pipeline.files import read_bytes

_SHOW = "lvmconfig --type diff shows what else sets it"
DEVICES_FILE = "/etc/lvm/devices/system.devices"


def _render(settings: HostSettings, host: HostView) -> Iterator[HostFile]:
    if not (settings.lvm and settings.lvm.groups):
        return
    key, path = lvm_filter.key_in(host.suite), lvm_filter.CONF
    text = host.read(lvm_filter.LOCAL) or ""
    if lvm_filter.find_filter(text, key):
        path = lvm_filter.LOCAL
    else:
        text = host.read(path) or ""
    text = lvm_filter.set_filter(text, key, settings.lvm.groups)
    yield HostFile(path, text.encode(errors="surrogateescape"))


def _check(settings: HostSettings, host: HostView, tree: Path) -> Iterator[Finding]:
    for file in _render(settings, host):
        key = lvm_filter.key_in(host.suite)
        text = read_bytes(tree / file.path.lstrip("/")).decode(errors="surrogateescape")
        current = lvm_filter.find_filter(text, key)
        patterns = current.patterns if current else ()
        if accepts := lvm_filter.find_acceptance(patterns):
            yield Finding(
                "error",
                file.path,
                f'"{accepts}" takes guests\' volumes in by another name (/dev/dm-3)',
                f"take it out of {key}: what no pattern meets is accepted anyway",
            )
        try:
            read_by(("lvm", "dumpconfig", "--validate"), host, tree)
            said = read_by(("lvm", "dumpconfig", f"devices/{key}"), host, tree)
        except PipelineError as error:
            yield refused("lvm", file.path, error)
            continue
        line = next((line for line in said.splitlines() if line.startswith(f"{key}=")), "")
        read = lvm_filter.find_filter(f"devices/{line}", key)
        if not read or read.patterns != patterns:
            yield Finding("error", file.path, f"LVM reads {said.strip()}", _SHOW)
    if settings.lvm and host.exists(DEVICES_FILE):
        yield Finding(
            "warning",
            DEVICES_FILE,
            "with a devices file LVM obeys no filter: it uses the devices that are listed there",
            "guests' volumes are not to be in it: lvmdevices",
        )


LVM = Part("lvm", places=(lvm_filter.CONF, lvm_filter.LOCAL), render=_render, check=_check)
