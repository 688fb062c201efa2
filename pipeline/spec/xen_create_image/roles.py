"""xen-create-image's roles: what each script of xen-tools 4.9.2 does, and what is done here.

The facts are those of the scripts in /etc/xen-tools/role.d of that version.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import WrongValueError

OWN_ROLES = "docs/how-to/xen-tools.md says how a role script becomes an element"


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


def translate_role(value: str) -> dict[str, str]:
    """Roles, separated by commas, as packages; WrongValueError for one that is not done here."""
    packages: list[str] = []
    for name in value.split(","):
        role = ROLES.get(name)
        if role is None:
            known = ", ".join(name for name, role in ROLES.items() if not role.instead)
            raise WrongValueError(
                f"role '{name}' is not known here", f"known: {known}; {OWN_ROLES}"
            )
        if role.instead:
            raise WrongValueError(f"role '{name}': {role.here}", role.instead)
        packages += role.packages
    return {"packages": ",".join(packages)} if packages else {}


def describe_role(value: str) -> str:
    """What became of the roles that were asked for."""
    asked = {name: ROLES[name] for name in value.split(",") if name in ROLES}
    return "; ".join(f"`{name}`: {_with_packages(role)}" for name, role in asked.items())


def list_roles() -> list[str]:
    """The roles as a list in Markdown, each with what it was and what it is."""
    lines = []
    for name, role in ROLES.items():
        here = f"not done: {role.here}; {role.instead}" if role.instead else _with_packages(role)
        lines += [f"- `{name}` {role.before}.", f"  Here: {here}."]
    return [*lines, "- Any other is refused: " + OWN_ROLES + "."]


def _with_packages(role: Role) -> str:
    return f"{role.here} ({', '.join(role.packages)})" if role.packages else role.here
