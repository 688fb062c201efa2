"""What the commands take that deliver images: who publishes, signs, verifies and fetches them."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool

from pipeline.artifact.channels import LINKS
from pipeline.commands.options import (
    ByFleet,
    ChannelName,
    Guest,
    GuestNames,
    Judged,
    Listing,
    NamedPath,
    Options,
    Printed,
    Signing,
    Unproven,
    Url,
    read_path,
)
from pipeline.errors import WrongValueError
from pipeline.spec import values
from pipeline.xen.values import matching

_check_time = matching("([01][0-9]|2[0-3]):[0-5][0-9]", "is not a time of the day", "as 03:30")
_VERSION = r"2\d{7}T\d{6}Z-[0-9a-f]{8}"
_check_version = matching(_VERSION, "is not a version", "as in output/published/NAME/")


class Nightly(Options, ByFleet, Printed, Judged):
    """doit nightly."""

    name: GuestNames | None = Field(
        None,
        description="Which guests of nightly.toml, by comma; all of them without it.",
        examples=["test-drbd"],
    )
    limit: values.Duration | None = Field(
        None,
        description="Nothing is begun after this time; 0: any. Default: as nightly.toml says.",
        examples=["6h"],
    )
    quiet: StrictBool = Field(False, description="Say something only where something went wrong.")
    units: NamedPath | None = Field(
        None,
        description="Folder that gets a systemd service and timer for it; no night is begun.",
        examples=["units"],
    )
    at: Annotated[str, BeforeValidator(_check_time)] = Field(
        "03:30", description="With units: when the timer begins a night.", examples=["03:30"]
    )


class Promote(Guest, Unproven, Signing):
    """doit promote."""

    alternatives = ("version", "rollback")

    version: Annotated[str, BeforeValidator(_check_version)] = Field(
        "",
        description="To which version. Default: that of the channel nightly.",
        examples=["20261124T193000Z-1f2e3d4c"],
    )
    channel: Literal["nightly", "stable"] = Field("stable", description="Which channel moves.")
    rollback: StrictBool = Field(False, description="To the version before the one it is at.")


class Keys(Options):
    """doit keys."""

    alternatives = ("rotate", "sign")

    rotate: Literal["root", "targets", "snapshot", "timestamp", "statements"] | None = Field(
        None, description="Make another key for this role, the old one counts no more."
    )
    sign: StrictBool = Field(
        False, description="Make no key: serve what is published, and renew what expires."
    )
    passphrase: NamedPath | None = Field(
        None,
        description="File with the passphrase of the keys but the root's. Default: none.",
        examples=["/root/secrets/keys"],
    )
    root_passphrase: NamedPath | None = Field(
        None,
        description="File with the passphrase of the root key. Default: none.",
        examples=["/media/stick/passphrase"],
    )


def _check_place(text: str) -> str:
    scheme, _, rest = text.partition("://")
    is_plain = text.isprintable() and text.isascii() and not set(" ?#\\") & set(text)
    if not is_plain or not re.fullmatch("[a-z][a-z0-9+]*", scheme) or not rest.strip("/"):
        raise WrongValueError(
            f"{text!r} is no place", "file:///srv/images, s3://bucket/images, sftp://host/images"
        )
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise WrongValueError(
            "a password does not belong here: others could read it",
            "put it where the library of that place looks for it (docs/how-to/repository.md)",
        )
    return text.rstrip("/")


class Upload(Options):
    """doit upload-images."""

    to: Annotated[str, BeforeValidator(_check_place)] = Field(
        title="upload where?",
        description="Where it is served from.",
        examples=["file:///srv/images", "s3://bucket/images"],
    )


class ListImages(Listing):
    """doit list-images."""

    source: Url = Field(
        alias="from",
        title="from which repository?",
        description="Which repository.",
        examples=["https://images.example.org"],
    )
    root: NamedPath | None = Field(
        None,
        description="Root of trust, keys/root.json of who publishes: once for each host.",
        examples=["/root/root.json"],
    )


class Update(Options, Unproven):
    """doit update."""

    name: values.GuestName | None = Field(
        None,
        description="Which guest; all that came from a repository without it.",
        examples=["web1"],
    )
    channel: ChannelName | None = Field(
        None, description="Another channel from now on.", examples=["stable"]
    )
    root: NamedPath | None = Field(
        None,
        description="New root of trust, where the repository's keys were lost.",
        examples=["/root/root.json"],
    )
    restart: StrictBool = Field(
        False, description="Shut a running guest down for it and start it again."
    )
    dry: StrictBool = Field(False, description="Only say what is newer.")


def _check_version_or_channel(text: str) -> str:
    if text not in LINKS and not re.fullmatch(_VERSION, text):
        raise WrongValueError(
            f"{text!r} is neither a version nor a channel", "as in output/published/NAME/, stable"
        )
    return text


def _read_place(text: str) -> str:
    """A folder may be named as a URL; what a web server has comes by the image repository."""
    place = text.removeprefix("file://")
    if "://" in place:
        raise WrongValueError(
            f"{text!r} is not a folder",
            "copy it here; or from=URL of list-images and install, which verify what they fetch",
        )
    return place


Folder = Annotated[NamedPath, BeforeValidator(_read_place)]
Version = Annotated[str, BeforeValidator(_check_version_or_channel)]


class Verify(Options, Printed):
    """doit verify."""

    alternatives = ("name", "folder")

    folder: Folder | None = Field(
        None, description="Folder of a published version.", examples=["/srv/images/web1/current"]
    )
    name: values.GuestName | None = Field(
        None, description="Guest whose published version is meant.", examples=["test-drbd"]
    )
    version: Version | None = Field(
        None,
        description="Which of its versions, or a channel's: stable. Default: the current one.",
        examples=["20261124T193000Z-1f2e3d4c"],
    )
    key: NamedPath | None = Field(
        None,
        description="Public key of who signed. Default: this site's own, keys/statements.pub.",
        examples=["statements.pub"],
    )


class Reproduce(Guest, Printed):
    """doit reproduce."""

    version: Version | None = Field(
        None,
        description="Which of its versions, or a channel's: stable. Default: the current one.",
        examples=["20261124T193000Z-1f2e3d4c"],
    )


class Scan(Reproduce):
    """doit scan."""

    db: NamedPath = Field(
        title="against which file?",
        description="The JSON of Debian's security tracker, as it was downloaded.",
        examples=["security-tracker.json"],
    )
    fail: Literal["low", "medium", "high"] | None = Field(
        None,
        description="From which urgency on it is an error (exit code 5). Default: never.",
        examples=["high"],
    )


Form = Literal["xva", "ova", "vhd", "vmdk", "qcow2", "raw", "tar"]
STDOUT = "-"
# written from the first byte to the last; the others have places that are filled at the end
STREAMED = ("raw", "vmdk", "xva", "tar")


def _read_target(text: str) -> Path | str:
    return text if text == STDOUT else read_path(text)


class Export(Guest, Printed):
    """doit export."""

    form: Form = Field(
        alias="format",
        title="in which format?",
        description="Machine in one file (xva, ova), disks (vhd, vmdk, qcow2, raw), tree (tar).",
        examples=["qcow2"],
    )
    to: Annotated[Path | str, BeforeValidator(_read_target)] = Field(
        title="where to?",
        description="File, or a folder that is there; - is standard output (raw, vmdk, xva, tar).",
        examples=["/srv/web1.qcow2", "/srv/images", "-"],
    )
    source: Annotated[
        Literal["published"] | NamedPath | None, Field(union_mode="left_to_right")
    ] = Field(
        None,
        alias="from",
        description="`published`, or an artifact folder. Default: what was built here.",
        examples=["published"],
    )
    replace: StrictBool = Field(False, description="Replace what is there by that name.")

    def require_sense(self) -> None:
        """What cannot be written into a pipe, is not."""
        super().require_sense()
        if self.to == STDOUT and (self.form not in STREAMED or self.json_form):
            what = "json=yes" if self.json_form else f"format={self.form}"
            raise WrongValueError(
                f"{what} and to=- do not go together", f"to=FILE; to=- is for {', '.join(STREAMED)}"
            )
