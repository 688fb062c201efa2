"""What the commands take that deliver images: of a site that publishes, of hosts that fetch."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool

from pipeline.commands.options import ChannelName, Listing, NamedPath, Options, Unproven, Url
from pipeline.errors import WrongValueError
from pipeline.spec import values


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
