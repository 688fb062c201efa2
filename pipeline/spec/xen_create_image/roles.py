"""xen-create-image's roles: what each script of xen-tools 4.9.2 does, and what is done here.

The facts are those of the scripts in /etc/xen-tools/role.d of that version.
"""

import os
from dataclasses import dataclass

from pipeline.caller import caller_folder
from pipeline.errors import WrongValueError

OWN_ROLES = "docs/how-to/xen-tools.md says how a role script runs"
ROLE_FOLDER = "/etc/xen-tools/role.d"


@dataclass(frozen=True)
class Role:
    """One role: what its script does, what is done here, and its packages; or why it is refused."""

    before: str
    here: str
    packages: tuple[str, ...] = ()
    instead: str = ""


_BUILDER = ("build-essential", "debhelper", "devscripts", "dpkg-dev", "fakeroot", "lintian")
_NO_SCREEN = "the package; no VNC server is set up (`vnc = true` gives the guest a screen)"

ROLES = {
    "builder": Role(
        "installs build-essential, debhelper, devscripts, dpkg-dev, fakeroot, lintian and linda",
        "the same packages but linda, which has left Debian",
        _BUILDER,
    ),
    "cfengine": Role(
        "installs cfengine2 and copies the host's configuration of it",
        "cfengine2 has left Debian, and the host's configuration is not copied",
        instead='write packages = ["cfengine3"] and an element with its configuration in static/',
    ),
    "editor": Role(
        "runs each /etc/xen-tools/sed.d/PATH.sed over the guest's file /PATH; installs nothing",
        "the host's sed scripts are not run over the guest's files",
        instead="write the sed lines into an element's post-install.d script",
    ),
    "gdm": Role("installs gdm, XFree86's X server and a VNC server", _NO_SCREEN, ("gdm3",)),
    "minimal": Role(
        "purges about forty packages, installs nvi and busybox-syslogd",
        "every guest is lean; nothing is purged, nvi and busybox-syslogd are not installed",
    ),
    "puppet": Role(
        "installs puppet and stops it",
        "the package; its configuration is an element's affair",
        ("puppet-agent",),
    ),
    "resolv": Role(
        "writes a fixed name server into /etc/resolv.conf.old, which nothing reads",
        "name servers are those of `nameservers`, or DHCP's",
    ),
    "sudoers": Role(
        "installs sudo and copies the host's /etc/sudoers",
        "the package; the host's /etc/sudoers is not copied (an element's static/etc/sudoers.d/)",
        ("sudo",),
    ),
    "tmpfs": Role(
        "puts /tmp, /var/run and /var/lock into memory",
        "/run is in memory where the suite does so; /tmp is left as the suite has it",
    ),
    "udev": Role("installs udev", "every guest has udev"),
    "xdm": Role("installs xdm, XFree86's X server and a VNC server", _NO_SCREEN, ("xdm",)),
}


def translate_role(value: str, folder: str = "") -> dict[str, str]:
    """Roles, separated by commas: scripts of the folder that was named run, others are packages.

    A role that is not of xen-tools' own is a script of the usual folder. Raises WrongValueError for
    one that is neither.
    """
    packages: list[str] = []
    scripts: list[str] = []
    for name in filter(None, (text.strip() for text in value.split(","))):
        role = ROLES.get(name)
        if "/" in name or _is_script(name, folder or ("" if role else ROLE_FOLDER)):
            scripts.append(name)
        elif role is None:
            known = ", ".join(name for name, role in ROLES.items() if not role.instead)
            raise WrongValueError(
                f"role '{name}' is no script in {folder or ROLE_FOLDER}, and not known here",
                f"known: {known}; {OWN_ROLES}",
            )
        elif role.instead:
            raise WrongValueError(f"role '{name}': {role.here}", role.instead)
        else:
            packages += role.packages
    keys = {"packages": ",".join(packages), "role": ",".join(scripts)}
    return {key: text for key, text in keys.items() if text}


def _is_script(name: str, folder: str) -> bool:
    places = [caller_folder() / place / name for place in filter(None, folder.split(","))]
    return any(os.path.isfile(place) for place in places)


def describe_role(value: str, scripts: str = "") -> str:
    """What became of the roles that were asked for, of which some are scripts."""
    texts = []
    for name in filter(None, (text.strip() for text in value.split(","))):
        role = None if name in scripts.split(",") else ROLES.get(name)
        texts.append(f"`{name}`: {_with_packages(role) if role else 'its script runs, in a cage'}")
    return "; ".join(texts)


def list_roles() -> list[str]:
    """The roles as a list in Markdown, each with what it was and what it is."""
    lines = []
    for name, role in ROLES.items():
        here = f"not done: {role.here}; {role.instead}" if role.instead else _with_packages(role)
        lines += [f"- `{name}` {role.before}.", f"  Here: {here}."]
    return [*lines, f"- Any other is a script of {ROLE_FOLDER}: {OWN_ROLES}."]


def _with_packages(role: Role) -> str:
    return f"{role.here} ({', '.join(role.packages)})" if role.packages else role.here
