"""What doit adopt takes."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, StrictBool, StrictInt

from pipeline.commands.options import Guest, NamedPath, Printed, read_path, split_words
from pipeline.errors import WrongValueError
from pipeline.foreign.machine_url import SCHEME, read_machine
from pipeline.spec import values


def _read_source(text: str) -> Path | str:
    """A machine's URL as it is, else a path from where it was typed."""
    if not text.startswith(SCHEME):
        return read_path(text)
    read_machine(text)
    return text


def _check_inside(text: str) -> str:
    parts = text.split("/")
    if not text.startswith("/") or not text.strip("/") or {".", ".."} & set(parts[1:]):
        raise WrongValueError(f"{text!r} is not a path of a guest", "as /srv/films")
    if not text.isprintable():
        raise WrongValueError(f"{text!r} is not a path of a guest", "letters that can be seen")
    return "/" + "/".join(filter(None, parts))


class Adopt(Guest, Printed):
    """doit adopt."""

    source: Annotated[Path | str, BeforeValidator(_read_source)] = Field(
        alias="from",
        title="from where?",
        description="A tar, a folder, a disk (raw, qcow2, VMDK, VHD, XVA, OVA), or ssh://[user@]HOST[:port].",
        examples=["/srv/old.qcow2", "ssh://root@web1"],
    )
    dry: StrictBool = Field(False, description="Only say what it is, and what would be changed.")
    kernel: Annotated[str, BeforeValidator(values.check_package)] = Field(
        "",
        description="A kernel package to boot it with. Default: its own, where that can.",
        examples=["linux-image-cloud-amd64"],
    )
    without: Annotated[
        tuple[Annotated[str, BeforeValidator(_check_inside)], ...], BeforeValidator(split_words)
    ] = Field((), description="Paths that stay there.", examples=["/srv/films,/var/cache"])
    mounts: StrictBool = Field(
        False, description="With a folder: also the file systems that are mounted in it."
    )
    part: Annotated[StrictInt, Field(ge=1, le=1024)] | None = Field(
        None, description="With a disk: the partition of its root file system.", examples=[2]
    )
    key: NamedPath | None = Field(
        None,
        description="With a machine: the private SSH key. Default: those of ssh itself.",
        examples=["~/.ssh/id_ed25519"],
    )
    known_hosts: NamedPath | None = Field(
        None,
        description="With a machine: its host key. Default: what ssh knows.",
        examples=["known_hosts"],
    )
    replace: StrictBool = Field(False, description="Replace what was adopted by this name.")
