"""The keys of a spec about what the guest is, what is in it and who may enter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from pipeline.spec import values

_FROZEN = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Naming(BaseModel):
    """Name."""

    model_config = _FROZEN

    name: values.GuestName = Field(
        description="The guest's name: its file is guests/NAME.toml, its domain has this name.",
        examples=["test-drbd", "web1"],
    )
    description: values.Text = Field(
        "", description="What the guest is for, in one line.", examples=["replicated disk, node 1"]
    )
    hostname: values.HostName = Field(
        "",
        description="Host name, short or fully qualified. Default: the name.",
        examples=["web1", "web1.example.org"],
    )
    domain: values.HostName = Field(
        "", description="DNS domain, where hostname is short.", examples=["example.org"]
    )
    hosts: Annotated[tuple[values.HostsLine, ...], values.AsList] = Field(
        (), description="Further lines of /etc/hosts.", examples=[["192.168.1.5 db db.example.org"]]
    )


class Origin(BaseModel):
    """Release and mirror."""

    model_config = _FROZEN

    suite: values.SuiteName = Field(
        "bookworm", description="Release, by its code name.", examples=["bookworm", "noble"]
    )
    arch: Literal["amd64", "i386"] = Field(
        "amd64",
        description="Architecture of the guest. Default: i386 for a kernel whose name ends in 686, "
        "else amd64.",
    )
    mirror: values.Mirror = Field(
        "host",
        description=(
            "Where packages come from: host (this machine's own apt sources), proxy (the caching"
            " proxy of `doit mirror-proxy`), a URL, HOST:PORT (meaning http://HOST:PORT/debian, or"
            " /ubuntu), file:/FOLDER, or the name of a file in mirrors/."
        ),
        examples=["host", "http://monmiroir:9999/debian/", "monmiroir:9999"],
    )
    guest_mirror: values.Mirror = Field(
        "",
        description="Mirror in the guest's own sources.list. Default: the same as mirror.",
        examples=["http://mirror.example.org/debian"],
    )
    components: Annotated[tuple[values.PackageName, ...], values.AsList] = Field(
        (),
        description="Components of the archive. Default by suite: main; Ubuntu: main, universe.",
        examples=[["main", "contrib"]],
    )
    updates: StrictBool = Field(True, description="Also use the suite's updates.")
    security: StrictBool = Field(True, description="Also use the suite's security updates.")
    keyring: values.FilePath = Field(
        "",
        description="Keys that must have signed the mirror. Default: the suite's keyring.",
        examples=["/usr/share/keyrings/debian-archive-keyring.gpg"],
    )
    snapshot_max_age: values.Duration = Field(
        "24h",
        description="How long a fetched state of the mirror is used again; 0: look every time.",
        examples=["24h", "7d", "0"],
    )
    bootstrap: Literal["mmdebstrap", "debootstrap", "parallel"] = Field(
        "",  # type: ignore[arg-type]
        description="How the base tree is made; `parallel` is this pipeline's own way to the same "
        "tree. Default: parallel where it is known to (docs/bootstrap.md), else mmdebstrap.",
    )


class Software(BaseModel):
    """Software."""

    model_config = _FROZEN

    init: Literal["systemd", "sysvinit"] = Field(
        "",  # type: ignore[arg-type]
        description="The guest's init. Default by suite: systemd from jessie on.",
    )
    packages: Annotated[tuple[values.PackageName, ...], values.AsList] = Field(
        (), description="Packages to install besides the base.", examples=[["drbd-utils", "vim"]]
    )
    elements: Annotated[tuple[values.ElementName, ...], values.AsList] = Field(
        (), description="Further diskimage-builder elements.", examples=[["drbd"]]
    )
    elements_path: Annotated[tuple[values.FilePath, ...], values.AsList] = Field(
        (),
        description="Folders with elements of your own. Where one has the name of one of ours, ours"
        " is taken; one that diskimage-builder ships is replaced.",
        examples=[["/srv/elements"]],
    )
    element_hosts: Annotated[tuple[values.HostName, ...], values.AsList] = Field(
        (),
        description="Hosts that your elements may fetch from by http or https, through http_proxy "
        "and https_proxy; a build reaches its mirror only otherwise.",
        examples=[["pypi.org", "files.pythonhosted.org"]],
    )
    documentation: StrictBool = Field(
        False,
        description="Unpack manual pages, /usr/share/doc and messages in other languages than "
        "English. Default: only copyright files, and messages where locale names a language. "
        "Releases before squeeze have all of it.",
    )
    debconf_priority: Literal["low", "medium", "high", "critical"] = Field(
        "medium", description="Questions of at least this priority are asked by debconf."
    )
    timezone: values.TimeZone = Field(
        "Etc/UTC", description="Time zone.", examples=["Etc/UTC", "Europe/Paris"]
    )
    locale: values.Locale = Field(
        "",
        description="Locale. Default by suite: C.UTF-8 from wheezy on, C before.",
        examples=["C.UTF-8", "fr_FR.UTF-8"],
    )


class Access(BaseModel):
    """Who may enter. Without any of these keys nobody can: root is locked and has no keys."""

    model_config = _FROZEN

    authorized_keys: Annotated[tuple[values.Text, ...], values.AsList] = Field(
        (),
        description=(
            "Public SSH keys that may log in as root: key lines, or files that hold them (relative"
            " to the spec; ~/ is the builder's home). Private keys, DSA, RSA under 2048 bits and"
            " keys that the suite's sshd does not know are refused."
        ),
        examples=[["~/.ssh/id_ed25519.pub"]],
    )
    root_password_file: values.PasswordFile = Field(
        "",
        description="File whose first line is root's password; '-' reads standard input.",
        examples=["-", "/root/secrets/web1"],
    )
    root_password_hash: values.PasswordHash = Field(
        "",
        repr=False,
        description="Root's password as crypt(5) writes it, in a form the suite understands.",
        examples=["$6$salt$..."],
    )
