"""Many machines that build together."""

import os
import sys
import time
from datetime import UTC, datetime

from distributed import Client

from pipeline.commands.fleet_options import Fleet
from pipeline.commands.site import describe_service
from pipeline.console.answer import ANSWER
from pipeline.console.progress import is_terminal, print_line, print_table
from pipeline.errors import UsageError
from pipeline.fleet.address import Address, read_address
from pipeline.fleet.daemons import address_file, be_scheduler, be_worker, find_scheduler
from pipeline.fleet.engine import connect
from pipeline.fleet.handshake import find_own_party, require_party, require_scheduler
from pipeline.fleet.prover import can_prove
from pipeline.fleet.services import SCHEDULER, WORKER, render_services
from pipeline.fleet.status import HEAD, read_status, stop, table_of
from pipeline.fleet.task_graph import BUILD, PROVE
from pipeline.fleet.workplace import Workplace
from pipeline.mirror.proxy.units import write_units
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.shared.fleet_file import find_certificates, read_fleet_file
from pipeline.walls.certificates import find_party, make_authority, make_party

_LOOK_S = 2.0


def fleet(recipe: Recipe, _specs: object, asked: Fleet) -> None:
    """What is asked for."""
    project = recipe.project
    if asked.what == "certificates":
        _make_certificates(project, asked)
    elif asked.what == "units":
        _write_units(project, asked)
    elif asked.what == "scheduler":
        _be_scheduler(project, asked)
    elif asked.what == "worker":
        _be_worker(project, asked)
    else:
        _ask(project, asked)


def _make_certificates(project: Project, asked: Fleet) -> None:
    folder = asked.certificates or project.fleet
    now = datetime.now(UTC)
    if make_authority(folder, now):
        print_line(f"{folder}: an authority of this fleet's own, ca.pem; ca-key.pem stays here")
    parties = asked.parties or (os.uname().nodename,)
    for name, *places in (party.split("@") for party in parties):
        party = make_party(folder, name, places, now, renew=asked.renew)
        find_party(folder, name).require_valid(now)
        print_line(f"  {party.certificate.name}, {party.key.name}")
    print_line("  each machine gets ca.pem and its own two files, in a folder of mode 0700")


def _be_scheduler(project: Project, asked: Fleet) -> None:
    party = find_own_party(project, asked.certificates, asked.party)
    default = "tls://0.0.0.0" if party else "tcp://127.0.0.1"
    be_scheduler(project, read_address(asked.listen or default), party)


def _be_worker(project: Project, asked: Fleet) -> None:
    party = find_own_party(project, asked.certificates, asked.party)
    build = max(1, (os.cpu_count() or 1) // 2) if asked.build is None else asked.build
    prove = can_prove() if asked.prove is None else asked.prove
    name = asked.worker or (party.name if party else os.uname().nodename)
    workplace = Workplace(
        project,
        name,
        {BUILD: float(build), PROVE: float(prove)},
        str(party.folder if party else find_certificates(project)),
        party.name if party else "",
        asked.store or "",
    )
    be_worker(workplace, _find_address(project, asked), party)


def _find_address(project: Project, asked: Fleet) -> Address:
    """The scheduler that is named, or the one on this machine."""
    named = read_fleet_file(project).workers
    here = asked.scheduler or named or find_scheduler(address_file(project))
    if not here:
        raise UsageError(
            "which scheduler?", hint="add scheduler=tls://HOST:8786; doit fleet scheduler is one"
        )
    return read_address(here)


def _ask(project: Project, asked: Fleet) -> None:
    """What the fleet does, or have it stop."""
    address = _find_address(project, asked)
    party = require_party(address, find_own_party(project, asked.certificates, asked.party))
    require_scheduler(address, party)
    with connect(address, party) as client:
        if asked.what == "stop":
            stop(client)
            print_line(f"{address} and its workers are told to stop")
            return
        if asked.json_form:
            ANSWER.add("", **read_status(client))
            return
        _watch(client, address)


def _watch(client: Client, address: Address) -> None:
    """The table, once; on a terminal again and again, until Ctrl-C."""
    while True:
        status = read_status(client)
        if is_terminal():
            sys.stdout.write("\x1b[2J\x1b[H")
        print_line(f"{address}: {status['handed_out']} handed out")
        print_table(table_of(status), head=HEAD, indent=2)
        if not is_terminal():
            return
        time.sleep(_LOOK_S)


def _write_units(project: Project, asked: Fleet) -> None:
    if asked.units is None or asked.scheduler is None:
        raise UsageError(
            "where to, and for which scheduler?",
            hint="doit fleet units units=FOLDER scheduler=tls://build1:8786",
        )
    services = render_services(**describe_service(project), address=read_address(asked.scheduler))
    for path in write_units(services, asked.units):
        print_line(f"wrote {path}")
    print_line("  as root, the scheduler on one machine, a worker on each:")
    print_line(f"    cp -r {asked.units}/etc / && systemctl daemon-reload")
    print_line(f"    systemctl enable --now {SCHEDULER}.service {WORKER}.service")
