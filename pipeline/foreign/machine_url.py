"""The address of a machine to adopt: ssh://[user@]HOST[:port]."""

import re
from dataclasses import dataclass

from pipeline.errors import WrongValueError

SCHEME = "ssh://"
_URL = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?"
)


@dataclass(frozen=True)
class Machine:
    """Who logs in where; "" for what ssh itself chooses."""

    host: str
    user: str = ""
    port: str = ""


def read_machine(url: str) -> Machine:
    """Its parts; WrongValueError for anything else, a path on the machine too."""
    match = _URL.fullmatch(url)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise WrongValueError(f"{url!r} is no machine", "ssh://root@web1.example.org:22")
    return Machine(match["host"].strip("[]"), match["user"] or "", match["port"] or "")
