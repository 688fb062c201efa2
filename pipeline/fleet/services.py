"""systemd services of a fleet: a scheduler, a worker, as files to look at and copy."""

from pathlib import Path

from pipeline.fleet.address import Address
from pipeline.mirror.proxy.units import escape_unit

SCHEDULER, WORKER = "domu-scheduler", "domu-worker"
_SYSTEM = Path("etc/systemd/system")
_SERVICE = """\
[Unit]
Description={what}
Wants=network-online.target
After=network-online.target

[Service]
User={user}
WorkingDirectory={home}
{environment}ExecStart="{program}" fleet {words}
Restart=always
RestartSec=5
# it ends its own programs, in order
KillMode=mixed
TimeoutStopSec=60
{more}
[Install]
WantedBy=multi-user.target
"""
_SCHEDULER_WALLS = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=full
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
"""
_WORKER_SHARE = "Nice=10\nIOSchedulingClass=idle\n"


def render_services(
    *, program: Path, home: Path, user: str, environment: dict[str, str], address: Address
) -> dict[Path, str]:
    """Path below / -> text. `home` is the site or the checkout; `address` is for the workers."""
    lines = (f'Environment="{key}={escape_unit(text)}"\n' for key, text in environment.items())
    known = {
        "home": escape_unit(str(home)),
        "user": user,
        "program": escape_unit(str(program)),
        "environment": "".join(lines),
    }
    listen = f"scheduler listen={address.scheme}://0.0.0.0:{address.port}"
    if not address.is_encrypted:
        listen = f"scheduler listen={address}"
    scheduler = _SERVICE.format(
        what="Scheduler of machines that build DomUs together",
        words=listen,
        more=_SCHEDULER_WALLS,
        **known,
    )
    worker = _SERVICE.format(
        what="Worker that builds stages of DomUs",
        words=f"worker scheduler={address}",
        more=_WORKER_SHARE,
        **known,
    )
    return {
        _SYSTEM / f"{SCHEDULER}.service": scheduler,
        _SYSTEM / f"{WORKER}.service": worker,
    }
