"""An installed appliance's day: its members started in their order, each when others are ready."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from pipeline.console.progress import print_line
from pipeline.dom0 import power
from pipeline.dom0.addresses import find_address
from pipeline.dom0.configuration import Grammar
from pipeline.dom0.inventory import Installed, list_members
from pipeline.dom0.layout import Layout
from pipeline.dom0.power import Host
from pipeline.errors import PipelineError, UsageError
from pipeline.xen.devices import Card

_POLL_S = 2.0
_CONNECT_S = 3.0
_SSH = 22
RunInside = Callable[[str, str, str], None]


def require_members(layout: Layout, appliance: str) -> dict[str, Installed]:
    """Its installed members, in their order; UsageError where there are none."""
    members = list_members(layout, appliance)
    if not members:
        raise UsageError(
            f"no member of {appliance} is installed here",
            hint=f"doit install appliance={appliance}; doit list-guests shows what is",
        )
    return members


def start(host: Host, appliance: str, *, timeout_s: float, run_inside: RunInside) -> None:
    """Start those that do not run, each when those before it are ready.

    `run_inside` runs a command in a guest at an address, and raises PipelineError where that
    fails. Raises
    PipelineError naming what did not become ready, and what was not started for it.
    """
    members = require_members(host.layout, appliance)
    xen = host.require_xen()
    waiting = list(members)
    for name, record in members.items():
        if name in xen.domains():
            print_line(f"  {name} runs already")
        else:
            guest = power.find_guest(host, name)
            for note in power.start(host, guest):
                print_line(f"  {note}")
            print_line(f"{name} is started from {guest.config}")
        waiting.remove(name)
        try:
            _await_ready(host, record, timeout_s=timeout_s, run_inside=run_inside)
        except PipelineError as error:
            error.hint = (
                f"{error.hint}; not started: {', '.join(waiting)}" if waiting else error.hint
            )
            raise


def shut_down(host: Host, appliance: str, *, timeout_s: float) -> Iterator[str]:
    """Shut down those that run, the last started first; yields each that is down."""
    members = require_members(host.layout, appliance)
    running = host.require_xen().domains()
    for name in reversed(members):
        if name in running:
            yield from power.shut_down(host, [power.find_guest(host, name)], timeout_s=timeout_s)


def _await_ready(host: Host, record: Installed, *, timeout_s: float, run_inside: RunInside) -> None:
    conditions = record.membership.ready if record.membership else ()
    if conditions and not _list_cards(record):
        told = f"{record.name} is on private bridges alone: this host cannot see"
        print_line(f"  {told} {', '.join(conditions)}, and does not wait for it")
        return
    end = time.monotonic() + timeout_s
    for condition in conditions:
        print_line(f"  waiting for {record.name}: {condition} (at most {timeout_s:.0f} s)")
        while why := _find_lack(host, record, condition, run_inside):
            if record.name not in host.require_xen().domains():
                raise PipelineError(
                    f"{record.name} ended before it was ready ({condition})",
                    hint=f"what it said: doit console name={record.name}, after doit start",
                )
            if time.monotonic() >= end:
                raise PipelineError(
                    f"{record.name} was not ready within {timeout_s:.0f} s: {condition}",
                    details=why,
                    hint=f"look: doit console name={record.name}; wait longer: timeout=900",
                )
            time.sleep(_POLL_S)


def _find_lack(host: Host, record: Installed, condition: str, run_inside: RunInside) -> str:
    """Why a condition does not hold, "" where it does."""
    kind, _, text = condition.partition(" ")
    try:
        if kind == "command":
            run_inside(record.name, _address_of(host, record), text)
        else:
            _connect(_address_of(host, record), _SSH if kind == "login" else int(text))
    except (PipelineError, OSError) as error:
        return str(error)
    return ""


def _address_of(host: Host, record: Installed) -> str:
    """Its first fixed address that the host sees, else what the host knows of its cards."""
    fixed = record.membership.addresses if record.membership else ()
    if fixed:
        return fixed[0]
    return find_address(host.layout, record.name, _list_cards(record), host.toolstack)[0]


def _list_cards(record: Installed) -> list[Card]:
    """Its cards on bridges that the host may be on."""
    private = record.membership.private if record.membership else ()
    cards = Grammar(record.toolstack).domain(record.config_text).cards
    return [card for card in cards if card.bridge not in private]


def _connect(address: str, port: int) -> None:
    with closing(socket.create_connection((address, port), timeout=_CONNECT_S)):
        pass
