"""`doit ssh`: into a guest whose address is known or found, with its own host keys and no other."""

import ipaddress
from pathlib import Path

from pipeline import process
from pipeline.artifact.published import current_version
from pipeline.commands import options
from pipeline.commands.host import on_host
from pipeline.console.progress import print_line
from pipeline.dom0.addresses import find_address
from pipeline.dom0.configuration import LIMIT, Grammar, require_readable
from pipeline.dom0.power import Guest, find_guest, open_host
from pipeline.errors import UsageError, VerificationError
from pipeline.files import read_bytes
from pipeline.guest.login import ssh_option
from pipeline.project import Project
from pipeline.recipe import KNOWN_HOSTS, Recipe
from pipeline.xen.domain import Domain

_AGENT = "SSH_AUTH_SOCK"


@on_host
def ssh(recipe: Recipe, _specs: object, asked: options.Ssh) -> None:
    """Become ssh; raises PipelineError where no address is found."""
    words = [*ssh_words(recipe, asked), *([asked.command] if asked.command else [])]
    process.become(words, keep=[_AGENT])


def ssh_words(recipe: Recipe, asked: options.Ssh) -> list[str]:
    """The command line that logs in; raises PipelineError where no address is found."""
    host = open_host(recipe.project, log_name=asked.name, needs_xen=False)
    guest = find_guest(host, asked.name)
    known_hosts = _find_known_hosts(recipe.project, asked)
    names = _names_in(known_hosts)
    member = guest.record.membership if guest.record else None
    fixed = member.addresses if member else tuple(filter(_is_address, names))
    alias = next((name for name in names if not _is_address(name)), "")
    if asked.address:
        address, place = asked.address, "address="
    elif fixed:
        address, place = fixed[0], f"fixed: {known_hosts}"
    else:
        hidden = member.private if member else ()  # bridges that this host is not on
        cards = [card for card in _read_domain(guest).cards if card.bridge not in hidden]
        address, place = find_address(host.layout, guest.name, cards, host.toolstack)
    print_line(f"{guest.name} is at {address} ({place})")
    settings = {
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": alias,
        "StrictHostKeyChecking": "yes",
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
    }
    words = ["ssh", "-o", ssh_option("UserKnownHostsFile", known_hosts)]
    for name, value in settings.items():
        words += ["-o", f"{name}={value}"]
    words += ["-i", str(asked.key)] if asked.key else []
    return [*words, "-l", asked.user, "--", address]


def _find_known_hosts(project: Project, asked: options.Ssh) -> Path:
    """The guest's host keys: of the folder that is named, of what was built, or published."""
    published = current_version(project, asked.name)
    folders = [asked.source] if asked.source else [project.artifact(asked.name)]
    folders += [published.folder] if published and not asked.source else []
    for folder in folders:
        if (folder / KNOWN_HOSTS).is_file():
            return (folder / KNOWN_HOSTS).absolute()
    raise UsageError(
        f"{asked.name}: its host keys are not here: no {folders[0] / KNOWN_HOSTS}",
        hint="from=FOLDER names the artifact that it was installed from",
    )


def _names_in(known_hosts: Path) -> list[str]:
    """The names and addresses that stand before the first key."""
    line = read_bytes(known_hosts).decode(errors="replace").partition("\n")[0]
    names = line.partition(" ")[0].split(",")
    if not any(name.isprintable() and name and not _is_address(name) for name in names):
        raise VerificationError(f"{known_hosts} names no guest", hint="build it again")
    return names


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _read_domain(guest: Guest) -> Domain:
    text = read_bytes(guest.config, limit=LIMIT, follow=True).decode(errors="surrogateescape")
    toolstack = guest.record.toolstack if guest.record else guest.config.suffix[1:]
    return require_readable(Grammar("xm" if toolstack == "xm" else "xl"), guest.config, text)
