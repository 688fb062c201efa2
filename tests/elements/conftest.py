"""Base trees for the element tests, made once from the build host's own package sources."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require
from tests.elements.rootfs_build import EPOCH, Host

PACKAGES = "udev,openssh-server,iproute2,kmod,netbase,tzdata,e2fsprogs,ca-certificates"
INIT_PACKAGES = {
    "systemd": "systemd,systemd-sysv,dbus,systemd-resolved",
    "sysvinit": "sysvinit-core,initscripts,ifupdown,isc-dhcp-client",
}


def host_sources(suite: str) -> str:
    """The build host's deb822 sources of its own suite, as one text."""
    stanzas: list[str] = []
    for file in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        uncommented = "\n".join(
            line for line in file.read_text().splitlines() if not line.startswith("#")
        )
        stanzas += [
            part
            for part in uncommented.split("\n\n")
            if re.search(rf"^Suites:.*\b{suite}\b", part, re.M)
        ]
    for file in [
        Path("/etc/apt/sources.list"),
        *sorted(Path("/etc/apt/sources.list.d").glob("*.list")),
    ]:
        lines = file.read_text().splitlines() if file.exists() else []
        for kind, uri, name, components in re.findall(
            rf"^(deb) (?:\[.*?\] )?(\S+) ({suite}\S*) (.*)$", "\n".join(lines), re.M
        ):
            stanzas.append(f"Types: {kind}\nURIs: {uri}\nSuites: {name}\nComponents: {components}")
    assert stanzas, f"this machine has no package sources for {suite}"
    return "\n\n".join(part.strip() for part in stanzas) + "\n"


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    require(os.geteuid() == 0, "needs root")
    require(shutil.which("mmdebstrap") is not None, "needs mmdebstrap")
    folder = tmp_path_factory.mktemp("elements")
    release = platform.freedesktop_os_release()
    suite = release["VERSION_CODENAME"]
    sources = folder / "build.sources"
    sources.write_text(host_sources(suite))
    lists = folder / "lists"
    lists.mkdir()
    bases = {init: folder / f"{init}.tar" for init in INIT_PACKAGES}
    # mmdebstrap is three times as fast in memory
    scratch = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else folder
    started = []
    for init, base in bases.items():
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={INIT_PACKAGES[init]},{PACKAGES}",
        ]
        if init == "systemd":
            command.append(f"--customize-hook=sync-out /var/lib/apt/lists {lists}")
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(scratch)}
        started.append(
            subprocess.Popen([*command, suite, str(base), str(sources)], env=environment)
        )
    assert [process.wait() for process in started] == [0, 0]
    for path in (lists, *lists.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # apt's lock and partial are root's alone
    return Host(suite, release["ID"], sources, lists, bases)
