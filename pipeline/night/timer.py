"""A night every night: a systemd service and its timer, as files to look at and copy."""

from pathlib import Path

from pipeline.mirror.proxy.units import escape_unit

NAME = "domu-nightly"
_SYSTEM = Path("etc/systemd/system")
_SERVICE = """\
[Unit]
Description=Golden images of DomUs, built, proven and published
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={user}
WorkingDirectory={home}
{environment}ExecStart="{program}" nightly quiet=yes
# the night ends its own programs, in order; the next one tells of it
KillMode=mixed
TimeoutStopSec=120
Nice=10
IOSchedulingClass=idle
"""
_TIMER = """\
[Unit]
Description=Golden images of DomUs, every night

[Timer]
OnCalendar=*-*-* {at}:00
RandomizedDelaySec=10min
Persistent=yes

[Install]
WantedBy=timers.target
"""


def render_units(
    *, program: Path, home: Path, user: str, at: str, environment: dict[str, str]
) -> dict[Path, str]:
    """Path below / -> text. `home` is the site or the checkout."""
    lines = (f'Environment="{key}={escape_unit(text)}"\n' for key, text in environment.items())
    service = _SERVICE.format(
        home=escape_unit(str(home)),
        user=user,
        program=escape_unit(str(program)),
        environment="".join(lines),
    )
    return {_SYSTEM / f"{NAME}.service": service, _SYSTEM / f"{NAME}.timer": _TIMER.format(at=at)}
