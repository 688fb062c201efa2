"""What the commands take about a site: its folder, its machine, its store, its mirrors."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt

from pipeline.commands.options import Guests, Listing, NamedPath, Options, Printed
from pipeline.errors import WrongValueError
from pipeline.shared.fleet_file import StoreUrl
from pipeline.spec import values


class Init(Options):
    """doit init."""

    folder: NamedPath | None = Field(
        None, description="Which folder. Default: where you stand.", examples=["/srv/site"]
    )


class ImportXenTools(Options):
    """doit import-xen-tools."""

    file: NamedPath = Field(
        Path("/etc/xen-tools/xen-tools.conf"),
        description="xen-tools' configuration.",
        examples=["/etc/xen-tools/xen-tools.conf"],
    )
    replace: StrictBool = Field(False, description="Replace the values that are there.")
    dry: StrictBool = Field(False, description="Only show what would be written.")


class CiMatrix(Guests):
    """doit ci-matrix."""

    format: Literal["gitlab", "github"] = Field(
        title="for which CI system?",
        description="A child pipeline (gitlab), or a matrix (github; Forgejo and Gitea read it).",
        examples=["gitlab"],
    )
    to: NamedPath | None = Field(
        None, description="File to write it to. Default: standard output.", examples=["guests.yml"]
    )


class Dom0(Options):
    """doit dom0."""

    alternatives = ("create", "undo", "confirm")

    create: StrictBool = Field(False, description="Write dom0.toml of what this host has now.")
    dry: StrictBool = Field(False, description="Only show what would change, as diff -u does.")
    now: StrictBool = Field(
        False, description="Bring the network up at once, under a watchdog that takes it back."
    )
    watch: Annotated[StrictInt, Field(ge=1, le=3600)] = Field(
        60,
        description="With now: seconds until it is taken back, unless confirmed.",
        examples=[120],
    )
    confirm: StrictBool = Field(False, description="Keep what the watchdog would take back.")
    undo: StrictBool = Field(False, description="Take back the last change, every file as it was.")
    replace: StrictBool = Field(
        False, description="With undo: files too that somebody changed since; a copy is kept."
    )

    def require_sense(self) -> None:
        """Words that change nothing here would be a wish that nobody hears."""
        super().require_sense()
        if (self.create or self.confirm) and (self.dry or self.now):
            word = "create" if self.create else "confirm"
            raise WrongValueError(f"{word}= stands alone", "leave dry= and now= out")


class Collect(Options, Printed):
    """doit gc."""

    keep: Annotated[str, BeforeValidator(values.check_bound)] = Field(
        "20G",
        description="How much may stay besides what is needed; 0: nothing.",
        examples=["5G", "0"],
    )
    dry: StrictBool = Field(False, description="Only say what would go.")
    store: StoreUrl | None = Field(
        None,
        description="Instead of what is kept here: the store that machines share.",
        examples=["s3://builds/store"],
    )

    @property
    def keep_mib(self) -> int:
        """The bound in MiB."""
        return 0 if self.keep == "0" else values.parse_size(self.keep)


class Releases(Listing):
    """doit suites."""

    suites: tuple[values.SuiteName, ...] = Field(
        (), description="Which releases.", examples=["lenny,bookworm"]
    )


class Mirrors(Releases):
    """doit mirrors."""

    mirrors: tuple[values.Mirror, ...] = Field(
        (),
        description="Which mirrors. Default: the host's, those in mirrors/, a running proxy.",
        examples=["host,monmiroir:9999"],
    )


class MirrorProxy(Options):
    """doit mirror-proxy. What is not given is as mirrors/proxy.toml says."""

    alternatives = ("stay", "stop", "status", "units")

    proxy: Literal["approx", "apt-cacher-ng"] | None = Field(None, description="The program.")
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = Field(
        None, description="Where it listens.", examples=[9999]
    )
    upstream: values.Mirror | None = Field(
        None, description="The mirror behind it, in any form of mirror=.", examples=["host"]
    )
    stay: StrictBool = Field(False, description="Let it run on when the command has ended.")
    stop: StrictBool = Field(False, description="Stop the one that runs.")
    status: StrictBool = Field(False, description="Say whether it runs, and how much it holds.")
    units: NamedPath | None = Field(
        None,
        description="Folder that gets systemd units for a machine that serves a lab.",
        examples=["lab"],
    )
