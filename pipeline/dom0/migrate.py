"""Moving a running guest to another host: what moves, what does not, and what both must allow.

Facts: xl(1) MIGRATE, xend-config.sxp's own comments, xl-disk-configuration(5).
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pipeline.console.progress import print_line
from pipeline.dom0.configuration import Grammar, read_text, require_readable
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import Installed
from pipeline.dom0.other_host import (
    SSH,
    Needs,
    OtherHost,
    ask_host,
    find_obstacles,
    note_moved,
    require_here,
)
from pipeline.dom0.power import Guest, Host
from pipeline.dom0.setup import sxp
from pipeline.dom0.toolstack import Toolstack
from pipeline.errors import CommandFailed, EnvironmentFault, Finding, InUseError, PipelineError
from pipeline.guest.login import ssh_agent
from pipeline.preflight import refusal_of
from pipeline.storage.transaction import guest_lock
from pipeline.xen.boot import Direct, Firmware, Grub, Pygrub
from pipeline.xen.capabilities import find_no_live
from pipeline.xen.devices import resource_of
from pipeline.xen.domain import Domain

_XEND = Path(sxp.PATH)
_SHARED = frozenset(
    "nfs nfs4 cifs smb3 ocfs2 gfs2 glusterfs fuse.glusterfs ceph fuse.ceph lustre".split()
)
LOCAL = "localhost"


@dataclass(frozen=True)
class Storage:
    """A disk and where its bytes are; `is_shared` is None where only the administrator knows.

    One that nobody writes to, a CD-ROM, may be a copy on either host.
    """

    target: str
    where: str
    is_shared: bool | None
    is_read_only: bool = False


@dataclass(frozen=True)
class MigrationPlan:
    """A migration with all that is known of it before it begins.

    `info` is what the toolstack tells of this host, `obstacles` what stops the guest here already.
    """

    guest: Guest
    domain: Domain
    target: str
    is_live: bool
    program: str
    disks: tuple[Storage, ...]
    settings: tuple[str, ...]
    info: Mapping[str, str]
    obstacles: tuple[Finding, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Paths besides the disks' that must be on the other host too, for the next boot."""
        boot = self.domain.boot
        if isinstance(boot, Direct):
            return (boot.kernel, *([boot.ramdisk] if boot.ramdisk else []))
        path = boot.kernel if isinstance(boot, Grub) else ""
        path = boot.path if isinstance(boot, Pygrub | Firmware) else path
        return (path,) if path.startswith("/") else ()

    @property
    def users(self) -> tuple[str, ...]:
        """As whom pygrub runs."""
        boot = self.domain.boot
        user = boot.user if isinstance(boot, Pygrub) else ""
        return (user,) if user and not user.isdigit() else ()

    def needs(self, memory_mib: int) -> Needs:
        """What the other host is asked for; the memory is that of the running domain."""
        disks = tuple(disk.target for disk in self.disks)
        return Needs(self.domain, memory_mib, disks, self.files, self.users)

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
        needs = self.needs(0)
        for path in (*needs.disks, *needs.files):
            yield f"    {path}"
        for user in needs.users:
            yield f"    the user {user}"
        for bridge in needs.bridges:
            yield f"    bridge {bridge}, in the same network"
        for line in self.settings:
            yield f"  {line}"
        for finding in self.obstacles:
            yield f"  it cannot move: {finding.text}"
            yield f"    {finding.hint}"


def plan_migration(host: Host, guest: Guest, *, target: str, is_live: bool) -> MigrationPlan:
    """Read the guest's configuration and its storage; raises PipelineError when it cannot be."""
    program = host.toolstack.program if host.toolstack else _program_of(guest.record)
    grammar = Grammar(program)
    text = _read(guest.config)
    domain = require_readable(grammar, guest.config, text)
    mounts = Path("/proc/self/mountinfo").read_text()
    disks = tuple(
        judge_storage(disk.target, mounts, is_read_only=disk.access == "ro")
        for disk in domain.disks
        if disk.target
    )
    info = host.toolstack.host_facts() if host.toolstack else {}
    if program == "xm":
        xend = _XEND.read_text() if _XEND.is_file() else ""
        settings = tuple(xend_settings(xend, target))
    else:
        settings = (
            f"xl goes through ssh as root: ssh {target} xl migrate-receive",
            "both hosts: the same Xen version or the newer one there, and a processor that has "
            "all that the guest uses (cpuid= hides the rest)",
        )
    obstacles = (*find_no_live(domain.type, info), *find_bound(grammar.values(text)))
    return MigrationPlan(guest, domain, target, is_live, program, disks, settings, info, obstacles)


def find_bound(values: Mapping[str, object]) -> Iterator[Finding]:
    """Keys of a configuration that bind the guest to its host: xl.cfg(5)."""
    for key in ("pci", "usbdev", "dtdev"):
        if values.get(key):
            yield Finding(
                "error", key, "a device of this host is handed to it", f"take {key}= out of it"
            )
    if str(values.get("nomigrate", "0")) not in ("0", ""):
        yield Finding("error", "nomigrate", "its configuration forbids it", "take nomigrate= out")


def judge_storage(target: str, mountinfo: str, *, is_read_only: bool = False) -> Storage:
    """Where a disk's bytes are, after the file system that it is on (proc(5), mountinfo)."""
    if resource := resource_of(target):
        where = f"the DRBD resource {resource}: up there too; for live=yes, allow-two-primaries"
        return Storage(target, where, None, is_read_only)
    if target.startswith("/dev/"):
        return Storage(
            target,
            "a device of this host: the other must reach it (iSCSI, DRBD, clustered LVM)",
            None,
            is_read_only,
        )
    best, kind = "", ""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    if kind in _SHARED:
        where = f"on {kind} ({best}): mount it there at the same place"
        return Storage(target, where, True, is_read_only)
    where = f"on this host's own {kind or 'file system'} ({best})"
    return Storage(target, where, False, is_read_only)


def xend_settings(text: str, target: str) -> Iterator[str]:
    """What xend-config.sxp must say, here and on the other host, and what is not so here."""
    values = sxp.read_sxp(text)
    yield f"{sxp.PATH} on {target}, then restart xend there:"
    for key, value in sxp.relocation_settings("this-host").items():
        yield f"  {sxp.render(key, value)}"
    if values.get("xend-relocation-server") != "yes":
        yield "here it is off: the guest could not come back ((xend-relocation-server yes))"
    elif not values.get("xend-relocation-hosts-allow"):
        yield "here every host may send guests: name them in xend-relocation-hosts-allow"
    yield "memory goes over the wire in clear: a network of its own, please"


def migrate(host: Host, plan: MigrationPlan) -> None:
    """Look at the other host, then let the toolstack do it; the guest stays here if it fails.

    Raises UsageError and InUseError for what stands in the way here and there, EnvironmentFault for
    what the other host lacks.
    """
    xen, name = host.require_xen(), plan.guest.name
    running = xen.domains().get(name)
    if running is None:
        raise PipelineError(f"{name} does not run", hint=f"doit start name={name}")
    _refuse(plan.obstacles, name)
    if plan.target != LOCAL:
        _refuse_local_disks(plan)
        if xen.program == "xl":
            _refuse_unfit(plan, ask_host(plan.target, plan.needs(0).words), running.memory_mib)
    with ExitStack() as stack:
        if plan.guest.record is not None:  # nobody changes the guest while it moves
            stack.enter_context(guest_lock(site_of(host.layout), name))
        if plan.target == LOCAL or xen.program != "xl":
            _send(xen, plan)
        else:
            # before, for whoever is killed here: a guest that runs here as well makes it void
            note_moved(host.layout, name, plan.target)
            try:
                _send(xen, plan)
            except CommandFailed:
                if name in xen.domains():
                    require_here(host.layout, xen, name)
                raise
    if xen.program == "xl":
        _require_there(xen, plan)


def _require_there(xen: Toolstack, plan: MigrationPlan) -> None:
    """xl is content once the guest goes on: one that crashes then is gone, or starts anew."""
    name, is_local = plan.guest.name, plan.target == LOCAL
    if name not in (xen.domains() if is_local else ask_host(plan.target, ()).domains):
        raise PipelineError(
            f"{name} moved to {plan.target} and does not run there any more",
            hint=f"why: /var/log/xen/xl-{name}--incoming.log there, and the log of its console",
        )


def _send(xen: Toolstack, plan: MigrationPlan) -> None:
    name = plan.guest.name
    if plan.target == LOCAL:
        # xl's own way to a receiver without ssh: an empty command and the receiver as the host
        words = ["-s", "", name, "xl migrate-receive"]
    elif xen.program == "xl":
        words = ["-s", " ".join(SSH), name, plan.target]
    else:
        words = [*(["--live"] if plan.is_live else []), name, plan.target]
    try:
        xen.run("migrate", *words, env=ssh_agent())
    except CommandFailed as error:
        left = xen.domains()
        error.hint = f"{name} goes on here"
        if name not in left:
            here = (
                ", ".join(domain for domain in left if domain.startswith(f"{name}--")) or "nothing"
            )
            error.hint = (
                f"xl lost it half-way: here is {here}; look there too (xl list) before anything is "
                "resumed, for two that run would ruin the disks"
            )
        raise


def _refuse(findings: Iterator[Finding] | tuple[Finding, ...], where: str) -> None:
    fault = refusal_of(findings)
    if fault:
        fault.brief = f"{where}: {fault.brief}"
        raise fault


def _refuse_local_disks(plan: MigrationPlan) -> None:
    """What it writes to must be one and the same disk for both hosts."""
    local = [disk.target for disk in plan.disks if disk.is_shared is False]
    if any(disk.is_shared is False and not disk.is_read_only for disk in plan.disks):
        raise EnvironmentFault(
            f"{', '.join(local)}: only this host has it",
            hint="put it on shared storage; or doit save, copy disks and the saved file to the "
            "same paths there, and doit restore there",
        )


def _refuse_unfit(plan: MigrationPlan, there: OtherHost, memory_mib: int) -> None:
    name = plan.guest.name
    taken = [domain for domain in (name, f"{name}--incoming") if domain in there.domains]
    if taken:
        raise InUseError(
            f"{there.name} has a guest {taken[0]} already",
            hint=f"look at it before it goes: ssh {there.name} xl list",
        )
    findings = list(find_obstacles(plan.needs(memory_mib), plan.info, there))
    _refuse(tuple(findings), there.name)
    for finding in findings:
        print_line(f"  {finding.subject}: {finding.text}; {finding.hint}")


def _program_of(record: Installed | None) -> str:
    return record.toolstack if record else "xl"


def _read(config: Path) -> str:
    try:
        return read_text(config)
    except FileNotFoundError as error:
        raise PipelineError(f"{config} is gone", hint="put it back") from error
