"""`doit create`: what only a person can say is asked, then the spec is written."""

import os
import pwd
import secrets
import string
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline import process
from pipeline.commands.command_line import CommandLine
from pipeline.commands.foreign_options import CreateImage
from pipeline.console.progress import print_line
from pipeline.errors import Finding
from pipeline.files import write_durably
from pipeline.guest.passwords import ask_root_hashes
from pipeline.project import Project
from pipeline.spec import Spec, draft_spec
from pipeline.spec.ssh_keys import find_keys, fingerprint_key, split_key_line
from pipeline.walls.privacy import PRIVATE_FILE, make_private_folder

PASSWORD = "root-password"
# without those that look like another one
_LETTERS = "".join(set(string.ascii_letters + string.digits) - set("0O1lI"))
_PASSWORDS = frozenset(("root_password_file", "root_password_hash"))
_AGENT = "SSH_AUTH_SOCK"
_AGENT_PATIENCE_S = 5
_NONE = ("none", "no", "n", "0")


def create(
    line: CommandLine, project: Project, require_buildable: Callable[[Spec], None]
) -> Mapping[str, str]:
    """Write the spec; the hashes of passwords that were asked for, by guest.

    Raises what draft_spec, `require_buildable` and ask_root_hashes do, before there is a file.
    """
    name, guests_dir = "".join(line.guests), project.guests
    asked = next(line.options_of(command) for command in line.commands if command.creates)
    as_xen_tools = asked if isinstance(asked, CreateImage) else None
    draft = draft_spec(name, line.variables, guests_dir, may_exist=as_xen_tools is not None)
    if as_xen_tools and as_xen_tools.genpass and not draft.given & _PASSWORDS:
        place = make_password_file(project.identity(name), as_xen_tools.genpass_len)
        variables = {**line.variables, "root_password_file": str(place)}
        draft = draft_spec(name, variables, guests_dir, may_exist=True)
        print_line(f"note: genpass: root's password is not printed, it is in {place}")
    require_buildable(draft.spec)
    if "suite" not in draft.given:
        print_line(f"suite: {draft.spec.suite}, the default (suite=; doit suites lists them)")
    is_told = "authorized_keys" in draft.given or draft.spec.cloud_init
    keys = [] if is_told else offer_keys(draft.spec)
    hashes = ask_root_hashes([draft.spec])
    replaces = as_xen_tools is not None and as_xen_tools.replace
    print_line(f"wrote {draft.write(keys, replaces=replaces)}")
    return hashes


def make_password_file(folder: Path, length: int) -> Path:
    """A file that nobody else reads, with a password of that many letters and digits.

    One that is there already is left: the password stays when the guest is made anew.
    """
    make_private_folder(folder)
    path = folder / PASSWORD
    if not path.exists():
        secret = "".join(secrets.choice(_LETTERS) for _ in range(length))
        write_durably(path, secret.encode(), mode=PRIVATE_FILE)
    return path


def offer_keys(spec: Spec) -> list[str]:
    """The own public keys that the person at the terminal chooses for root; none without one.

    Lines, not paths: the spec then means the same for everybody who builds it.
    """
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return []
    refused: list[Finding] = []
    keys = dict(_find_own_keys(spec, refused))
    if not keys:
        return []
    print_line(f"Who may log in to {spec.name} as root? Your own public keys:")
    for number, (line, place) in enumerate(keys.items(), start=1):
        title, fingerprint = _describe(line)
        print_line(f"  {number}  {title}\n     {fingerprint}\n     {place}")
    for finding in refused:
        print_line(f"  -  {finding.message}")
    return _choose(list(keys))


def _choose(lines: Sequence[str]) -> list[str]:
    while True:
        try:
            answer = input("Which? Numbers, all, or none [1]: ").strip().lower()
        except EOFError:
            print_line("none")
            return []
        words = answer.replace(",", " ").split() or ["1"]
        if words == ["all"]:
            return [*lines]
        if len(words) == 1 and words[0] in _NONE:
            return []
        numbers = [int(word) for word in words if word.isascii() and word.isdigit()]
        if len(numbers) == len(words) and all(1 <= number <= len(lines) for number in numbers):
            return [lines[number - 1] for number in dict.fromkeys(numbers)]
        print_line(f"Write numbers from 1 to {len(lines)} (1,2), all, or none.")


def _find_own_keys(spec: Spec, refused: list[Finding]) -> Iterator[tuple[str, str]]:
    """Each sound line with its place: files first, then what the agent has besides."""
    seen: set[str] = set()
    for entry in (*sorted((_home() / ".ssh").glob("*.pub")), *_ask_agent()):
        if isinstance(entry, Path) and entry.name.endswith("-cert.pub"):
            continue  # a certificate, its key stands beside it
        place = str(entry) if isinstance(entry, Path) else "ssh-agent"
        lines, problems = find_keys([str(entry)], spec.suite_facts, source=place)
        refused += problems
        for line in lines:
            _, _, encoded = split_key_line(line)
            if encoded not in seen:
                seen.add(encoded)
                yield line, place


def _home() -> Path:
    """That of the person, who may have become root by sudo."""
    person = os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else ""
    try:
        return Path(pwd.getpwnam(person).pw_dir) if person else Path.home()
    except KeyError:
        return Path.home()


def _ask_agent() -> list[str]:
    if not os.environ.get(_AGENT) or not process.find_tool("ssh-add"):
        return []
    words = ["timeout", _AGENT_PATIENCE_S, "ssh-add", "-L"]
    said = process.run(words, env={_AGENT: os.environ[_AGENT]}, accept=(0, 1, 2, 124))
    return [line for line in said.splitlines() if line.startswith(("ssh-", "ecdsa-", "sk-"))]


def _describe(line: str) -> tuple[str, str]:
    """Options, type and comment; the fingerprint as `ssh-keygen -l` shows it."""
    options, kind, encoded = split_key_line(line)
    comment = line.rpartition(encoded)[2].strip()
    return " ".join([*options, kind, comment]), fingerprint_key(encoded)
