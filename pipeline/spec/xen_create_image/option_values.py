"""Values of xen-create-image's options that mean something else, or need a second look, here."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.spec.mistakes import WrongValueError

YES = frozenset({"", "1", "yes", "true", "on", "y"})
NO = frozenset({"0", "no", "false", "off", "n"})

_BUILT_IN = {
    "udev": "every guest has udev",
    "resolv": "name servers are set up",
    "tmpfs": "/tmp is the suite's affair",
    "minimal": "every guest is lean",
}
_PACKAGES = {
    "builder": "build-essential",
    "editor": "vim",
    "gdm": "gdm3",
    "puppet": "puppet-agent",
    "sudoers": "sudo",
    "xdm": "xdm",
}
ROLES = (
    ", ".join(f"`{role}` is accepted: {why}" for role, why in _BUILT_IN.items())
    + "; "
    + ", ".join(f'`{role}` is `packages = ["{name}"]`' for role, name in _PACKAGES.items())
    + "; any other becomes an element of your own"
)


def describe_role(value: str) -> str:
    """What became of the roles that were asked for."""
    words = []
    for role in value.split(","):
        if role in _PACKAGES:
            words.append(f"`{role}` is the package {_PACKAGES[role]}")
        elif role in _BUILT_IN:
            words.append(f"`{role}`: {_BUILT_IN[role]}")
    return ", ".join(words)


def is_on(value: str) -> bool:
    """A flag's value: bare means on; raises WrongValueError."""
    if value.lower() not in YES | NO:
        raise WrongValueError(f"'{value}' is neither yes nor no", "write yes or no")
    return value.lower() in YES


def accept_only(words: str, instead: str) -> Callable[[str], dict[str, str]]:
    """A translator that takes these words as saying nothing and refuses every other."""

    def translate(value: str) -> dict[str, str]:
        if value not in words.split():
            raise WrongValueError(f"'{value}' is not done", instead)
        return {}

    return translate


def translate_bootstrap(value: str) -> dict[str, str]:
    """debootstrap or mmdebstrap, also as a path."""
    name = value.rpartition("/")[2]
    if name not in ("debootstrap", "mmdebstrap"):
        raise WrongValueError(f"'{value}' is not done", "use debootstrap or mmdebstrap")
    return {"bootstrap": name}


def translate_address(value: str) -> dict[str, str]:
    """Addresses, separated by commas; ips.txt is not read."""
    if value == "auto":
        raise WrongValueError("'auto' is not done: ips.txt is not read", "use dhcp, or an address")
    return {"address": value}


def translate_role(value: str) -> dict[str, str]:
    """Roles, separated by commas: built in, or packages."""
    packages = []
    for role in value.split(","):
        if role in _PACKAGES:
            packages.append(_PACKAGES[role])
        elif role not in _BUILT_IN:
            raise WrongValueError(
                f"role '{role}' is not known here",
                f"known: {', '.join(sorted(_BUILT_IN | _PACKAGES))}; else write an element",
            )
    return {"packages": ",".join(packages)} if packages else {}
