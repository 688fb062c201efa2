"""Thin words over xl (or xm) for guests that are installed or built here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands.command import host_word
from pipeline.console.progress import print_line
from pipeline.errors import UsageError
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.dom0.power import Guest, Host


def start(recipe: Recipe, _specs: object) -> None:
    """Create the domain; a refresh that waits for the guest is done first."""
    from pipeline.dom0 import power

    host = _host(recipe)
    for guest in _chosen(recipe, host):
        for note in power.start(host, guest):
            print_line(f"  {note}")
        print_line(f"{guest.name} is started from {guest.config}")


def console(recipe: Recipe, _specs: object) -> None:
    """The guest's console; Ctrl-] leaves it."""
    from pipeline.dom0 import power

    host = _host(recipe)
    (guest,) = _chosen(recipe, host)
    power.open_console(host, guest)


def shutdown(recipe: Recipe, _specs: object) -> None:
    """Ask one guest or all to shut down, and wait; timeout= in seconds."""
    from pipeline.dom0 import power

    host = _host(recipe)
    asked = recipe.options.get("timeout", "180")
    if not asked.isdigit():
        raise UsageError(f"timeout={asked}: how many seconds?")
    guests = _chosen(recipe, host, only_running=True)
    for name in power.shut_down(host, guests, timeout_s=float(asked)):
        print_line(f"{name} is shut down")


def reboot(recipe: Recipe, _specs: object) -> None:
    """Ask the guest to start again, with the kernel that it was created with."""
    from pipeline.dom0 import power

    host = _host(recipe)
    (guest,) = _chosen(recipe, host)
    for note in power.reboot(host, guest):
        print_line(f"  {note}")
    print_line(f"{guest.name} reboots")


def destroy(recipe: Recipe, _specs: object) -> None:
    """End the domain at once, as if its power failed; yes=yes."""
    from pipeline.dom0 import power

    host = _host(recipe)
    (guest,) = _chosen(recipe, host)
    if recipe.options.get("yes") != "yes":
        raise UsageError(
            f"destroying {guest.name} is pulling its plug: what it has not written is lost",
            hint=f"doit shutdown name={guest.name}, or add yes=yes",
        )
    power.destroy(host, guest)
    print_line(f"{guest.name} is destroyed")


def save(recipe: Recipe, _specs: object) -> None:
    """Write the guest's memory to a file and end it; restore goes on from there."""
    from pipeline.dom0 import power

    host = _host(recipe)
    (guest,) = _chosen(recipe, host)
    print_line(f"{guest.name} is saved in {power.save(host, guest)}")


def restore(recipe: Recipe, _specs: object) -> None:
    """Go on where save stopped."""
    from pipeline.dom0 import power

    host = _host(recipe)
    (guest,) = _chosen(recipe, host)
    power.restore(host, guest)
    print_line(f"{guest.name} goes on")


def migrate(recipe: Recipe, _specs: object) -> None:
    """Move a running guest to another host; to=HOST live=yes dry=yes."""
    from pipeline.dom0 import migrate as migration

    target = recipe.options.get("to", "")
    if not target:
        raise UsageError("migrate where?", hint="to=HOST, a host that takes root's SSH key")
    host = _host(recipe, needs_xen=recipe.options.get("dry") != "yes")
    (guest,) = _chosen(recipe, host)
    plan = migration.plan_migration(
        host, guest, target=target, is_live=recipe.options.get("live") == "yes"
    )
    for line in plan.explain():
        print_line(line)
    if recipe.options.get("dry") == "yes":
        return
    migration.migrate(host, plan)
    print_line(f"{guest.name} runs on {target}")


def _host(recipe: Recipe, *, needs_xen: bool = True) -> Host:
    from pipeline.dom0.power import open_host

    name = recipe.options.get("name", "all")
    return open_host(recipe.project, log_name=name, needs_xen=needs_xen)


def _chosen(recipe: Recipe, host: Host, *, only_running: bool = False) -> list[Guest]:
    """The guest of name=, or with all=yes every known one."""
    from pipeline.dom0.power import find_guest, known_guests

    name = recipe.options.get("name", "")
    if name:
        return [find_guest(host, name)]
    if recipe.options.get("all") != "yes":
        raise UsageError("which guest?", hint="add name=, for example: name=test-drbd")
    guests = known_guests(host)
    if only_running:
        now = host.require_xen().domains()
        guests = [guest for guest in guests if guest.name in now]
    return guests


WORDS = (
    host_word("start", "xl create of an installed or built guest", start, changes=True),
    host_word("console", "its console; Ctrl-] leaves", console),
    host_word("shutdown", "shut down one guest, or all=yes, and wait", shutdown, "all", "timeout"),
    host_word("reboot", "start it again, kernel as it was", reboot),
    host_word("destroy", "end it at once: yes=yes", destroy, "yes"),
    host_word("save", "its memory into a file", save),
    host_word("restore", "go on where save stopped", restore),
    host_word("migrate", "move it: to=HOST live=yes dry=yes", migrate, "to", "live", "dry"),
)
