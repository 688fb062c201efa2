"""The proof of an appliance: all its guests in one test host, what each must do, and all together.

They start in their order, each when those before it are ready; then every guest is asked what a
guest is asked in its own proof, every `expect` of the file holds, and each shared or replicated
disk does what it is for. They are shut down in reverse. Nothing of the artifacts is changed.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.appliance.appliance_evidence import ApplianceEvidence, appliance_folder
from pipeline.appliance.appliance_file import HOST
from pipeline.appliance.members import Appliance
from pipeline.appliance.replication_story import Story
from pipeline.appliance.running_member import RunningMember, fill_in
from pipeline.appliance.shared_story import SharedStory
from pipeline.errors import Broken, GuestFailed, UsageError
from pipeline.proof.artifact import Artifact, read_artifact
from pipeline.proof.causes import is_guest_lost, likely_causes
from pipeline.proof.checks import holds, unasked
from pipeline.proof.course import Course
from pipeline.proof.evidence import Evidence
from pipeline.proof.handover import bridge_addresses, count_slots
from pipeline.proof.machine import DOM0_MIB, MEMORY_MIB, SLOTS
from pipeline.proof.names import FOLDER
from pipeline.proof.readiness import choose_spec, refuse_wrong_key
from pipeline.proof.seals import Seal
from pipeline.proof.session import Asked, Session
from pipeline.proof.testbed import Ground, choose_place
from pipeline.proof.timeouts import patient
from pipeline.recipe import Recipe

LOST = "the emulated processor lost a guest, as it does now and then with PVH and HVM"
AGAIN = "prove it again; a guest with type = 'pv' needs nothing of the kind"
EXPECT_S = 60.0
# Xen itself, and what it keeps for a guest: its page tables, its grants
XEN_MIB, GUEST_MIB = 160, 16


def prove_appliance(
    recipe: Recipe, appliance: Appliance, asked: Asked | None = None
) -> ApplianceEvidence:
    """Prove the artifacts of its members; the evidence is in output/appliances/NAME/proof/.

    Raises GuestFailed when something does not do what it must, Broken when the test host does not,
    UsageError for what was not built, or does not fit into the test host.
    """
    asked = asked or Asked()
    artifacts: dict[str, Artifact] = {}
    for key in appliance.start_order():
        spec = choose_spec(recipe, appliance.members[key], as_is=asked.as_is)
        if given := asked.read_key():
            refuse_wrong_key(spec, given, asked.key_path)
        artifacts[key] = read_artifact(recipe.project.artifact(spec.name), spec)
    return prove_artifacts(recipe, appliance, artifacts, asked)


def prove_artifacts(
    recipe: Recipe, appliance: Appliance, artifacts: Mapping[str, Artifact], asked: Asked
) -> ApplianceEvidence:
    """The same of artifacts that were read, wherever they are: by the members' keys, in order."""
    refuse_misfit(appliance.name, artifacts)
    spec = appliance.members[next(iter(artifacts))]
    place = choose_place(recipe, spec, next(iter(artifacts.values())), with_xl=False)
    facts = {"appliance": True, **_describe(appliance, artifacts), **place.facts}
    members = {key: Evidence(each.name, facts=each.facts) for key, each in artifacts.items()}
    evidence = ApplianceEvidence(appliance.name, facts=facts, members=members)
    folder = appliance_folder(recipe.project, appliance.name)
    folder.mkdir(parents=True, exist_ok=True)
    course = Course(recipe, evidence, folder, folder / FOLDER, as_json=asked.as_json)

    def prove(work: Path) -> None:
        def measure() -> dict[str, Seal]:
            return evidence.seal_members(folder, artifacts)

        with course.entered(place, work, measure) as (ground, seal):
            ApplianceRun(appliance, evidence, ground, artifacts, asked).run(work, seal)

    try:
        course.run(prove)
    finally:
        if "total" in evidence.seconds:
            evidence.write_members(artifacts)
    return evidence


def refuse_misfit(name: str, artifacts: Mapping[str, Artifact]) -> None:
    """Raise UsageError for what the test host cannot hold, with the figures."""
    listed = list(artifacts.values())
    asked = {key: each.domain.memory_mib for key, each in artifacts.items()}
    free = MEMORY_MIB - DOM0_MIB - XEN_MIB - GUEST_MIB * len(asked)
    if sum(asked.values()) > free:
        figures = " + ".join(f"{key} {mib}" for key, mib in asked.items())
        raise UsageError(
            f"{name}: its guests want {figures} = {sum(asked.values())} MiB of memory,"
            f" the test host has {free} MiB",
            hint="give the members less memory",
        )
    slots = count_slots(listed)
    if slots > SLOTS:
        raise UsageError(
            f"{name}: its guests have {slots - 1} disks, the test host has slots for {SLOTS - 1}",
            hint="swap = '0' in the members' tables takes one each",
        )
    xens = dict.fromkeys(each.spec.xen for each in listed if each.spec)
    if len(xens) > 1:
        raise UsageError(
            f"{name}: its guests are for Xen {' and '.join(xens)}, a test host has one of them",
            hint="give the members the same xen",
        )
    for key, each in artifacts.items():
        if each.starts_from:
            raise UsageError(
                f"{name}: {key} starts from {each.starts_from}: nobody there can be asked",
                hint="prove that guest by itself",
            )


def _describe(appliance: Appliance, artifacts: Mapping[str, Artifact]) -> dict[str, object]:
    """What kind of appliance it is, for proof.json and the table of proofs."""
    facts = [each.facts for each in artifacts.values()]
    kinds = {key: dict.fromkeys(str(each[key]) for each in facts) for key in ("type", "suite")}
    return {
        **{key: ", ".join(values) for key, values in kinds.items()},
        "guests": {key: each.name for key, each in artifacts.items()},
        "networks": list(appliance.file.networks),
        "replicated": list(appliance.file.replicated),
        "shared": list(appliance.file.shared),
    }


@dataclass
class ApplianceRun:
    """The guests of an appliance in a test host that has been entered."""

    appliance: Appliance
    evidence: ApplianceEvidence
    ground: Ground
    artifacts: Mapping[str, Artifact]
    asked: Asked
    members: dict[str, RunningMember] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        private = frozenset(self.appliance.bridges.values())
        for number, (key, artifact) in enumerate(self.artifacts.items()):
            evidence = self.evidence.members[key]
            session = Session(self.ground, artifact, evidence, self.asked, number=number)
            ready = self.appliance.file.members[key].ready
            self.members[key] = RunningMember(key, session, private, ready)

    def run(self, work: Path, seal: Callable[[], dict[str, Seal]]) -> None:
        """The whole proof; raises GuestFailed or Broken, with everything seen in the evidence."""
        private = self.appliance.bridges.values()
        try:
            with self.evidence.phase("hand over"):
                self.ground.receive(list(self.artifacts.values()), work, private)
                self.evidence.digests = seal()
            with self.evidence.phase("start"):
                self._start()
            with self.evidence.phase("questions"):
                for member in self.members.values():
                    member.question()
            with self.evidence.phase("expect"):
                self._see_expected()
            for story in self._stories():
                story.tell()
            with self.evidence.phase("shut down"):
                for member in reversed(self.members.values()):
                    member.shut_down()
        except GuestFailed as error:
            if is_guest_lost(self.ground.agent.run(["xl", "dmesg"]).output):
                raise Broken(LOST, details=error.brief, hint=AGAIN) from error
            self._find_causes()
            raise
        finally:
            for member in self.members.values():
                member.keep_evidence()
            self.evidence.take_over()

    def _start(self) -> None:
        """In order; nobody waits for those that nobody needs before."""
        for key, member in self.members.items():
            for before in self.appliance.file.members[key].after:
                self.members[before].wait_until_ready()
            member.create()
        for member in self.members.values():
            member.wait_until_ready()

    def _see_expected(self) -> None:
        """Every `expect` of the file, in its order."""
        addresses = bridge_addresses(list(self.artifacts.values()), self.appliance.bridges.values())
        host = next(iter(addresses.values()), "")
        for expect in self.appliance.file.expect:
            command = fill_in(expect.command, self.members, host)
            if expect.member == HOST:
                reply = self.ground.agent.run(["sh", "-c", command], timeout_s=patient(EXPECT_S))
            elif (member := self.members[expect.member]).shell is None:
                self.evidence.add(unasked(expect.name, member.credential.reason))
                continue
            else:
                reply = member.run(command, timeout_s=EXPECT_S)
            output = fill_in(expect.output, self.members, host)
            ok = reply.status == 0 and bool(re.search(output, reply.output))
            wanted = f"status 0, {output}" if output else "status 0"
            seen = f"status {reply.status}, {reply.output.strip()[-200:]}"
            self.evidence.add(holds(expect.name, wanted, seen, ok=ok))

    def _stories(self) -> Iterator[Story | SharedStory]:
        for name, disk in self.appliance.file.shared.items():
            members = [self.members[key] for key in disk.members]
            parts = [
                next(part for part in self.appliance.members[key].parts if part.name == name)
                for key in disk.members
            ]
            nodes = [part.node for part in parts]
            yield SharedStory(name, parts[0].size_mib, members, nodes, self.evidence)
        for name, resource in self.appliance.file.replicated.items():
            first, second = (self.members[key] for key in resource.members)
            bridge = self.appliance.bridges[resource.network]
            yield Story(name, resource, first, second, bridge, self.evidence)

    def _find_causes(self) -> None:
        """Of those that did not come up, or that have a check that does not hold."""
        for key, member in self.members.items():
            if member.evidence.failed:
                causes = likely_causes(member.session.seen)
                self.evidence.causes += [f"{key}: {cause}" for cause in causes]
