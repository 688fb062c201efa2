"""Thin commands over xl (or xm) for guests that are installed or built here."""

from pipeline.commands import options
from pipeline.commands.host import on_host
from pipeline.console.progress import print_line
from pipeline.dom0 import migrate as migration
from pipeline.dom0 import power
from pipeline.dom0.power import Guest, Host, find_guest, known_guests, open_host
from pipeline.errors import UsageError
from pipeline.recipe import Recipe


@on_host
def start(recipe: Recipe, _specs: object, asked: options.Start) -> None:
    """Create the domain; a refresh that waits for the guest is done first."""
    host = open_host(recipe.project, log_name=asked.name)
    guest = find_guest(host, asked.name)
    for note in power.start(host, guest):
        print_line(f"  {note}")
    print_line(f"{guest.name} is started from {guest.config}")


@on_host
def console(recipe: Recipe, _specs: object, asked: options.Guest) -> None:
    """The guest's console; Ctrl-] leaves it."""
    host, guest = _find(recipe, asked)
    power.open_console(host, guest)


@on_host
def shutdown(recipe: Recipe, _specs: object, asked: options.Shutdown) -> None:
    """Ask one guest or all to shut down, and wait."""
    host = open_host(recipe.project, log_name=asked.name or "all")
    if asked.name:
        guests = [find_guest(host, asked.name)]
    else:
        running = host.require_xen().domains()
        guests = [guest for guest in known_guests(host) if guest.name in running]
    for name in power.shut_down(host, guests, timeout_s=float(asked.timeout)):
        print_line(f"{name} is shut down")


@on_host
def reboot(recipe: Recipe, _specs: object, asked: options.Guest) -> None:
    """Ask the guest to start again, with the kernel that it was created with."""
    host, guest = _find(recipe, asked)
    for note in power.reboot(host, guest):
        print_line(f"  {note}")
    print_line(f"{guest.name} reboots")


@on_host
def destroy(recipe: Recipe, _specs: object, asked: options.Remove) -> None:
    """End the domain at once, as if its power failed."""
    host, guest = _find(recipe, asked)
    if not asked.yes:
        raise UsageError(
            f"destroying {guest.name} is pulling its plug: what it has not written is lost",
            hint=f"doit shutdown name={guest.name}, or add yes=yes",
        )
    power.destroy(host, guest)
    print_line(f"{guest.name} is destroyed")


@on_host
def save(recipe: Recipe, _specs: object, asked: options.Guest) -> None:
    """Write the guest's memory to a file and end it; restore goes on from there."""
    host, guest = _find(recipe, asked)
    print_line(f"{guest.name} is saved in {power.save(host, guest)}")


@on_host
def restore(recipe: Recipe, _specs: object, asked: options.Guest) -> None:
    """Go on where save stopped."""
    host, guest = _find(recipe, asked)
    power.restore(host, guest)
    print_line(f"{guest.name} goes on")


@on_host
def migrate(recipe: Recipe, _specs: object, asked: options.Migrate) -> None:
    """Move a running guest to another host."""
    host, guest = _find(recipe, asked, needs_xen=not asked.dry)
    plan = migration.plan_migration(host, guest, target=asked.to, is_live=asked.live)
    for line in plan.explain():
        print_line(line)
    if asked.dry:
        return
    migration.migrate(host, plan)
    print_line(f"{guest.name} runs on {asked.to}")
    if asked.to != migration.LOCAL and host.layout.auto_link(guest.name).is_symlink():
        print_line(
            f"  it must not start here with the host: rm {host.layout.auto_link(guest.name)}"
        )


def _find(recipe: Recipe, asked: options.Guest, *, needs_xen: bool = True) -> tuple[Host, Guest]:
    host = open_host(recipe.project, log_name=asked.name, needs_xen=needs_xen)
    return host, find_guest(host, asked.name)
