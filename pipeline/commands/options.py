"""What each command takes, as models: read, checked and explained before anything runs.

A field's alias is the word that is typed, where Python has its own meaning for it. The title of
one that must be given is what is asked where it is not. (No `from __future__ import annotations`:
without it pydantic need not evaluate them as texts, at every start.)
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
)
from pydantic.fields import FieldInfo

from pipeline.build_options import BuildOptions, NetworkOptions, SourceOptions
from pipeline.caller import caller_folder
from pipeline.errors import WrongValueError
from pipeline.fleet.address import check_workers
from pipeline.shared.fleet_file import StoreUrl
from pipeline.spec import values
from pipeline.xen.values import matching


def read_path(text: str) -> Path:
    """Absolute; a relative one is meant from where it was typed."""
    try:
        return caller_folder() / Path(values.check_path(text)).expanduser()
    except RuntimeError:
        raise WrongValueError(f"{text!r} names the home of nobody here") from None


def _check_target(text: str) -> str:
    if not text or text.startswith("-") or not text.isprintable() or " " in text:
        raise WrongValueError(f"{text!r} is not a host", "a host name or an address")
    return text


def _check_names(text: str) -> str:
    for name in text.split(","):
        values.check_guest_name(name)
    return text


GuestNames = Annotated[str, BeforeValidator(_check_names)]


_check_user = matching("[A-Za-z_][A-Za-z0-9_.-]*", "is not a user", "as root")


def _check_command(text: str) -> str:
    if not text.isprintable():
        raise WrongValueError(f"{text!r} is not a line of text", "one line, as a shell takes it")
    return text


NamedPath = Annotated[Path, BeforeValidator(read_path)]


_SCHEMES = ("https://", "http://", "file:///")


def _check_url(text: str) -> str:
    is_plain = text.isprintable() and text.isascii() and not set(" ?#@\\") & set(text)
    if not (text.startswith(_SCHEMES) and is_plain and text.partition("://")[2].strip("/")):
        raise WrongValueError(
            f"{text!r} is no repository", "https://images.example.org or file:///srv/images"
        )
    return text.rstrip("/")


_check_channel = matching("[a-z][a-z0-9-]{0,30}", "is no channel", "stable or nightly")


Url = Annotated[str, BeforeValidator(_check_url)]
ChannelName = Annotated[str, BeforeValidator(_check_channel)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    alternatives: ClassVar[tuple[str, ...]] = ()

    def require_sense(self) -> None:
        """Raises WrongValueError where what is asked for does not go together."""
        both = [f"{name}=" for name in self.alternatives if getattr(self, name)]
        if len(both) > 1:
            raise WrongValueError(f"{' and '.join(both)} are both asked for", "keep one of them")


class Options(_Part):
    """What every command takes."""

    events: NamedPath | None = Field(
        None,
        description="File to which a JSON object is added for all that happens "
        "(docs/how-to/ci.md).",
        examples=["events.jsonl"],
    )


def variables_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """What may stand before `=`, with its field; name first, events last."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    order = {"name": 0, "events": 2}
    return {name: fields[name] for name in sorted(fields, key=lambda name: order.get(name, 1))}


class Guests(Options):
    """Guests of guests/."""

    name: GuestNames | None = Field(
        None,
        description="Which guest, or several by comma; all of them without it.",
        examples=["test-drbd"],
    )


class Members(Options):
    """Commands that may be about an appliance."""

    alternatives: ClassVar[tuple[str, ...]] = ("name", "appliance")

    appliance: values.GuestName | None = Field(
        None,
        description="Which appliance: all its members (docs/how-to/appliances.md).",
        examples=["test-drbd"],
    )


class Printed(_Part):
    """Commands that answer programs too."""

    json_form: StrictBool = Field(False, alias="json", description="As JSON, for programs.")


class Judged(_Part):
    """Commands that judge guests."""

    junit: NamedPath | None = Field(
        None,
        description="File that gets what was found as JUnit XML, for CI systems.",
        examples=["check.xml"],
    )


class Sharing(_Part):
    """Commands that build, with other machines."""

    store: StoreUrl | None = Field(
        None,
        description="Store that machines share, asked before a stage is built and given what was "
        "(docs/how-to/shared-store.md). Default: DOMU_STORE's, then fleet.toml's; none: no store.",
        examples=["s3://builds/store", "sftp://store.lan/srv/store"],
    )


class ByFleet(Sharing):
    """Commands whose stages a fleet can build, or whose guests it can prove."""

    workers: Annotated[str, AfterValidator(check_workers)] | None = Field(
        None,
        description="Fleet that does it: its scheduler, or local:2, two workers of this machine's "
        "own (docs/how-to/fleet.md).",
        examples=["tls://build1:8786", "local:2"],
    )


class Look(Members, Guests, SourceOptions):
    """Commands that read what was built."""


class BuildGuests(Guests, BuildOptions, ByFleet, Printed):
    """Commands that build guests."""


class Build(Members, BuildGuests):
    """Commands that build, and the stages."""


class Create(BuildGuests):
    """doit create."""

    name: values.GuestName | None = Field(
        None, description="The new guest; hostname= names it too.", examples=["web1"]
    )


class Listing(Options, Printed):
    """Commands that print a table."""


class Why(Look, Printed):
    """doit why."""


class Check(Why, Judged):
    """doit check."""


class Login(Printed, Judged):
    """How a guest is entered and asked in a proof."""

    prove_key: NamedPath | None = Field(
        None,
        description="Your private SSH key to log in with. Default: one of this proof alone.",
        examples=["~/.ssh/id_ed25519"],
    )
    prove_password: NamedPath | None = Field(
        None,
        description="File whose first line is root's password. Default: that of the spec.",
        examples=["/root/secrets/web1"],
    )
    prove_netboot: NamedPath | None = Field(
        None,
        description="Loader that a guest is offered that starts from the network; its folder is"
        " served by TFTP. Default: a script that shows a line.",
        examples=["netboot/pxelinux.0"],
    )
    prove_long: StrictBool = Field(
        False, description="Also what takes long: apt-get update, an upgrade, the other kernel."
    )


Boot = Literal["own", "all", "pvh", "hvm", "pvh-uefi", "hvm-uefi", "qemu", "qemu-uefi"]


def split_words(given: object) -> object:
    """A list as the command line has it: words with commas between them."""
    return tuple(given.split(",")) if isinstance(given, str) else given


class Prove(Look, ByFleet, Login):
    """doit prove."""

    prove_as_is: StrictBool = Field(
        False, description="Judge it by the spec that it was built from, not by today's."
    )
    prove_with: Literal["qemu", "xl"] = Field(
        "qemu", description="An emulated Xen host (qemu), or this machine's own Xen, a dom0 (xl)."
    )
    boots: Annotated[tuple[Boot, ...], BeforeValidator(split_words)] = Field(
        ("own",),
        description="Ways in which a whole disk is started, one after the other: its own; under Xen"
        " pvh, hvm, pvh-uefi, hvm-uefi; in plain QEMU qemu (SeaBIOS), qemu-uefi (Debian's OVMF)."
        " all: each of them (docs/how-to/uefi.md).",
        examples=["all", "pvh,hvm,qemu,qemu-uefi"],
    )


class ProveCfg(Options, Login, NetworkOptions):
    """doit prove-cfg."""

    cfg: NamedPath = Field(
        title="which configuration?",
        description="An xl configuration file.",
        examples=["/etc/xen/web1.cfg"],
    )
    prove_xen: values.XenVersion = Field(
        "4.17", description="Release of Xen in the test host.", examples=["4.17"]
    )


class Unproven(_Part):
    """Commands that want a proven guest."""

    unproven: StrictBool = Field(False, description="Go on with a guest that was not proven.")


class Signing(_Part):
    """Commands that sign, where this site has keys."""

    passphrase: NamedPath | None = Field(
        None,
        description="File with the passphrase of the keys that sign, where they have one.",
        examples=["/root/secrets/keys"],
    )


class Publish(Look, Unproven, Signing):
    """doit publish."""

    keep: Annotated[StrictInt, Field(ge=1)] = Field(
        7, description="How many versions stay.", examples=[7]
    )
    rollback: StrictBool = Field(
        False, description="Make the version before the current one again, publish nothing."
    )
    channel: Literal["nightly", "stable"] = Field(
        "nightly", description="With rollback: the channel that goes back; nightly is `current`."
    )


class Guest(Options):
    """Commands about one guest of this host."""

    name: values.GuestName = Field(
        title="which guest?", description="Which guest.", examples=["test-drbd"]
    )


class GuestOrAppliance(Members):
    """Commands about one guest of this host, or about an appliance's."""

    name: values.GuestName = Field("", description="Which guest.", examples=["test-drbd"])

    def require_sense(self) -> None:
        """One of both."""
        super().require_sense()
        if not (self.name or self.appliance):
            raise WrongValueError("which guest?", "add name=, as name=test-drbd, or appliance=")


class Source(_Part):
    """Commands that may take a guest from elsewhere."""

    source: NamedPath | None = Field(
        None,
        alias="from",
        description="Folder to take it from. Default: what was built here.",
        examples=["/srv/web1"],
    )


class Install(GuestOrAppliance, Unproven):
    """doit install."""

    source: Annotated[
        Literal["published"] | Url | NamedPath | None, Field(union_mode="left_to_right")
    ] = Field(
        None,
        alias="from",
        description="`published`, an artifact folder, or the URL of an image repository. "
        "Default: what was built here.",
        examples=["published", "https://images.example.org"],
    )
    channel: ChannelName = Field(
        "stable", description="Which channel of the repository.", examples=["nightly"]
    )
    root: NamedPath | None = Field(
        None,
        description="The repository's root of trust, keys/root.json of who publishes: "
        "once for each host.",
        examples=["/root/root.json"],
    )
    autostart: StrictBool | None = Field(
        None, description="Start it with the host. Default: as its spec says, or as it was before."
    )
    replace: StrictBool = Field(False, description="Replace the guest of this name.")
    lvm: values.GroupName | None = Field(
        None, description="Volume group that gets the disks.", examples=["VG0"]
    )
    toolstack: Literal["xl", "xm"] = Field(
        "xl", description="Where no Xen runs: the program that will start it."
    )


class Remove(Guest):
    """Commands that may lose something."""

    yes: StrictBool = Field(False, description="Yes, what would be lost may be lost.")


class RemoveInstalled(GuestOrAppliance):
    """doit remove."""

    yes: StrictBool = Field(False, description="Yes, what would be lost may be lost.")


class Start(GuestOrAppliance):
    """doit start."""

    timeout: Annotated[StrictInt, Field(ge=0)] = Field(
        300, description="Seconds to wait for each member to be ready.", examples=[600]
    )


class Delete(Remove):
    """doit delete."""

    spec: StrictBool = Field(
        False, description="Also its spec, its lock and its identity (host keys, machine-id)."
    )
    published: StrictBool = Field(False, description="Also what was published of it.")
    dry: StrictBool = Field(False, description="Only say what would go.")


class Undoable(_Part):
    """Changes of a guest that keep what was before."""

    alternatives = ("undo", "purge")

    undo: StrictBool = Field(False, description="Back to what was before.")
    purge: StrictBool = Field(False, description="Remove what was before: no undo any more.")


class Change(Source, Undoable):
    """Changes of an installed guest."""


class Refresh(Options, Change):
    """doit refresh."""

    name: values.GuestName | None = Field(
        None, description="Which guest; all that are installed without it.", examples=["test-drbd"]
    )
    restart: StrictBool = Field(
        False, description="Shut a running guest down and start it with the new kernel."
    )


class Resize(Guest):
    """doit resize."""

    size: Annotated[str, BeforeValidator(values.check_part_size)] = Field(
        title="to which size?", description="The root disk's new size.", examples=["8G"]
    )


class Rebuild(Guest, Unproven, Change):
    """doit rebuild."""


class Doctor(Listing):
    """doit doctor."""

    dry: StrictBool = Field(
        False, description="Only look: leave what killed commands left, show what fix would do."
    )
    fix: StrictBool = Field(
        False, description="Mend what the command dom0 can set and take back, as one change."
    )


class Shutdown(Members):
    """doit shutdown."""

    name: values.GuestName | None = Field(None, description="Which guest.", examples=["test-drbd"])
    all_guests: StrictBool = Field(False, alias="all", description="All that run.")
    timeout: Annotated[StrictInt, Field(ge=0)] = Field(
        180, description="Seconds to wait for it.", examples=[600]
    )

    def require_sense(self) -> None:
        """A guest, an appliance, or all."""
        super().require_sense()
        if not (self.name or self.appliance or self.all_guests):
            hint = "add name=, as name=test-drbd, appliance=, or all=yes"
            raise WrongValueError("which guest?", hint)


class Ssh(Guest, Source):
    """doit ssh."""

    address: Annotated[str, BeforeValidator(_check_target)] | None = Field(
        None,
        description="Its address. Default: the fixed one, else it is looked for.",
        examples=["192.168.1.20"],
    )
    user: Annotated[str, BeforeValidator(_check_user)] = Field(
        "root", description="Who logs in.", examples=["root"]
    )
    key: NamedPath | None = Field(
        None,
        description="Private SSH key. Default: those of ssh itself.",
        examples=["~/.ssh/id_ed25519"],
    )
    command: Annotated[str, BeforeValidator(_check_command)] = Field(
        "", description="Command to run there. Default: a shell.", examples=["uptime"]
    )


class Migrate(Guest):
    """doit migrate."""

    to: Annotated[str, BeforeValidator(_check_target)] = Field(
        title="migrate where?",
        description="The other host, which takes root's SSH key.",
        examples=["xen2"],
    )
    live: StrictBool = Field(False, description="xm: let it run while its memory is copied.")
    dry: StrictBool = Field(False, description="Only say what would move and what must be there.")


class Completion(Options):
    """doit completion."""

    shell: Literal["bash", "zsh", "fish"] = Field(
        title="for which shell?", description="Which shell.", examples=["bash"]
    )
