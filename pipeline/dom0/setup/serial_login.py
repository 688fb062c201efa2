"""Who can log in over the line that Xen prints on: inittab's getty, or systemd's unit on hvc0.

Facts: inittab(5), agetty(8), systemd-getty-generator(8) (a serial console= on the kernel's line
starts a login by itself; the link holds without it), systemctl(1) (where enable puts the link).
"""

import re
from collections.abc import Iterator

from pipeline.dom0.setup.assignments import put_line
from pipeline.dom0.setup.host_file import HostFile
from pipeline.dom0.setup.host_settings import Boot
from pipeline.dom0.setup.host_view import HostView

INITTAB = "/etc/inittab"
WANTS = "/etc/systemd/system/getty.target.wants"
UNIT = "serial-getty@hvc0.service"
_TERMINAL = re.compile(r"\b(hvc\d+|ttyS\d+|xvc\d+|tty\d+)\b")
_GETTY = re.compile(
    r"^(?!\s*#)(?P<id>[^:\n]*):[^:\n]*:[^:\n]*:(?P<process>[^\n]*getty[^\n]*)$", re.MULTILINE
)
# where enable finds the template: /lib is searched first by a systemd of split /usr
_MERGED = ("trixie", "forky", "sid")


def terminal_of(process: str) -> str:
    """The terminal that a getty is started on, "" where none is named."""
    match = _TERMINAL.search(process.partition("getty")[2])
    return match[1] if match else ""


def gettys_of(inittab: str) -> Iterator[str]:
    """The terminals that inittab gives a login."""
    return filter(None, (terminal_of(line["process"]) for line in _GETTY.finditer(inittab)))


def render_login(boot: Boot, host: HostView) -> Iterator[HostFile]:
    """A login on hvc0, none on the port that Xen has taken; nothing without `serial`."""
    if not boot.serial:
        return
    taken = port_of(boot)
    if host.init == "sysvinit":
        text = render_inittab(host.require(INITTAB, "sysvinit-core"), taken, boot.serial_speed)
        yield HostFile(INITTAB, text.encode(errors="surrogateescape"))
        return
    template = f"{'/usr' if host.suite in _MERGED else ''}/lib/systemd/system/serial-getty@.service"
    yield HostFile(f"{WANTS}/{UNIT}", link=template)
    fighting = f"{WANTS}/serial-getty@{taken}.service"
    if host.exists(fighting):
        yield HostFile(fighting, content=None)


def port_of(boot: Boot) -> str:
    """Linux' name of the port that Xen takes: com1 is ttyS0."""
    return f"ttyS{int((boot.serial or 'com1')[-1]) - 1}"


def render_inittab(text: str, taken: str, speed: int) -> str:
    """The getty on hvc0 as line `co`; other lines on hvc0 or the taken port become comments."""
    line = f"co:2345:respawn:/sbin/getty -h -L hvc0 {speed} ansi"
    lines = [*_GETTY.finditer(text)]
    ours = [entry for entry in lines if entry["id"].strip() == "co"][:1]
    ours = ours or [entry for entry in lines if terminal_of(entry["process"]) == "hvc0"][:1]
    for entry in reversed(lines):
        if entry in ours:
            text = put_line(text, line, [entry])
        elif terminal_of(entry["process"]) in ("hvc0", taken) or entry["id"].strip() == "co":
            text = f"{text[: entry.start()]}#{text[entry.start() :]}"
    return text if ours else put_line(text, line, (), r"^#co:[^\n]*")
