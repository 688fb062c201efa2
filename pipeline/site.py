"""Where a user's own things are: a site, a folder beside this checkout, or the checkout itself.

`doit init FOLDER` makes one. DOMU_SITE names it; else it is the folder in which the user stands,
or one above, that holds the marker.
"""

import os
from pathlib import Path

from pipeline import ROOT
from pipeline.caller import caller_folder
from pipeline.errors import EnvironmentFault, UsageError

MARKER = "domu.toml"
SCHEMA = "spec.schema.json"


def find_folder(variable: str) -> Path | None:
    """What an environment variable names, relative to where the user stands; None if unset."""
    named = os.environ.get(variable)
    if named is None:
        return None
    if not named.strip() or not named.isprintable():
        raise UsageError(f"{variable}={named!r} names no folder", hint="unset it, or name one")
    return (caller_folder() / named).absolute()


def find_site() -> Path | None:
    """The site in use; None where the checkout serves.

    Raises EnvironmentFault for one of somebody else's in which the user merely stands: its elements
    would be run, its paths be read.
    """
    named = find_folder("DOMU_SITE")
    if named is not None:
        return named
    here = caller_folder()
    site = next((path for path in (here, *here.parents) if (path / MARKER).is_file()), None)
    if site is not None and (site / MARKER).stat().st_uid not in (0, os.geteuid()):
        raise EnvironmentFault(
            f"{site} is a site of another user's",
            hint=f"DOMU_SITE={site} uses it all the same; or go to another folder",
        )
    return site


def find_home() -> Path:
    """Where guests/, mirrors/ and output/ are: the site's folder, else this checkout."""
    return find_site() or ROOT


def find_schema(guests: Path) -> str:
    """The schema of specs, as a file of this folder names it for editors."""
    for place in (f"../{SCHEMA}", f"../docs/{SCHEMA}"):
        if (guests / place).exists():
            return place
    return str(ROOT / "docs" / SCHEMA)
