"""What makes a system this very machine, or lets somebody in: it must not come twice.

`replaced` goes away, because the guest gets its own; `named` is for whoever adopts it to judge: it
may be what the system is there for.
"""

import stat
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase

from pipeline.errors import PipelineError
from pipeline.walls.beneath import Beneath

_MOST = 500
_HISTORIES = (
    *(".bash_history", ".ash_history", ".sh_history", ".zsh_history", ".python_history"),
    *(".mysql_history", ".psql_history", ".sqlite_history", ".lesshst", ".viminfo", ".wget-hsts"),
)
_LOGINS = (".ssh/authorized_keys", ".ssh/authorized_keys2", ".ssh/known_hosts")
_HOMES = ("/root", "/home/*")
REPLACED = (
    *("/etc/ssh/ssh_host_*", "/etc/dropbear/dropbear_*_host_key"),
    *("/etc/machine-id", "/var/lib/dbus/machine-id"),
    *("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/misc/random-seed"),
    *("/var/lib/seedrng/*", "/var/lib/systemd/credential.secret", "/var/lib/random-seed"),
    *("/etc/udev/rules.d/70-persistent-*.rules", "/etc/udev/rules.d/z25_persistent-*.rules"),
    *("/var/lib/dhcp/*.leases", "/var/lib/dhcp3/*.leases", "/var/lib/dhcpcd/*.lease"),
    *("/var/lib/NetworkManager/*.lease", "/var/lib/NetworkManager/secret_key"),
    *("/var/lib/cloud/instance", "/var/lib/cloud/instances", "/var/lib/cloud/data"),
    *("/var/lib/cloud/sem", "/run/cloud-init", "/etc/iscsi/initiatorname.iscsi"),
    *(f"{home}/{name}" for home in _HOMES for name in (*_HISTORIES, *_LOGINS)),
)
NAMED = (
    *("/etc/ssl/private/*", "/etc/pki/tls/private/*", "/etc/krb5.keytab", "/etc/wireguard/*.conf"),
    *("/etc/openvpn/*.key", "/var/lib/puppet/ssl", "/etc/puppet/ssl", "/etc/letsencrypt/live"),
    *("/etc/salt/pki", "/etc/ipsec.secrets", "/var/lib/tor/keys", "/etc/munge/munge.key"),
    *(f"{home}/.ssh/id_*" for home in _HOMES),
    *(f"{home}/{name}" for home in _HOMES for name in (".netrc", ".pgpass", ".my.cnf", ".gnupg")),
)


def find_secrets(tree: Beneath) -> Iterator[str]:
    """The paths that are there, in order; what is empty holds none."""
    paths = {path for pattern in (*REPLACED, *NAMED) for path in _expand(tree, "", pattern[1:])}
    yield from sorted(path for path in paths if _holds_something(tree, path))


def is_replaced(path: str) -> bool:
    """Whether a secret goes away; else it is only named."""
    return any(fnmatchcase(path, pattern) for pattern in REPLACED) and not any(
        fnmatchcase(path, pattern) for pattern in NAMED
    )


def find_passwords(shadow: str) -> tuple[str, ...]:
    """The accounts of shadow(5) that a password opens, or none is asked of."""
    fields = (line.split(":") for line in shadow.splitlines())
    return tuple(words[0] for words in fields if len(words) > 1 and is_open(words[1]))


def is_open(field: str) -> bool:
    """Whether a password field lets anybody in: a hash, or nothing at all (crypt(5))."""
    return not field.startswith(("!", "*", "x"))


def lock_passwords(shadow: str) -> str:
    """The same shadow(5) with every password locked; what was locked stays as it is."""
    lines = []
    for line in shadow.split("\n"):
        words = line.split(":")
        if len(words) > 1 and is_open(words[1]):
            words[1] = "!"
        lines.append(":".join(words))
    return "\n".join(lines)


def _expand(tree: Beneath, folder: str, pattern: str) -> Iterator[str]:
    """The paths like a pattern, at most so many in a folder as any honest one has."""
    first, _, rest = pattern.partition("/")
    if "*" not in first:
        names = [first]
    else:
        names = []
        with suppress(PipelineError, OSError):
            names = [name for name in tree.names(folder or "/") if fnmatchcase(name, first)][:_MOST]
    for name in names:
        path = f"{folder}/{name}"
        if rest:
            yield from _expand(tree, path, rest)
        else:
            with suppress(PipelineError, OSError):
                tree.stat(path)
                yield path


def _holds_something(tree: Beneath, path: str) -> bool:
    """A file that is not empty, a folder that has something; links only lead elsewhere."""
    with suppress(PipelineError, OSError):
        status = tree.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return bool(tree.names(path))
        return stat.S_ISREG(status.st_mode) and status.st_size > 0
    return False
