"""The keys of a spec about the virtual machine: boot, memory, screen and life in the host."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from pipeline.spec import addresses, values

_FROZEN = ConfigDict(frozen=True, extra="forbid", defer_build=True)
StopAction = Literal["destroy", "restart", "rename-restart", "preserve"]
CrashAction = Literal[
    "destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart"
]


class Boot(BaseModel):
    """Kernel and boot."""

    model_config = _FROZEN

    kernel: values.Kernel = Field(
        "",
        description=(
            "Kernel: a package, package=version, host (this machine's kernel), or the absolute"
            " path of a vmlinuz. Default: the suite's leanest that boots the chosen way."
        ),
        examples=["linux-image-cloud-amd64", "host", "/boot/vmlinuz-6.1.0-xen"],
    )
    initrd: values.AbsolutePath = Field(
        "",
        description="Initial ramdisk of a kernel given as a path. Default: one is made.",
        examples=["/boot/initrd.img-6.1.0-xen"],
    )
    modules: values.AbsolutePath = Field(
        "",
        description="Modules of a kernel given as a path. Default: /lib/modules/ of its version.",
        examples=["/lib/modules/6.1.0-xen"],
    )
    type: Literal["pv", "pvh", "hvm"] = Field(
        "pv", description="Kind of guest: paravirtual, PVH, or a full PC (HVM)."
    )
    boot: Literal["direct", "pygrub", "grub", "firmware"] = Field(
        "direct",
        description=(
            "How the kernel is found: direct (files of the host), pygrub (the host reads it out of"
            " the guest's disk), grub (PV GRUB, or PVH GRUB), firmware (an HVM's own boot"
            " loader, GRUB on a small disk of its own, and the kernel inside the guest)."
        ),
    )
    cmdline: values.CommandLine = Field(
        "", description="Further kernel arguments.", examples=["quiet", "vsyscall=emulate"]
    )
    bootloader: values.AbsolutePath = Field(
        "",
        description="Path of pygrub or of the GRUB image in the host, if not the usual one.",
        examples=["/usr/lib/xen-3.2-1/bin/pygrub"],
    )
    xen: values.XenVersion = Field(
        "4.17", description="The Xen that will run the guest.", examples=["4.17", "3.2"]
    )


class Resources(BaseModel):
    """Memory and processors."""

    model_config = _FROZEN

    memory: values.MemorySize = Field(
        "256M", description="Memory, at least 64M; a plain number is MiB.", examples=["256M", 512]
    )
    maxmem: values.MemorySize = Field(
        "",
        description="Memory that the guest may be given later. Default: memory.",
        examples=["1G"],
    )
    vcpus: Annotated[StrictInt, Field(ge=1, le=512)] = Field(1, description="Virtual processors.")
    maxvcpus: Annotated[StrictInt, Field(ge=1, le=512)] | None = Field(
        None, description="Processors that may be plugged in later. Default: vcpus."
    )


class Screen(BaseModel):
    """Screen: a virtual frame buffer over VNC."""

    model_config = _FROZEN

    vnc: StrictBool = Field(False, description="Give the guest a screen that VNC shows.")
    vncdisplay: Annotated[StrictInt, Field(ge=0, le=9999)] | None = Field(
        None, description="Fixed VNC display; port 5900 and this number.", examples=[2]
    )
    vncunused: StrictBool | None = Field(
        None, description="Take the first free display. Default: true without vncdisplay."
    )
    vnclisten: addresses.NameServer = Field(
        "", description="Address that VNC listens on. Default: 127.0.0.1.", examples=["127.0.0.1"]
    )
    keymap: values.PackageName = Field("", description="VNC's keyboard map.", examples=["fr"])


class Life(BaseModel):
    """Life in the host."""

    model_config = _FROZEN

    on_poweroff: StopAction = Field(
        "destroy", description="What Xen does when the guest powers off."
    )
    on_reboot: StopAction = Field("restart", description="What Xen does when the guest reboots.")
    on_crash: CrashAction = Field("restart", description="What Xen does when the guest crashes.")
    autostart: StrictBool = Field(False, description="Start with the host (/etc/xen/auto).")
