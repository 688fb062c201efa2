"""fleet.toml, beside guests/: the store that machines share, and who they are to one another."""

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictStr

from pipeline.errors import UsageError, WrongValueError, show_value
from pipeline.project import Project
from pipeline.spec.table_file import read_table_file

VARIABLE = "DOMU_STORE"
NO_STORE = "none"
_SCHEMES = ("s3", "sftp", "file", "http", "https")
_EXAMPLES = "s3://bucket/store, sftp://host/srv/store, file:///srv/store, https://host/store"


def check_store(text: object) -> str:
    """The URL of a store, or `none`; raises WrongValueError."""
    if not isinstance(text, str):
        raise WrongValueError(f"{show_value(text)} is no URL of a store", _EXAMPLES)
    if text == NO_STORE:
        return text
    try:
        parts = urlsplit(text)
        has_place = bool(parts.path.strip("/") if parts.scheme == "file" else parts.hostname)
        is_plain = text.isprintable() and text.isascii() and not set(" ?#\\'\"") & set(text)
        is_known = parts.scheme in _SCHEMES and parts.port != 0
    except ValueError:
        is_known = is_plain = has_place = False
    if not (is_known and is_plain and has_place) or (parts.scheme == "file" and parts.netloc):
        raise WrongValueError(f"{show_value(text)} is no URL of a store", _EXAMPLES)
    return text.rstrip("/")


StoreUrl = Annotated[str, BeforeValidator(check_store)]


class FleetFile(BaseModel):
    """What all commands of a site take where they are told nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    store: StoreUrl | None = None
    certificates: StrictStr | None = None
    party: StrictStr | None = None
    workers: StrictStr | None = None


def read_fleet_file(project: Project) -> FleetFile:
    """The site's; an empty one where there is none. SpecError with every mistake in it."""
    path = project.fleet_file
    if not path.exists():
        return FleetFile()
    return read_table_file(path, FleetFile, prepare=_with_folder)


def find_store(project: Project, given: str | None) -> str:
    """The store of this run, "" for none: the command line's, DOMU_STORE's, fleet.toml's."""
    url = given or os.environ.get(VARIABLE, "")
    if url and not given:
        try:
            url = check_store(url)
        except WrongValueError as error:
            raise UsageError(f"{VARIABLE}: {error.message}", hint=error.hint) from error
    url = url or read_fleet_file(project).store or ""
    return "" if url == NO_STORE else url


def find_workers(project: Project, given: str) -> str:
    """The fleet that builds, "" for none: the command line's, then fleet.toml's."""
    workers = given or read_fleet_file(project).workers or ""
    return "" if workers == NO_STORE else workers


def find_certificates(project: Project) -> Path:
    """The folder of the fleet's certificates: fleet.toml's, else the site's fleet/."""
    named = read_fleet_file(project).certificates
    return Path(named) if named else project.fleet


def find_party_name(project: Project) -> str:
    """Who this machine is among several certificates in one folder; "" where nobody says so."""
    return read_fleet_file(project).party or ""


def _with_folder(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A path is meant from where the file is."""
    named = table.get("certificates")
    if isinstance(named, str) and named:
        table["certificates"] = str(folder.absolute() / Path(named).expanduser())
    return table
