"""A guest's day: started, shut down, saved, restored; thin words over the host's toolstack."""

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.install import refuse_unable
from pipeline.dom0.inventory import Installed, read_installed, survey
from pipeline.dom0.layout import Layout
from pipeline.dom0.other_host import require_here
from pipeline.dom0.refresh import finish_pending
from pipeline.dom0.restriction import require_startable
from pipeline.dom0.toolstack import Toolstack, find_toolstack, require_toolstack
from pipeline.errors import InUseError, PipelineError, UsageError, suggest_nearest
from pipeline.project import Project
from pipeline.storage.transaction import guest_lock
from pipeline.walls.privacy import make_private
from pipeline.xen import xl
from pipeline.xen.domain import Domain

_RESTARTS = b"Rebooting now"  # xl, tools/xl/xl_vmcontrol.c


@dataclass(frozen=True)
class Host:
    """This Xen host as the words see it."""

    project: Project
    layout: Layout
    toolstack: Toolstack | None
    log: Path

    def require_xen(self) -> Toolstack:
        """Raises EnvironmentFault on a machine that is no Xen host."""
        return self.toolstack or require_toolstack(self.log)


@dataclass(frozen=True)
class Guest:
    """A guest that may be started: installed, or (record None) as it lies in output/guests."""

    name: str
    config: Path
    record: Installed | None


def open_host(project: Project, *, log_name: str, needs_xen: bool = True) -> Host:
    """The host of this command."""
    layout = Layout.here()
    log = project.log(log_name, "host")
    log.parent.mkdir(parents=True, exist_ok=True)
    toolstack = require_toolstack(log) if needs_xen else find_toolstack(log)
    return Host(project, layout, toolstack, log)


def known_guests(host: Host) -> list[Guest]:
    """Installed guests first, then built ones that are not installed."""
    installed, _ = survey(host.layout)
    found = [Guest(name, host.layout.config(name), one) for name, one in installed.items()]
    suffix = "xm" if host.toolstack and host.toolstack.program == "xm" else "cfg"
    for folder in sorted(host.project.artifacts.glob("*")):
        config = folder / f"{folder.name}.{suffix}"
        if folder.name not in installed and config.is_file():
            found.append(Guest(folder.name, config, None))
    return found


def find_guest(host: Host, name: str) -> Guest:
    """Raises UsageError naming those that are known."""
    read_installed(host.layout, name)  # a record that cannot be read is no guest of output/guests
    known = {guest.name: guest for guest in known_guests(host)}
    if name not in known:
        hints = [suggest_nearest(name, known), f"known: {', '.join(known) or 'none'}"]
        raise UsageError(
            f"{name} is neither installed nor built here", hint="; ".join(filter(None, hints))
        )
    return known[name]


def start(host: Host, guest: Guest) -> list[str]:
    """xl create; returns what was done before. Raises InUseError for a running or saved guest."""
    xen = host.require_xen()
    if guest.name in xen.domains():
        raise InUseError(f"{guest.name} is running", hint=f"doit console name={guest.name}")
    require_here(host.layout, xen, guest.name)
    saved = host.layout.save_file(guest.name)
    if saved.exists():
        raise InUseError(
            f"{guest.name} is saved in {saved}: started anew, its disks would change under the "
            "saved memory",
            hint=f"doit restore name={guest.name}, or remove the file to lose the memory",
        )
    notes = _refuse_unable(host, guest)
    if guest.record is None:
        xen.run("create", guest.config)
        return notes
    with guest_lock(
        site_of(host.layout), guest.name
    ):  # nobody changes the guest while it is created
        done = finish_pending(host.layout, guest.name, xen)
        xen.run("create", guest.config)
    return [*notes, *([f"kernel {done.before} -> {done.after}"] if done else [])]


def open_console(host: Host, guest: Guest) -> None:
    """Become `xl console`: this process ends with it."""
    xen = host.require_xen()
    _require_running(xen, guest)
    # a full PC's first console is its serial line, where only the boot loader speaks (xl(1))
    kind = ["-t", "pv"] if xen.program == "xl" and _is_pc(guest.config) else []
    process.become([xen.program, "console", *kind, guest.name])


def _refuse_unable(host: Host, guest: Guest) -> list[str]:
    """Raises EnvironmentFault for what this host cannot start, before xl says less; returns notes.

    That is a type that its Xen has not, or a pygrub that misses its user.
    """
    domain = _read_domain(guest.config)
    if domain is None:
        return []
    refuse_unable(host.layout, domain)
    return require_startable(domain, host.layout, is_installed=guest.record is not None)


def _is_pc(config: Path) -> bool:
    """Whether this configuration is an HVM guest's; what cannot be read is none."""
    domain = _read_domain(config)
    return domain is not None and domain.type == "hvm"


def _read_domain(config: Path) -> Domain | None:
    """What xl reads there; None where it is another program's, or wrong."""
    try:
        return xl.parse(config.read_text(errors="replace"), strict=False)
    except (OSError, ValueError):
        return None


def shut_down(host: Host, guests: list[Guest], *, timeout_s: float) -> list[str]:
    """Ask them all, wait for them all; raises PipelineError naming who does not end, or returns."""
    xen = host.require_xen()
    for guest in guests:
        _require_running(xen, guest)
    names = [guest.name for guest in guests]
    read_to = {name: len(_read_log(host, name)) for name in names}
    for name in names:
        xen.run("shutdown", name)
    left = xen.wait_until_gone(names, timeout_s=timeout_s)
    if left:
        raise PipelineError(
            f"{', '.join(left)} did not shut down within {timeout_s:.0f} s",
            hint=f"look: doit console name={left[0]}; wait longer: timeout=600; or doit destroy",
        )
    # xl waits two seconds before it creates the domain again: the list does not show it yet
    back = [name for name in names if _RESTARTS in _read_log(host, name)[read_to[name] :]]
    if back:
        raise PipelineError(
            f"{', '.join(back)} started again: it ended as a guest does that reboots",
            hint=f"once it is up: doit shutdown name={back[0]}; it does so again: doit destroy",
        )
    return names


def _read_log(host: Host, name: str) -> bytes:
    """What xl has said of a running guest; b"" where another program started it."""
    try:
        return host.layout.toolstack_log(name).read_bytes()
    except FileNotFoundError:
        return b""


def reboot(host: Host, guest: Guest) -> list[str]:
    """xl reboot; returns what the user should know of the kernel."""
    xen = host.require_xen()
    _require_running(xen, guest)
    xen.run("reboot", guest.name)
    if guest.record is not None and guest.record.pending:
        return [
            "it boots the kernel that it was created with; for the new one: doit shutdown, then "
            "doit start"
        ]
    return []


def destroy(host: Host, guest: Guest) -> None:
    """xl destroy."""
    xen = host.require_xen()
    _require_running(xen, guest)
    xen.run("destroy", guest.name)
    xen.wait_until_gone([guest.name], timeout_s=30)


def save(host: Host, guest: Guest) -> Path:
    """xl save into xendomains' folder, under another name until it is whole."""
    xen = host.require_xen()
    _require_running(xen, guest)
    final = host.layout.save_file(guest.name)
    if final.exists():
        raise InUseError(f"{final} is there already", hint="remove it, or restore it")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.new")
    partial.unlink(missing_ok=True)
    # a guest's memory holds its keys; xl writes into the file that is there
    make_private(partial)
    try:
        xen.run("save", guest.name, partial)
    except PipelineError:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, final)
    return final


def restore(host: Host, guest: Guest) -> None:
    """xl restore; the file is removed when the guest runs, because it is of no use any more."""
    xen = host.require_xen()
    if guest.name in xen.domains():
        raise InUseError(f"{guest.name} is running", hint="nothing to restore")
    saved = host.layout.save_file(guest.name)
    if not saved.exists():
        raise UsageError(f"{guest.name} is not saved: no {saved}", hint="doit start starts it")
    xen.run("restore", saved)
    saved.unlink()


def _require_running(xen: Toolstack, guest: Guest) -> None:
    if guest.name not in xen.domains():
        raise UsageError(f"{guest.name} does not run", hint=f"doit start name={guest.name}")
