"""pygrub restricted: a user for each guest that boots by it, and the program that runs it as that.

The user may read its guest's disk while pygrub runs (xen/restricted-pygrub lets it in), and has no
other file, no login and no home. Its number is its group's too, for pygrub takes one for the other.
"""

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import PACKAGE, process
from pipeline.dom0.inventory import survey
from pipeline.dom0.layout import Layout
from pipeline.errors import CommandFailed, EnvironmentFault, InUseError, UsageError
from pipeline.files import read_bytes
from pipeline.locks import folder_locked, try_folder_locked
from pipeline.storage.steps import Step
from pipeline.storage.transaction import Transaction, write_aside
from pipeline.xen.boot import Pygrub, pygrub_user
from pipeline.xen.compatibility import before
from pipeline.xen.domain import Domain
from pipeline.xen.values import parse_version

PROGRAM = PACKAGE / "xen/restricted-pygrub"
ADVISORY = "pygrub runs as root: whoever is root in the guest can take over this host (XSA-508)"
_NUMBERS = range(999, 99, -1)  # of system accounts: login.defs(5)
_TRIES = 3
_NOT_UNIQUE = 4  # useradd(8)
_GONE = (0, 6)  # userdel(8), groupdel(8): done, or not there
_MOST = 8 << 20


@dataclass(frozen=True)
class Account:
    """A line of passwd(5) or group(5), as far as it matters."""

    name: str
    number: int
    comment: str = ""


def restricted(domain: Domain, layout: Layout, *, xen: str) -> Domain:
    """The same, with its pygrub behind the user of its own, where this Xen's pygrub can."""
    boot = domain.boot
    if not isinstance(boot, Pygrub) or before("restricted pygrub", parse_version(xen)):
        return domain
    own = replace(boot, path=str(layout.launcher), user=pygrub_user(domain.name))
    return replace(domain, boot=own)


def prepare(change: Transaction, layout: Layout, domain: Domain) -> None:
    """Make what a restricted guest needs, if it is one. Raises InUseError for a foreign user."""
    if not _is_ours(domain, layout):
        return
    _place_program(layout)
    guest = domain.name
    account = find_user(layout, pygrub_user(guest))
    if account is None:
        change.will_make(drop_user(guest))
        _make_user(layout, guest)
    elif account.comment != _comment(guest):
        raise InUseError(
            f"there is a user {account.name} that was not made for this guest",
            hint="give the guest another name, or remove the user: userdel",
        )


def drop_user(guest: str) -> Step:
    """A journal's step that removes the user of a guest, if it has one."""
    return {"kind": "drop-user", "guest": guest}


def perform_drop(layout: Layout, guest: str) -> None:
    """The step; an account of that name which we did not make stays."""
    name = pygrub_user(guest)
    account = find_user(layout, name)
    if account is not None and account.comment == _comment(guest):
        process.run(["userdel", *_prefix(layout), name], accept=_GONE, is_cleanup=True)
    if account is None or account.comment == _comment(guest):
        left = [group for group in _read(layout, "etc/group", 2) if group.name == name]
        if left:  # userdel takes it along, unless login.defs says otherwise or it was killed
            process.run(["groupdel", *_prefix(layout), name], accept=_GONE, is_cleanup=True)


@contextmanager
def placing_program(layout: Layout, domain: Domain) -> Iterator[None]:
    """While this is held nobody removes the program, so that it may be placed and then named."""
    if not isinstance(domain.boot, Pygrub):
        yield
        return
    try:
        with folder_locked(layout.launcher.parent):
            yield
    finally:
        purge_program(layout)


def purge_program(layout: Layout) -> None:
    """The program goes with the last guest that names it; one that cannot be read may."""
    with try_folder_locked(layout.launcher.parent) as is_ours:
        installed, problems = survey(layout)
        if problems or not is_ours:
            return
        records = [*installed.values(), *(record.previous for record in installed.values())]
        if not any(record and str(layout.launcher) in record.config_text for record in records):
            layout.launcher.unlink(missing_ok=True)
            with suppress(OSError):
                layout.launcher.parent.rmdir()


def require_startable(domain: Domain, layout: Layout, *, is_installed: bool) -> list[str]:
    """Raises UsageError where xl would not start pygrub; returns what is to be said of it."""
    if not isinstance(domain.boot, Pygrub):
        return []
    name = domain.name
    if not domain.boot.user:
        hint = f": doit refresh name={name}" if is_installed else ""
        return [f"{ADVISORY}{hint}"]
    if missing := find_missing(domain.boot, layout):
        word = "refresh" if is_installed else "install"
        raise UsageError(f"{name}: {missing}", hint=f"doit {word} name={name} makes it")
    return []


def is_incomplete(domain: Domain, layout: Layout) -> bool:
    """Whether a restricted guest has lost its user or program."""
    boot = domain.boot
    return isinstance(boot, Pygrub) and bool(boot.user and find_missing(boot, layout))


def find_missing(boot: Pygrub, layout: Layout) -> str:
    """What a restricted pygrub needs and this host has not; "" for nothing."""
    user, path = boot.user, Path(boot.path)
    if path.is_absolute() and not os.access(path, os.X_OK):
        return f"there is no program {path}, which runs pygrub as the guest's own user"
    if not user.isdigit() and find_user(layout, user) is None:
        return f"there is no user {user}, as whom pygrub reads its disk"
    return ""


def find_user(layout: Layout, name: str) -> Account | None:
    """The account of that name on this host."""
    if layout.root == Path("/"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gecos)
        return None
    return next((user for user in _read(layout, "etc/passwd", 4) if user.name == name), None)


def _is_ours(domain: Domain, layout: Layout) -> bool:
    boot = domain.boot
    return isinstance(boot, Pygrub) and boot.path == str(layout.launcher)


def _place_program(layout: Layout) -> None:
    final, content = layout.launcher, PROGRAM.read_bytes()
    with suppress(FileNotFoundError):
        if final.read_bytes() == content and final.stat().st_mode & 0o777 == 0o755:
            return
    aside = final.with_name(f".{final.name}.new")
    write_aside(aside, content, mode=0o755)
    aside.chmod(0o755)
    os.replace(aside, final)


def _make_user(layout: Layout, guest: str) -> None:
    """A system account whose group has its number; raises EnvironmentFault where none is free."""
    words = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    words += ["--shell", "/usr/sbin/nologin", "--comment", _comment(guest)]
    name = pygrub_user(guest)
    for attempt in range(_TRIES):
        taken = set(_taken_numbers(layout))
        number = next((number for number in _NUMBERS if number not in taken), None)
        if number is None:
            raise EnvironmentFault(
                "no number is free for a system user", hint="remove some of /etc/passwd"
            )
        argv = ["useradd", *_prefix(layout), "--uid", number, *words, name]
        try:
            process.run(argv)
        except CommandFailed as error:
            if error.status != _NOT_UNIQUE or attempt + 1 == _TRIES:
                raise
        else:
            return


def _prefix(layout: Layout) -> list[object]:
    """For trials below another folder."""
    if layout.root == Path("/"):
        return []
    for name in ("etc/passwd", "etc/group"):
        (layout.root / name).parent.mkdir(parents=True, exist_ok=True)
        (layout.root / name).touch()
    return ["--prefix", layout.root]


def _comment(guest: str) -> str:
    return f"pygrub of the guest {guest}"


def _taken_numbers(layout: Layout) -> Iterator[int]:
    if layout.root == Path("/"):
        yield from (user.pw_uid for user in pwd.getpwall())
        yield from (group.gr_gid for group in grp.getgrall())
    for name in ("etc/passwd", "etc/group"):
        yield from (account.number for account in _read(layout, name, 2))


def _read(layout: Layout, name: str, comment: int) -> Iterator[Account]:
    try:
        text = read_bytes(layout.root / name, limit=_MOST).decode(errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        words = line.split(":")
        if len(words) > max(comment, 2) and words[2].isdigit():
            yield Account(words[0], int(words[2]), words[comment])
