"""Who can log in to a guest, and what to type for it: as its spec says, and as sshd is set up."""

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Finding
from pipeline.spec import Spec
from pipeline.spec.cloud_init import NOTHING_SAID

NOBODY = "nobody can log in: no authorized_keys, no root password"
_KEYS_ONLY = "sshd takes keys only"
_AGENT = "SSH_AUTH_SOCK"


@dataclass(frozen=True)
class Login:
    """What to type, "" for what does not let anybody in.

    `ssh` is the whole line where the address is fixed; where it is not, `address` says how to come
    by it. `console` is for root's password.
    """

    guest: str
    ssh: str = ""
    address: str = ""
    console: str = ""

    @property
    def lines(self) -> list[str]:
        """A line for each way in; what nobody can do is one line too."""
        password = f"{self.console}  (root's password; {_KEYS_ONLY})" if self.console else ""
        return [line for line in (self.ssh, self.address, password) if line] or [NOBODY]

    @property
    def finding(self) -> Finding:
        """The same for a table: a warning where nobody can."""
        is_possible = bool(self.ssh or self.address or self.console)
        hint = (
            f'authorized_keys = ["~/.ssh/id_ed25519.pub"] in the file of {self.guest}, then '
            "doit build (docs/reference/spec.md)"
        )
        message = "; or ".join(self.lines)
        if is_possible:
            return Finding("ok", "log in", message, code="A3")
        return Finding("warning", "log in", message, hint, code="A3")


def find_login(spec: Spec, known_hosts: Path) -> Login:
    """Who can log in to this guest once it runs; `known_hosts` has its host keys."""
    if spec.cloud_init and (not spec.has_seed or spec.user_data):
        return Login(spec.name, address=f"{'user_data' if spec.user_data else 'its seed'} says who")
    pc = "-t pv " if spec.type == "hvm" else ""  # its first console is the serial line (xl(1))
    has_password = bool(spec.root_password_file or spec.root_password_hash)
    console = f"xl console {pc}{spec.name}" if has_password else ""
    user = _find_user(spec)
    if not user:
        return Login(spec.name, console=console)
    lines = {node.address for node in spec.replicated}  # the nodes' own, which no host is on
    seen = [card for card in spec.cards if not lines & {str(each.ip) for each in card.addresses}]
    fixed = [address for card in seen or spec.cards for address in card.addresses]
    if fixed:
        option = shlex.quote(ssh_option("UserKnownHostsFile", known_hosts))
        ssh = f"ssh -o {option} {user}@{fixed[0].ip}"
        return Login(spec.name, ssh=ssh, console=console)
    macs = ", ".join(card.mac for card in spec.cards)
    other = "" if user == "root" else f" user={user}"
    address = f"doit ssh name={spec.name}{other}  (its address: by DHCP, MAC {macs})"
    return Login(spec.name, address=address, console=console)


def _find_user(spec: Spec) -> str:
    """Whom the spec gives a key; "" for nobody."""
    if spec.authorized_keys:
        return "root"
    seed = spec.seed or NOTHING_SAID
    if seed.ssh_authorized_keys and not seed.users:
        return spec.suite_facts.distribution  # the user that cloud-init makes there
    return next((user.name for user in seed.users if user.ssh_authorized_keys), "")


def ssh_agent() -> dict[str, str]:
    """The environment in which ssh finds the agent that holds the keys; {} without one."""
    return {_AGENT: os.environ[_AGENT]} if _AGENT in os.environ else {}


def ssh_option(name: str, path: Path) -> str:
    """What follows `-o`: ssh takes a value apart at spaces, and expands % in it."""
    value = str(path).replace("%", "%%")
    return f'{name}="{value}"' if " " in value else f"{name}={value}"


def warn_of_closed(specs: Iterable[Spec]) -> str:
    """One line about the guests that nobody can log in to, "" where there are none."""
    closed = [spec.name for spec in specs if find_login(spec, Path()).lines == [NOBODY]]
    named = NOBODY.replace(":", f" to {', '.join(closed)}:", 1)
    return f"{named} (docs/reference/spec.md)" if closed else ""
