"""Moving a running guest to another host: what moves, what does not, and what both must allow.

Facts: xl(1) MIGRATE, xend-config.sxp's own comments, xl-disk-configuration(5).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import process
from pipeline.dom0.configuration import Grammar, require_readable
from pipeline.dom0.inventory import Installed
from pipeline.dom0.power import Guest, Host
from pipeline.errors import EnvironmentFault, PipelineError
from pipeline.files import read_bytes
from pipeline.xen.boot import Direct, Grub
from pipeline.xen.domain import Domain

XEND_PORT = 8002
_XEND = Path("/etc/xen/xend-config.sxp")
_SHARED = frozenset(
    "nfs nfs4 cifs smb3 ocfs2 gfs2 glusterfs fuse.glusterfs ceph fuse.ceph lustre".split()
)
LOCAL = "localhost"
_SXP = re.compile(r"^\s*\(\s*([a-z-]+)\s+(?:'([^']*)'|([^)\s]*))\s*\)", re.MULTILINE)


@dataclass(frozen=True)
class Storage:
    """A disk and where its bytes are; `is_shared` is None where only the administrator knows."""

    target: str
    where: str
    is_shared: bool | None


@dataclass(frozen=True)
class MigrationPlan:
    """A migration with all that is known of it before it begins."""

    guest: Guest
    domain: Domain
    target: str
    is_live: bool
    program: str
    disks: tuple[Storage, ...]
    settings: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """Paths that must be on the other host too: disks now, kernel and ramdisk at a reboot."""
        boot = self.domain.boot
        found = [disk.target for disk in self.disks]
        if isinstance(boot, Direct | Grub):
            found.append(boot.kernel)
        if isinstance(boot, Direct) and boot.ramdisk:
            found.append(boot.ramdisk)
        return found

    def explain(self) -> Iterator[str]:
        """What will happen, line by line."""
        if self.program == "xl":
            how = "while it runs: xl knows no other way (else: doit save, copy, doit restore)"
        elif self.is_live:
            how = "while it runs: memory is copied round by round, the pause is short"
        else:
            how = "it stands still while its memory is copied; live=yes shortens that"
        yield f"{self.guest.name} to {self.target}, {how}"
        yield "  memory and processor state move, uptime and connections go on; disks do not move:"
        for disk in self.disks:
            yield f"    {disk.target}: {disk.where}"
        yield "  the other host needs these paths, leading to the same bytes:"
        for path in self.files:
            yield f"    {path}"
        for card in self.domain.cards:
            yield f"    bridge {card.bridge or 'xenbr0'}, in the same network"
        for line in self.settings:
            yield f"  {line}"


def plan_migration(host: Host, guest: Guest, *, target: str, is_live: bool) -> MigrationPlan:
    """Read the guest's configuration and its storage; raises PipelineError when it cannot move."""
    program = host.toolstack.program if host.toolstack else _program_of(guest.record)
    domain = _read(guest.config, program)
    if target.startswith("-") or not target.isprintable() or " " in target:
        raise PipelineError(f"to={target}: not a host", hint="a host name or an address")
    mounts = Path("/proc/self/mountinfo").read_text()
    disks = tuple(judge_storage(disk.target, mounts) for disk in domain.disks if disk.target)
    if program == "xm":
        text = _XEND.read_text() if _XEND.is_file() else ""
        settings = tuple(xend_settings(text, target))
    else:
        settings = (
            f"xl goes through ssh as root: ssh {target} xl migrate-receive",
            "both hosts: the same Xen version or the newer one there, and a processor that has "
            "all that the guest uses (cpuid= hides the rest)",
        )
    return MigrationPlan(guest, domain, target, is_live, program, disks, settings)


def judge_storage(target: str, mountinfo: str) -> Storage:
    """Where a disk's bytes are, after the file system that it is on (proc(5), mountinfo)."""
    if target.startswith("/dev/"):
        return Storage(
            target,
            "a device of this host: the other must reach it (iSCSI, DRBD, clustered LVM)",
            None,
        )
    best, kind = "", ""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    if kind in _SHARED:
        return Storage(target, f"on {kind} ({best}): mount it there at the same place", True)
    return Storage(target, f"on this host's own {kind or 'file system'} ({best})", False)


def xend_settings(text: str, target: str) -> Iterator[str]:
    """What xend-config.sxp must say, here and on the other host, and what is not so here."""
    values = {key: quoted or plain for key, quoted, plain in _SXP.findall(text)}
    yield f"/etc/xen/xend-config.sxp on {target}, then restart xend there:"
    yield "  (xend-relocation-server yes)"
    yield f"  (xend-relocation-port {XEND_PORT})"
    yield "  (xend-relocation-address '')"
    yield "  (xend-relocation-hosts-allow '^this-host$ ^localhost$')"
    if values.get("xend-relocation-server") != "yes":
        yield "here it is off: the guest could not come back ((xend-relocation-server yes))"
    elif not values.get("xend-relocation-hosts-allow"):
        yield "here every host may send guests: name them in xend-relocation-hosts-allow"
    yield "memory goes over the wire in clear: a network of its own, please"


def migrate(host: Host, plan: MigrationPlan) -> None:
    """Look at the other host, then let the toolstack do it; the guest stays here if it fails."""
    xen = host.require_xen()
    if plan.guest.name not in xen.domains():
        raise PipelineError(
            f"{plan.guest.name} does not run", hint=f"doit start name={plan.guest.name}"
        )
    local = [disk.target for disk in plan.disks if disk.is_shared is False]
    if plan.target == LOCAL:
        # xl's own way to a receiver without ssh: an empty command and the receiver as the host
        xen.run("migrate", "-s", "", plan.guest.name, "xl migrate-receive")
        return
    if local:
        raise EnvironmentFault(
            f"{', '.join(local)}: only this host has it",
            hint="put it on shared storage; or doit save, copy disks and the saved file to the "
            "same paths there, and doit restore there",
        )
    if xen.program == "xl":
        _ask_other(plan, lambda words: process.run(["ssh", *_SSH, plan.target, *words]))
    live = ["--live"] if plan.is_live and xen.program == "xm" else []
    xen.run("migrate", *live, plan.guest.name, plan.target)


_SSH = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--")


def _ask_other(plan: MigrationPlan, ask: Callable[[list[str]], str]) -> None:
    """Raises EnvironmentFault with what is missing there."""
    missing = []
    for path in plan.files:
        try:
            ask(["test", "-e", shlex.quote(path)])
        except PipelineError as error:
            if getattr(error, "status", 0) == 255:
                raise EnvironmentFault(
                    f"no SSH to root of {plan.target}", details=error.details
                ) from error
            missing.append(path)
    if missing:
        raise EnvironmentFault(
            f"{plan.target} has no {', '.join(missing)}", hint="the same paths must be there"
        )
    ask(["xl", "info", "xen_version"])


def _program_of(record: Installed | None) -> str:
    return record.toolstack if record else "xl"


def _read(config: Path, program: str) -> Domain:
    try:
        text = read_bytes(config, follow=True).decode(errors="surrogateescape")
    except FileNotFoundError as error:
        raise PipelineError(f"{config} is gone", hint="put it back") from error
    return require_readable(Grammar(program), config, text)
