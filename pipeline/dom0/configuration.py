"""The texts and links of an installed guest: prepared aside, put in place by renames."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.dom0.config_file import encode, read_config
from pipeline.dom0.inventory import Installed, link_target, marked, read_installed
from pipeline.dom0.layout import Layout
from pipeline.errors import InUseError, UsageError
from pipeline.storage.transaction import Step, Transaction, remove, rename, write_aside
from pipeline.xen.boot import Direct
from pipeline.xen.domain import Domain
from pipeline.xen.render import render_xl, render_xm

_SUFFIX = ".domu-new"


def render(domain: Domain, *, toolstack: str, xen: str) -> str:
    """The configuration for the host's toolstack; raises UsageError for what it cannot express."""
    try:
        return render_xm(domain, xen=xen) if toolstack == "xm" else render_xl(domain, xen=xen)
    except ValueError as error:
        raise UsageError(f"{domain.name}: {error}", hint="correct the spec") from error


def moved_domain(domain: Domain, targets: Mapping[str, str], kernel: Path | None) -> Domain:
    """The same domain with its disks at `targets` (vdev to path) and its kernel in a folder."""
    disks = tuple(
        replace(disk, target=targets.get(disk.vdev, disk.target)) for disk in domain.disks
    )
    boot = domain.boot
    if isinstance(boot, Direct) and kernel is not None:
        boot = replace(
            boot,
            kernel=str(kernel / "vmlinuz"),
            ramdisk=str(kernel / "initrd.img") if boot.ramdisk else None,
        )
    return replace(domain, disks=disks, boot=boot)


def current_text(layout: Layout, record: Installed) -> str:
    """The configuration as it is, the administrator's edits included; as we wrote it if gone.

    Raises what read_config does.
    """
    text = read_config(layout, record.name)
    return record.config_text if text is None else text


def prepare_texts(transaction: Transaction, record: Installed) -> list[Step]:
    """Write configuration, link and record beside their places; returns the steps of the commit."""
    layout, name = transaction.layout, record.name
    config, link = layout.config(name), layout.auto_link(name)
    transaction.will_make(*(remove(_aside(path)) for path in (config, link)))
    config.parent.mkdir(parents=True, exist_ok=True)
    # readable by root alone: a vfb may hold a password of the administrator's
    write_aside(_aside(config), encode(record.config_text))
    steps = [rename(_aside(config), config)]
    if record.is_autostarted:
        link.parent.mkdir(parents=True, exist_ok=True)
        _aside(link).symlink_to(f"../{config.name}")
        steps.append(rename(_aside(link), link))
    elif is_our_link(layout, name):
        steps.append(remove(link))
    return [*steps, *prepare_record(transaction, record)]


def prepare_record(transaction: Transaction, record: Installed) -> list[Step]:
    """Write the record beside its place; the marks of the disks are those of now."""
    kept = transaction.layout.record(record.name)
    transaction.will_make(remove(_aside(kept)))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_aside(_aside(kept), marked(record).to_json())
    return [rename(_aside(kept), kept)]


def refuse_foreign(layout: Layout, name: str) -> None:
    """Raises InUseError when a configuration or link of that name is there that is not ours."""
    config, link = layout.config(name), layout.auto_link(name)
    hint = "move it away, or give the guest another name"
    if os.path.lexists(config) and read_installed(layout, name) is None:
        raise InUseError(f"{config} is there and was not installed by doit", hint=hint)
    if os.path.lexists(link) and not is_our_link(layout, name):
        raise InUseError(f"{link} is there and was not made by doit", hint=hint)


def is_our_link(layout: Layout, name: str) -> bool:
    """Whether the link in auto/ is one that we made or would make."""
    target = link_target(layout.auto_link(name))
    return target in (f"../{name}.cfg", str(layout.config(name)))


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}{_SUFFIX}")
