"""How old a release is today, and its facts as a row of a table."""

from datetime import date

from pipeline.suites.suite import Suite


def state_on(suite: Suite, today: date) -> str:
    """live, ended (no more security updates, still on the mirrors) or archived."""
    if suite.is_archived:
        return "archived"
    end = suite.supported_until
    return "ended" if end and today.isoformat() > end else "live"


def describe_age(suite: Suite, today: date) -> str:
    """What its age means for a build on that day; empty when nothing does."""
    state = state_on(suite, today)
    if state == "archived":
        return (
            f"in the archive since its support ended ({suite.supported_until}): needs a mirror of "
            "the archive (mirror=URL/debian-archive/debian); expired keys and SHA-1 are accepted"
        )
    if state == "ended":
        return (
            f"its support ended on {suite.supported_until}: no more security updates, it may leave "
            "the mirrors any day; its security Release may expire (security=no)"
        )
    return ""


def facts_of(suite: Suite, today: date) -> dict[str, str]:
    """The facts that differ between releases, by the names of the table's columns."""
    kernel = suite.default_kernel("amd64")
    vsyscall = "vsyscall" if suite.needs_vsyscall else ""
    return {
        "suite": suite.name,
        "version": suite.version,
        "state": state_on(suite, today),
        "until": suite.supported_until,
        "init": "/".join(suite.inits),
        "kernel": kernel,
        "Linux": ".".join(map(str, suite.kernel_version)),
        "modules": suite.xen_modules.get("amd64", ""),
        "fs": suite.default_fs,
        "inode": str(suite.inode_size),
        "console": suite.console,
        "disk": suite.disk_device,
        "xend": suite.own_xen,
        "card": suite.nic_naming,
        "hash": suite.password_hash,
        "sources": suite.sources_form,
        "security": suite.security_suite,
        "keyring": suite.keyring.rpartition("/")[2],
        "signed": "InRelease" if suite.has_inrelease else "Release.gpg",
        "SHA-1": "accepted" if suite.accepts_sha1 else "refused",
        "dates": "checked" if suite.checks_valid_until else "ignored",
        "script": suite.debootstrap_script,
        "needs": vsyscall,
    }
