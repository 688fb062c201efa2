"""What the commands take that bring along what others have made, and those that xen-tools had."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt

from pipeline.commands.options import (
    Create,
    Guest,
    GuestNames,
    NamedPath,
    Options,
    Printed,
    ProveCfg,
    Undoable,
    Unproven,
    read_path,
    split_words,
)
from pipeline.errors import WrongValueError
from pipeline.foreign.machine_url import SCHEME, read_machine
from pipeline.spec import values
from pipeline.xen.values import matching


def _split(given: object) -> object:
    files = given.split(",") if isinstance(given, str) else given
    if not files:
        raise WrongValueError("no file is named", "write it as /etc/xen/web1.cfg")
    return files


class Import(Options, Printed):
    """doit import."""

    file: Annotated[tuple[NamedPath, ...], BeforeValidator(_split)] = Field(
        title="which configuration?",
        description="Configurations of xl or xm, libvirt's XML, xen-tools.conf; or a folder of "
        "them. What each is, its content says.",
        examples=["/etc/xen/web1.cfg", "/etc/xen"],
    )
    name: values.GuestName | None = Field(
        None, description="Another name for the guest.", examples=["web1"]
    )
    suite: values.SuiteName | None = Field(
        None,
        description="The release that the guest is. Default: a guess by the kernel's name.",
        examples=["bookworm"],
    )
    replace: StrictBool = Field(False, description="Write over the spec that is there.")
    dry: StrictBool = Field(False, description="Only show what would be written.")


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


class Modernize(ProveCfg, Unproven, Undoable):
    """doit modernize."""

    dry: StrictBool = Field(False, description="Only say what is wrong and what would change.")
    boot: Literal["grub", "direct"] | None = Field(
        None,
        description="Who loads the kernel: GRUB in the guest (the kernel inside it), or dom0. "
        "Default: as now, GRUB in pygrub's place.",
    )

    @property
    def name(self) -> str:
        """The guest's, as its file is called."""
        return self.cfg.name.removesuffix(".cfg")

    def require_sense(self) -> None:
        """A file of /etc/xen is called as its guest."""
        super().require_sense()
        try:
            values.check_guest_name(self.name)
        except WrongValueError as error:
            raise WrongValueError(
                f"cfg={self.cfg}: {error.message}",
                "a configuration is called as its guest, NAME.cfg",
            ) from None


_check_extension = matching("[a-z0-9_.-]*", "ends no file's name", "for example: .cfg")
Extension = Annotated[str, BeforeValidator(_check_extension)]


class CreateImage(Create):
    """doit xen-create-image."""

    start: StrictBool = Field(False, description="Start it once it is installed (--boot).")
    genpass: StrictBool = Field(
        True, description="Make up root's password where none is given; it is kept in a file."
    )
    genpass_len: Annotated[StrictInt, Field(ge=1, le=512)] = Field(
        23, description="How long it is.", examples=[23]
    )


class ListImages(Options):
    """doit xen-list-images."""

    folder: NamedPath | None = Field(
        None,
        description="Where the configurations are (--test). Default: /etc/xen.",
        examples=["/etc/xen"],
    )
    extension: Extension = Field(".cfg", description="How their names end.", examples=[".cfg"])


class NamedImages(Options):
    """doit xen-update-image."""

    names: GuestNames = Field(
        alias="name", title="which guests?", description="Which guests.", examples=["web1,web2"]
    )


class DeleteImages(NamedImages):
    """doit xen-delete-image."""

    dry: StrictBool = Field(False, description="Only say what would go (--dry-run).")
