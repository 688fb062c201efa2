"""cloud-init in a guest, and what its seed tells it at the first boot."""

from typing import Annotated

from pydantic import AfterValidator, Field, StrictBool, StrictStr

from pipeline.spec import values
from pipeline.spec.keys import Section
from pipeline.xen.values import matching

SEED_FS, SEED, SEED_MIB = "cidata", "seed", 4
ELEMENT = "cloud-init"
# where the element was proven
SUITES = ("bookworm", "trixie", "noble")

Keys = Annotated[tuple[values.Text, ...], values.AsList]
Words = Annotated[tuple[values.Text, ...], values.AsList]
# as useradd(8) has it
check_user = matching("[a-z_][a-z0-9_-]{0,31}", "is not a user's name", "write it as alice")
UserName = Annotated[StrictStr, AfterValidator(check_user)]


class UserKeys(Section):
    """A user that cloud-init makes at the first boot, in cloud-init's own words."""

    name: UserName = Field(description="The account.", examples=["alice"])
    ssh_authorized_keys: Keys = Field(
        (), description="Public SSH keys: key lines, or files that hold them."
    )
    groups: Words = Field((), description="Further groups.", examples=[["adm", "sudo"]])
    sudo: values.Text = Field(
        "", description="A line of sudoers.", examples=["ALL=(ALL) NOPASSWD:ALL"]
    )
    shell: values.AbsolutePath = Field("/bin/bash", description="Its shell.")


class SeedKeys(Section):
    """What the seed says besides the guest's name, addresses and authorized_keys."""

    ssh_authorized_keys: Keys = Field(
        (),
        description="Public SSH keys of the suite's own user (debian, ubuntu), who may sudo: key"
        " lines, or files that hold them.",
        examples=[["~/.ssh/id_ed25519.pub"]],
    )
    users: tuple[UserKeys, ...] = Field(
        (), description="Users instead of the suite's own: name, ssh_authorized_keys, groups, sudo."
    )
    packages: Annotated[tuple[values.PackageName, ...], values.AsList] = Field(
        (), description="Packages that the guest installs itself.", examples=[["nginx"]]
    )
    runcmd: Words = Field(
        (),
        description="Commands of the first boot.",
        examples=[["systemctl enable --now nginx"]],
    )


NOTHING_SAID = SeedKeys.model_validate({})


class CloudInit(Section):
    """cloud-init: templates and seeds.

    A template has no name, key, address or machine-id: cloud-init gives them at the first boot, out
    of a seed ([how-to/cloud-init.md](../how-to/cloud-init.md)).
    """

    cloud_init: StrictBool = Field(
        False,
        description="Make a template: cloud-init is in it, and no identity. Name, addresses and"
        " authorized_keys of this spec go into its seed.",
    )
    seed: SeedKeys | None = Field(
        None,
        description="Give it a seed, a small disk that cloud-init reads; this table says what is in"
        " it besides.",
    )
    user_data: values.FilePath = Field(
        "",
        description="Give it a seed with this file as its user-data: cloud-config, which is checked"
        " by the guest's own cloud-init, or a script.",
        examples=["web1.yaml"],
    )
