"""The proxy for a whole lab: systemd units and a configuration, as files to look at and copy."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.mirror.proxy.engines import Plan
from pipeline.mirror.proxy.settings import Engine

NAME = "domu-mirror"
_SYSTEM = Path("etc/systemd/system")
_CONF = Path("etc") / NAME
# systemd.exec(5): it may write to its cache and its log, and talk to the network
_CAGE = """\
CacheDirectory=domu-mirror
LogsDirectory=domu-mirror
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
"""
_SOCKET = """\
[Unit]
Description=Caching proxy for Debian and Ubuntu archives

[Socket]
ListenStream={port}
Accept=yes
MaxConnections=64

[Install]
WantedBy=sockets.target
"""
_EACH = f"""\
[Unit]
Description=Caching proxy for Debian and Ubuntu archives, one connection
Documentation=man:approx(8)

[Service]
ExecStart=-/usr/sbin/approx -c /{_CONF}/approx.conf
User=approx
StandardInput=socket
StandardOutput=socket
StandardError=journal
{_CAGE}"""
_ALL = f"""\
[Unit]
Description=Caching proxy for Debian and Ubuntu archives
Documentation=man:apt-cacher-ng(8)
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/sbin/apt-cacher-ng -c /{_CONF}
User=apt-cacher-ng
Restart=on-failure
{_CAGE}
[Install]
WantedBy=multi-user.target
"""


def render_units(engine: Engine, port: int, upstreams: Mapping[str, str]) -> dict[Path, str]:
    """Path below / -> text: approx is started for each connection, apt-cacher-ng for all."""
    plan = Plan(engine, port, f"/var/cache/{NAME}", upstreams, bind="", logs=f"/var/log/{NAME}")
    conf = plan.render((engine, engine))
    if engine == "approx":
        return {
            _SYSTEM / f"{NAME}.socket": _SOCKET.format(port=port),
            _SYSTEM / f"{NAME}@.service": _EACH,
            _CONF / "approx.conf": conf,
        }
    return {_SYSTEM / f"{NAME}.service": _ALL, _CONF / "acng.conf": conf}


def write_units(files: Mapping[Path, str], folder: Path) -> list[Path]:
    """Write them below a folder; UsageError when one is there already with another text."""
    paths = [folder / path for path in files]
    for path, text in zip(paths, files.values(), strict=True):
        if path.exists() and path.read_text() != text:
            raise UsageError(
                f"{path} exists and says something else", hint="remove it, or give another units="
            )
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return paths


def escape_unit(text: str) -> str:
    """A path in a unit (systemd.syntax(7)): a per cent sign begins a specifier."""
    return text.replace("\\", "\\\\").replace("%", "%%")


def unit_to_disable(engine: Engine) -> str:
    """The package's own unit, which would hold approx's port or a port that nobody uses."""
    return "approx.socket" if engine == "approx" else "apt-cacher-ng.service"


def unit_to_enable(engine: Engine) -> str:
    """What systemctl enable --now takes."""
    return f"{NAME}.socket" if engine == "approx" else f"{NAME}.service"
