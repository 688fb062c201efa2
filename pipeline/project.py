"""Where things are: the project's folders."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline import ROOT
from pipeline.errors import EnvironmentFault, UsageError
from pipeline.files import find_unusable
from pipeline.site import MARKER, find_folder, find_site


@dataclass(frozen=True)
class Cache:
    """What was fetched or found out and can be again: without it a build takes longer."""

    root: Path

    @property
    def debs(self) -> Path:
        """Packages, each named by its sha256."""
        return self.root / "debs"

    @property
    def indexes(self) -> Path:
        """Package indexes as they were served, each named by its sha256."""
        return self.root / "indexes"

    @property
    def keyrings(self) -> Path:
        """Keyrings that this machine lacks, out of verified packages."""
        return self.root / "keyrings"

    @property
    def seen(self) -> Path:
        """The newest state of each suite that any mirror showed."""
        return self.root / "seen"

    @property
    def images(self) -> Path:
        """Golden images from image repositories, each named by its digest."""
        return self.root / "images"

    @property
    def accelerator(self) -> Path:
        """Whether KVM runs Xen on this machine."""
        return self.root / "kvm.json"


@dataclass(frozen=True)
class Project:
    """The folders of one checkout and its site; `output` holds everything made.

    `site` is None where the checkout, `root`, serves as one.
    """

    root: Path
    output: Path
    guests: Path
    site: Path | None = None

    @classmethod
    def here(cls) -> Self:
        """This checkout, and the site in use; DOMU_OUTPUT and DOMU_GUESTS move two folders."""
        site = find_site()
        home = site or ROOT
        output = find_folder("DOMU_OUTPUT") or home / "output"
        guests = find_folder("DOMU_GUESTS") or home / "guests"
        return cls(ROOT, output, guests, site)

    def require_site(self) -> None:
        """UsageError where DOMU_SITE names no site."""
        if self.site and not (self.site / MARKER).is_file():
            raise UsageError(
                f"DOMU_SITE={self.site}: no site", hint=f"make it: doit init {self.site}"
            )

    def require_usable_paths(self) -> None:
        """EnvironmentFault where nothing can be built, for a letter in the path of a folder."""
        for folder, hint in (
            (self.root, "move this checkout to another folder"),
            *([(self.site, "move this site to another folder")] if self.site else []),
            (self.output, "DOMU_OUTPUT=/another/folder"),
        ):
            for path in dict.fromkeys([str(folder), os.path.realpath(folder)]):
                if letter := find_unusable(path):
                    raise EnvironmentFault(
                        f"{path}: {letter} in a path: no configuration can name it", hint=hint
                    )

    def prepare_output(self) -> None:
        """Make the output folder; EnvironmentFault where this user may not, or should not, write.

        In a folder of somebody else's, links could lead root anywhere.
        """
        other = "DOMU_OUTPUT=/another/folder keeps what is made elsewhere"
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            state = self.output.stat()
        except (FileExistsError, NotADirectoryError):
            raise EnvironmentFault(f"{self.output} is not a folder", hint=other) from None
        except OSError as error:
            raise EnvironmentFault(f"{self.output}: {error.strerror}", hint=other) from None
        owner = _name_of(state.st_uid)
        if os.geteuid() == 0 and state.st_uid != 0:
            raise EnvironmentFault(
                f"{self.output} belongs to {owner}: root writes nothing there",
                hint=f"build as {owner}; or {other}, and `from=FOLDER` installs what is here",
            )
        if os.statvfs(self.output).f_flag & os.ST_RDONLY:
            raise EnvironmentFault(f"{self.output}: Read-only file system", hint=other)
        if not os.access(self.output, os.W_OK | os.X_OK):
            raise EnvironmentFault(
                f"{self.output} belongs to {owner}: {_name_of(os.geteuid())} may not write there",
                hint=f"build as {owner}, or {other}",
            )

    @property
    def nightly(self) -> Path:
        """Which guests a night makes, and on what terms."""
        return self.guests.with_name("nightly.toml")

    @property
    def fleet_file(self) -> Path:
        """The store that machines share, and what else of a fleet all commands take."""
        return self.guests.with_name("fleet.toml")

    @property
    def dom0(self) -> Path:
        """What this machine is to be as a host of guests."""
        return self.guests.with_name("dom0.toml")

    @property
    def appliances(self) -> Path:
        """The appliances, <name>.toml: guests that belong together."""
        return self.guests.with_name("appliances")

    @property
    def reports(self) -> Path:
        """Pages about guests and nights, a folder each."""
        return self.output / "reports"

    @property
    def elements(self) -> list[Path]:
        """Folders of diskimage-builder elements: the site's, then our own."""
        folders = [home / "elements" for home in (self.site, self.root) if home]
        return [folder for folder in folders if folder.is_dir()]

    @property
    def mirrors(self) -> Path:
        """The named mirrors, <name>.toml."""
        return (self.site or self.root) / "mirrors"

    @property
    def keys(self) -> Path:
        """What signs artifacts and the image repository; mode 0700."""
        return (self.site or self.root) / "keys"

    @property
    def fleet(self) -> Path:
        """The certificates of the machines that build together; mode 0700."""
        return (self.site or self.root) / "fleet"

    @property
    def cache(self) -> Cache:
        """What is kept of the network."""
        return Cache(self.output / "cache")

    @property
    def scratch(self) -> Path:
        """Folders that are gone when their stage or command ends."""
        return self.output / "scratch"

    @property
    def store(self) -> Path:
        """The golden half: artifacts that guests share."""
        return self.output / "store"

    @property
    def artifacts(self) -> Path:
        """The finished artifact folders, one for each guest."""
        return self.output / "guests"

    @property
    def volumes(self) -> Path:
        """The guests' disks before their configuration joins them."""
        return self.output / "volumes"

    @property
    def published(self) -> Path:
        """The published versions of each guest."""
        return self.output / "published"

    @property
    def repository(self) -> Path:
        """What a web server may show of them: signed metadata, golden images."""
        return self.output / "repository"

    @property
    def adopted(self) -> Path:
        """Root file systems that came from elsewhere, a folder each."""
        return self.output / "adopted"

    @property
    def locked(self) -> Path:
        """The snapshots that lock files name."""
        return self.output / "locked"

    @property
    def built(self) -> set[str]:
        """The guests of which something was built here."""
        folders = [*self.artifacts.glob("[!.]*"), *self.volumes.glob("[!.]*")]
        return {folder.name for folder in folders if folder.is_dir()}

    def artifact(self, guest: str) -> Path:
        """The finished artifact folder of a guest."""
        return self.artifacts / guest

    def volume(self, guest: str) -> Path:
        """The guest's disks before its configuration joins them."""
        return self.volumes / guest

    def identity(self, guest: str) -> Path:
        """What makes the guest itself and is kept: host keys, machine-id; mode 0700."""
        return self.output / "identity" / guest

    def report(self, guest: str) -> Path:
        """The page that `doit report` writes."""
        return self.reports / guest / "index.html"

    def log(self, guest: str, stage: str) -> Path:
        """The log of a stage, from its last run for this guest."""
        return self.output / "logs" / guest / f"{stage}.log"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
