"""Many machines that build together."""

import os
from datetime import UTC, datetime

from pipeline.commands.fleet_options import Fleet
from pipeline.console.progress import print_line
from pipeline.recipe import Recipe
from pipeline.walls.certificates import find_party, make_authority, make_party


def fleet(recipe: Recipe, _specs: object, asked: Fleet) -> None:
    """What is asked for."""
    _make_certificates(recipe, asked)


def _make_certificates(recipe: Recipe, asked: Fleet) -> None:
    folder = asked.certificates or recipe.project.fleet
    now = datetime.now(UTC)
    if make_authority(folder, now):
        print_line(f"{folder}: an authority of this fleet's own, ca.pem; ca-key.pem stays here")
    parties = asked.parties or (os.uname().nodename,)
    for name, *places in (party.split("@") for party in parties):
        party = make_party(folder, name, places, now, renew=asked.renew)
        find_party(folder, name).require_valid(now)
        print_line(f"  {party.certificate.name}, {party.key.name}")
    print_line("  each machine gets ca.pem and its own two files, in a folder of mode 0700")
