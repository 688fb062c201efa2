"""The ways in which one whole disk is started, proven one after the other: `boots=`.

Under Xen the guest's own configuration is told another type and another firmware; in plain QEMU
there is none. Whatever it was that started them, the guests are asked the same.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import Finding, GuestFailed, UsageError
from pipeline.proof.artifact import Artifact
from pipeline.proof.causes import likely_causes
from pipeline.proof.checks import equal, holds, unasked
from pipeline.proof.console import Console
from pipeline.proof.course import Course
from pipeline.proof.ephemeral_key import Credential, inject_key
from pipeline.proof.evidence import Evidence
from pipeline.proof.machine import make_overlay
from pipeline.proof.mirror import Supplies
from pipeline.proof.plain_machine import (
    CONSOLE_LOG,
    LOOPBACK,
    OVMF,
    TERMINAL,
    PlainGround,
    on_plain_machine,
    qemu_argv,
)
from pipeline.proof.session import NO_SSHD, Asked, Session
from pipeline.proof.ssh import Shell
from pipeline.proof.testbed import Place
from pipeline.proof.timeouts import patient
from pipeline.spec import Spec
from pipeline.spec.domain import GRUB_BINARIES
from pipeline.xen.boot import Boot, Firmware, Grub
from pipeline.xen.render import render_xl

OWN, ALL = "own", "all"
XEN = ("pvh", "hvm", "pvh-uefi", "hvm-uefi")
PLAIN = ("qemu", "qemu-uefi")
BOOTS = (*XEN, *PLAIN)
DOWN_S = 90.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Plan:
    """One disk and the ways to start it; `firmware` gives the file of UEFI firmware for Xen."""

    artifact: Artifact
    spec: Spec
    asked: Asked
    supplies: Supplies | None
    boots: tuple[str, ...]
    firmware: Callable[[], Path]


def choose_boots(spec: Spec, words: Sequence[str]) -> tuple[str, ...]:
    """The ways that are meant, in our order; raises UsageError for a guest that has but its own."""
    if not spec.is_whole:
        raise UsageError(
            f"boots={','.join(words)}: {spec.name} has no boot loader of its own on its disk",
            hint="build it with disk = 'whole', or leave boots out",
        )
    wanted = {own_boot(spec) if word == OWN else word for word in words}
    if ALL in wanted:
        wanted |= {boot for boot in BOOTS if spec.has_efi_loader or not boot.endswith("uefi")}
    return tuple(boot for boot in BOOTS if boot in wanted)


def own_boot(spec: Spec) -> str:
    """The way that the guest's own configuration starts it."""
    return f"{spec.type}-uefi" if spec.is_uefi else spec.type


def prove_boots(course: Course, place: Place, plan: Plan, work: Path) -> None:
    """All of them, the disk's digest before and after; who fails keeps no other from its turn."""
    evidence = course.evidence
    with evidence.phase("total"):
        with evidence.phase("sha256"):
            before = measure_disks(plan.artifact)
        table = evidence.facts.setdefault("boots", {})
        for boot in plan.boots:
            own = replace(course, evidence=Evidence(evidence.guest))
            folder = work / boot
            folder.mkdir()
            try:
                _prove_boot(own, place, plan, boot, folder)
            except GuestFailed as error:
                own.evidence.add(holds("boot", "it is up", error.brief, ok=False))
            finally:
                _take_over(evidence, own.evidence, boot)
            table[boot] = describe_boot(own.evidence)
        with evidence.phase("sha256 again"):
            after = measure_disks(plan.artifact)
        evidence.facts["sha256"] = {"before": before, "after": after}
        shown = [" ".join(digests.values()) for digests in (before, after)]
        evidence.add(equal("sha256 of the disk, before and after", *shown))


def describe_boot(evidence: Evidence) -> dict[str, object]:
    """One way to start it, for proof.json: times in seconds, and how many checks held."""
    counts = [check for check in evidence.checks if check.level != "skipped"]
    return {
        "login_s": evidence.seconds.get("boot to login"),
        "total_s": evidence.seconds.get("total"),
        "checks": len(counts),
        "failed": len(evidence.failed),
    }


def measure_disks(artifact: Artifact) -> dict[str, str]:
    """SHA-256 of each disk: nobody compares another program's image by fs-verity."""
    digests = {}
    for path, _ in artifact.disks:
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            for chunk in iter(lambda: stream.read(_CHUNK), b""):
                digest.update(chunk)
        digests[path.name] = digest.hexdigest()
    return digests


def _take_over(evidence: Evidence, own: Evidence, boot: str) -> None:
    """What was seen of one start, under its name."""
    for check in own.checks:
        # its console is the serial line
        told = check.subject.replace("hvc0", "ttyS0") if boot in PLAIN else check.subject
        evidence.add(replace(check, subject=f"{boot}: {told}"))
    evidence.seconds |= {f"{boot} {name}": spent for name, spent in own.seconds.items()}
    evidence.work |= {f"{boot} {name}": spent for name, spent in own.work.items()}
    evidence.digests = evidence.digests or own.digests
    evidence.injected = evidence.injected or own.injected
    evidence.causes += [f"{boot}: {cause}" for cause in own.causes]
    evidence.console += f"===== {boot} =====\n{own.console}\n"


def _prove_boot(course: Course, place: Place, plan: Plan, boot: str, work: Path) -> None:
    if boot in PLAIN:
        _prove_plain(course, place, plan, boot, work)
        return
    other = under_xen(plan, boot, work)
    session: Session | None = None
    try:
        with course.entered(place, work, plan.artifact.digests) as (ground, seal):
            session = Session(ground, other, course.evidence, plan.asked, plan.supplies, seal)
            session.run(work)
    except GuestFailed:
        if session is not None:
            course.evidence.causes = likely_causes(session.seen)
        raise


def under_xen(plan: Plan, boot: str, work: Path) -> Artifact:
    """The same disk in a configuration that starts it so; the guest's own where that does."""
    artifact, spec = plan.artifact, plan.spec
    if boot == own_boot(spec):
        return artifact
    kind, _, firmware = boot.partition("-")
    way: Boot
    if firmware:
        way = Firmware("uefi", hdtype="ahci" if kind == "hvm" else "ide", path=str(plan.firmware()))
    elif kind == "hvm":
        way = Firmware(hdtype="ahci")
    else:
        way = Grub(GRUB_BINARIES["pvh", spec.arch])
    disks = tuple(replace(disk, vdev=_name_disk(disk.vdev, kind)) for disk in artifact.domain.disks)
    cards = tuple(
        card if kind == "hvm" else replace(card, model=None) for card in artifact.domain.cards
    )
    screen = artifact.domain.framebuffer if kind == artifact.domain.type else None
    domain = replace(
        artifact.domain, type=kind, boot=way, disks=disks, cards=cards, framebuffer=screen
    )
    path = work / f"{boot}.cfg"
    path.write_text(render_xl(domain, xen=spec.xen))
    return replace(artifact, configuration=path, domain=domain)


def _name_disk(vdev: str, kind: str) -> str:
    """A PC's firmware looks for IDE names; a PVH guest has none."""
    letter = vdev.rstrip("0123456789")[-1]
    return f"hd{letter}" if kind == "hvm" else f"xvd{letter}"


def in_plain_qemu(plan: Plan, boot: str) -> Artifact:
    """The same disk in a full PC that no configuration describes."""
    way = Firmware("uefi", path=str(OVMF[0])) if boot.endswith("uefi") else Firmware()
    domain = replace(plan.artifact.domain, type="hvm", boot=way, framebuffer=None)
    return replace(plan.artifact, domain=domain)


def _prove_plain(course: Course, place: Place, plan: Plan, boot: str, work: Path) -> None:
    other = in_plain_qemu(plan, boot)
    plain = Place({}, on_plain_machine)
    with course.entered(plain, work, plan.artifact.digests) as (ground, seal):
        assert isinstance(ground, PlainGround)
        accelerator = str(place.facts.get("accelerator", "tcg"))
        session = PlainSession(
            *(ground, other, course.evidence, plan.asked, None, seal),
            keys=place,
            work=work,
            accelerator=accelerator,
        )
        session.run(work)


@dataclass
class PlainSession(Session):
    """A start in plain QEMU: its console is a serial line, its end the guest's own doing.

    `keys` is where a key is put into its disks before: a test host that can mount them.
    """

    keys: Place | None = None
    work: Path = Path()
    accelerator: str = "tcg"

    def __post_init__(self) -> None:
        self.console = SerialConsole(self.host.agent, self.artifact.name)

    @property
    def overlays(self) -> list[Path]:
        """What takes the writes meant for its disks, in their order."""
        return [self.work / f"disk{number}.qcow2" for number in range(len(self.artifact.disks))]

    def _prepare(self, work: Path) -> None:
        self.host.receive([self.artifact], work)
        self.evidence.digests = self.seal()

    def find_credential(self) -> Credential:
        """As under Xen; the test host makes the overlays, or we do where it is not needed."""
        if self.artifact.has_sshd and not self.asked.read_key() and self.keys is not None:
            with self.keys.enter(self.work, self.ground.log) as host:
                host.receive([self.artifact], self.work)
                credential = inject_key(host.agent, self.artifact)
            self.evidence.injected = credential.injected
            return credential
        for overlay, (path, _) in zip(self.overlays, self.artifact.disks, strict=True):
            make_overlay(path, overlay, base_format="raw", log=self.ground.log)
        key = self.asked.read_key()
        return Credential(key) if key else Credential(reason=NO_SSHD)

    @property
    def ground(self) -> PlainGround:
        """The namespaces that it runs in."""
        assert isinstance(self.host, PlainGround)
        return self.host

    def create(self) -> None:
        """QEMU's start."""
        boot = self.artifact.domain.boot
        is_uefi = isinstance(boot, Firmware) and boot.kind == "uefi"
        argv = qemu_argv(
            self.artifact,
            self.overlays,
            self.work,
            is_uefi=is_uefi,
            accelerator=self.accelerator,
        )
        self.ground.start(argv)

    def find_address(self, index: int = 0) -> str:
        """Where QEMU hands a connection on to the guest; "" without a card."""
        return LOOPBACK if self.artifact.cards else ""

    def shut_down(self, shell: Shell) -> Finding:
        """Powered off from inside: a guest without logind has no ear for the PC's button."""
        bound = f"gone within {patient(DOWN_S):.0f} s"
        if not self.credential.key:
            shell.leave()
            return unasked("power off", self.credential.reason, bound)
        shell.run("(sleep 1; poweroff) >/dev/null 2>&1 &")
        shell.leave()
        has_ended = self.ground.has_ended(wait_s=patient(DOWN_S))
        self.console.poll(wait_s=0)
        is_clean = has_ended and "Power down" in self.console.text
        seen = "powered down" if is_clean else "it ended" if has_ended else "still there"
        return holds("power off", bound, seen, ok=is_clean)


class SerialConsole(Console):
    """The guest's first serial line, as QEMU logs it."""

    path = CONSOLE_LOG

    def type_in(self, text: str) -> None:
        """Type on it."""
        self.agent.write(TERMINAL, text.encode())
