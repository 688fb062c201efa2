"""A root file system that was adopted, as it waits in output/adopted/NAME: its tar and its record.

What the guest half has to know of it is how its own tools are told a name and an address.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import UsageError, VerificationError
from pipeline.files import open_plain
from pipeline.project import Project

TAR, RECORD = "rootfs.tar", "record.json"
_MOST_RECORD = 64 << 20
NetworkTool = Literal["ifupdown", "networkd", "netplan", "NetworkManager"]


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What is known of the tree: `sha256` and `bytes` are the tar's, `epoch` its newest file's.

    `network` is the tool that its cards are told to, `is_systemd` its init, `has_sshd` whether it
    can be entered over SSH, `lib` where its libraries are (usr/lib where /lib is a link). `fstab`
    are further lines of its own; `kernel` is the ABI of its own kernel that boots, "" where it has
    none.
    """

    sha256: str
    bytes: int
    epoch: int
    network: NetworkTool
    is_systemd: bool = True
    has_sshd: bool = True
    is_debian_family: bool = False
    lib: str = "lib"
    os_name: str = ""
    os_id: str = ""
    kernel: str = ""
    fstab: tuple[str, ...] = ()


def read_adopted(project: Project, name: str) -> Adopted:
    """The record of output/adopted/NAME; UsageError where nothing was adopted under that name."""
    folder = project.adopted / name
    try:
        with open(open_plain(folder / RECORD), "rb") as stream:
            table = json.loads(stream.read(_MOST_RECORD))
        adopted = TypeAdapter(Adopted).validate_python(table["tree"])
    except FileNotFoundError:
        raise UsageError(
            f"adopted = '{name}': there is no {folder}",
            hint=f"doit adopt from=TAR|FOLDER|DISK|ssh://HOST name={name}",
        ) from None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise VerificationError(f"{folder / RECORD} is damaged", hint="adopt it again") from error
    if not re.fullmatch("[0-9a-f]{64}", adopted.sha256):
        raise VerificationError(f"{folder / RECORD} is damaged", hint="adopt it again")
    return adopted


def tar_of(project: Project, name: str) -> Path:
    """Its tar."""
    return project.adopted / name / TAR
