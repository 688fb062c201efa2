"""Images from a repository to a Xen host, and the keys that sign them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.folder import read_source
from pipeline.commands.change import replace_root_disk
from pipeline.commands.delivery_options import Keys, ListImages, Update, Upload
from pipeline.commands.host import describe_fault, on_host
from pipeline.commands.options import Unproven
from pipeline.console.progress import print_line, print_table
from pipeline.dom0 import power
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import Installed, require_installed, survey
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import find_toolstack
from pipeline.errors import PipelineError, UsageError, VerificationError
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.repository import metadata
from pipeline.repository.client import Repository, opened
from pipeline.repository.local_artifact import make_artifact
from pipeline.repository.upload import upload
from pipeline.scratch import scratch_folder
from pipeline.storage.transaction import working_on
from pipeline.supply.keys import has_keys

_URL, _CHANNEL, _VERSION, _KEPT = "repository", "channel", "version", "kept"


def keys(recipe: Recipe, _specs: object, asked: Keys) -> None:
    """Make the keys of a repository, rotate one, or sign anew."""
    project = recipe.project
    passphrases = metadata.Passphrases(asked.root_passphrase, asked.passphrase)
    if asked.rotate:
        if asked.rotate != "statements" and not has_keys(project.keys, "root"):
            raise UsageError(
                f"{project.keys / 'root.pem'} is not here",
                hint="bring the root key back from where it is kept: a rotation needs it",
            )
        metadata.rotate(project, asked.rotate, passphrases)
        print_line(f"{asked.rotate} has another key; hosts follow at their next look")
    elif not asked.sign:
        made = metadata.make_keys(project, passphrases)
        print_line(f"{project.keys}: {', '.join(made)}")
        print_line(f"  each host needs {project.keys / metadata.ROOT} once: root=FILE")
        print_line(f"  keep {project.keys / 'root.pem'} elsewhere: only a rotation needs it")
    if metadata.signs(project):
        count = metadata.refresh(project, asked.passphrase)
        print_line(f"  {project.repository} is signed, files: {count}; serve this folder")


def upload_images(recipe: Recipe, _specs: object, asked: Upload) -> None:
    """Copy the repository to where it is served from."""
    sent = upload(recipe.project, asked.to)
    print_line(f"{asked.to} is up to date: {sent / 1e6:.1f} MB sent")


@contextmanager
def looking_at(
    project: Project, url: str, *, root: Path | None = None
) -> Iterator[tuple[Repository, Path]]:
    """A repository as this host trusts it, and a folder for what is fetched meanwhile."""
    states = Layout.here().state / "repositories"
    with (
        scratch_folder(project.scratch, "delivery", mode=0o700) as scratch,
        opened(url, states, scratch, root=root) as repository,
    ):
        yield repository, scratch


@dataclass(frozen=True)
class Delivery:
    """An artifact out of a repository; `origin` is what a record keeps of where it is from."""

    folder: Path
    proof: str
    origin: Mapping[str, str]


def fetch_guest(
    project: Project,
    repository: Repository,
    scratch: Path,
    *,
    name: str,
    channel: str,
    asked: Unproven,
) -> Delivery:
    """Fetch the version that a channel leads to, and make this host's artifact of it."""
    version = repository.version(name, channel)
    manifest = repository.manifest(name, version)
    if manifest.proof != "proven" and not asked.unproven:
        raise VerificationError(
            f"{name} {version} was published without a proof: {manifest.proof}",
            hint="take another channel, or go on without: unproven=yes",
        )
    kept = project.cache.images
    images = {part: repository.image(image, kept) for part, image in manifest.images.items()}
    files = {part: repository.file(digest, kept) for part, digest in manifest.files.items()}
    print_line(f"  {name} {version}: {repository.fetched / 1e6:.1f} MB fetched")
    log = project.log(name, "delivery")
    log.parent.mkdir(parents=True, exist_ok=True)
    folder = make_artifact(project, manifest, images=images, files=files, scratch=scratch, log=log)
    needed = " ".join(path.name for path in (*images.values(), *files.values()))
    where = {_URL: repository.url, _CHANNEL: channel, _VERSION: version, _KEPT: needed}
    return Delivery(folder, manifest.proof, {**manifest.origin, **where})


def forget_images(project: Project, layout: Layout) -> None:
    """Remove the kept images that no installed guest was made from, nor could be undone to."""
    needed: set[str] = set()
    for record in survey(layout)[0].values():
        for each in (record, record.previous):
            needed |= set(each.origin.get(_KEPT, "").split()) if each else set()
    for path in project.cache.images.glob("*"):
        if path.name not in needed:
            path.unlink()


def list_images(recipe: Recipe, _specs: object, asked: ListImages) -> None:
    """What a repository has."""
    with looking_at(recipe.project, asked.source, root=asked.root) as (repository, _):
        guests = repository.index.guests
    if asked.json_form:
        print(json.dumps(repository.index.model_dump()["guests"], indent=1, sort_keys=True))
        return
    rows = []
    for name, guest in sorted(guests.items()):
        for version, entry in sorted(guest.versions.items(), reverse=True):
            channels = [channel for channel, leads in guest.channels.items() if leads == version]
            size = f"{entry.packed / 1e6:.0f} MB"
            rows.append((name, version, " ".join(sorted(channels)), entry.suite, size, entry.proof))
    if not rows:
        print_line(f"{asked.source} has no image yet")
        return
    print_table(rows, head=("guest", "version", "channels", "suite", "download", "proof"))


@on_host
def update(recipe: Recipe, _specs: object, asked: Update) -> None:
    """Give installed guests the newest version of their channel."""
    layout = Layout.here()
    failed: list[PipelineError] = []
    if asked.name:
        installed = {asked.name: require_installed(layout, asked.name)}
    else:
        installed, failed = survey(layout)
    chosen = [name for name, record in installed.items() if _URL in record.origin]
    if not chosen and not failed:
        what = asked.name or "no guest here"
        raise UsageError(
            f"{what} {'did not come' if asked.name else 'came'} from a repository",
            hint="doit install name=web1 from=https://images.example.org channel=stable",
        )
    for error in failed:
        print_line(error.brief)
    for name in chosen:
        try:
            _update_guest(recipe, layout, name, asked)
        except (PipelineError, OSError) as fault:
            error = fault if isinstance(fault, PipelineError) else describe_fault(fault)
            error.guest = error.guest or name
            failed.append(error)
            if len(chosen) > 1:
                print_line(f"{name}: {error.brief}")
    forget_images(recipe.project, layout)
    if failed:
        raise failed[0]


def _update_guest(recipe: Recipe, layout: Layout, name: str, asked: Update) -> None:
    with ExitStack() as stack:
        for text in stack.enter_context(working_on(site_of(layout), name)):
            print_line(f"  {text}")
        record = require_installed(layout, name)
        url = record.origin[_URL]
        channel = asked.channel or record.origin[_CHANNEL]
        repository, scratch = stack.enter_context(looking_at(recipe.project, url, root=asked.root))
        version = repository.version(name, channel)
        if version == record.origin[_VERSION] and channel == record.origin[_CHANNEL]:
            print_line(f"{name}: {version}, nothing to do")
            return
        if asked.dry:
            print_line(f"{name}: {record.origin[_VERSION]} -> {version}")
            return
        delivery = fetch_guest(
            recipe.project, repository, scratch, name=name, channel=channel, asked=asked
        )
        _replace(recipe.project, layout, record, delivery, restart=asked.restart)


def _replace(
    project: Project, layout: Layout, record: Installed, delivery: Delivery, *, restart: bool
) -> None:
    """Rebuild it; a running guest is shut down for it and started again where that is asked."""
    toolstack = find_toolstack()
    was_running = restart and (toolstack is not None and record.name in toolstack.domains())
    if was_running:
        host = power.open_host(project, log_name=record.name)
        power.shut_down(host, [power.find_guest(host, record.name)], timeout_s=180)
    try:
        source = read_source(delivery.folder, name=record.name, toolstack=record.toolstack)
        replace_root_disk(project, layout, record, source, delivery.proof, delivery.origin)
    finally:
        if was_running:
            power.start(host, power.find_guest(host, record.name))
