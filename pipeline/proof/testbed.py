"""Where a guest is proven: a dom0 with an agent in it, emulated or real."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import PipelineError
from pipeline.process import require_tools
from pipeline.proof import machine
from pipeline.proof.agent import Agent
from pipeline.proof.artifact import Artifact
from pipeline.proof.dom0 import describe_xen, on_dom0, refuse_elsewhere, refuse_unready
from pipeline.proof.handover import make_bridges, plug_disks
from pipeline.proof.machine import explain_fault
from pipeline.proof.testhost import TOOLS, TestHost, ensure_host
from pipeline.recipe import Recipe
from pipeline.spec import Spec


class Ground(Protocol):
    """A dom0 for one proof."""

    @property
    def agent(self) -> Agent:
        """The line into it."""

    def receive(
        self, artifacts: Sequence[Artifact], work: Path, private: Collection[str] = ()
    ) -> None:
        """Make all that the configurations name lead to the guests' files, which do not change.

        Between several guests are `private` bridges.
        """

    def explain(self, error: PipelineError) -> PipelineError:
        """What went wrong around the guest, as the person shall read it."""

    @property
    def meter(self) -> Callable[[], float] | None:
        """Tells the processor seconds that an emulator computed so far, where there is one."""

    @property
    def is_alone(self) -> bool:
        """Whether the guest's network has nothing in it but the test host, which names itself."""


@dataclass
class EmulatedGround:
    """The test host's dom0, in QEMU."""

    host: machine.Machine

    @property
    def agent(self) -> Agent:
        return self.host.agent

    def receive(
        self, artifacts: Sequence[Artifact], work: Path, private: Collection[str] = ()
    ) -> None:
        """Disks are hot-plugged through overlays; bridges with DHCP are made."""
        # the snapshot's clock stands where it was taken; guests take theirs from Xen
        self.agent.demand(["date", "-s", f"@{time.time():.0f}"])
        plug_disks(self.host, artifacts, work)
        make_bridges(self.host, artifacts, private)

    def explain(self, error: PipelineError) -> PipelineError:
        """QEMU is asked what state it is in."""
        return explain_fault(self.host, error)

    @property
    def meter(self) -> Callable[[], float] | None:
        """What QEMU has computed."""
        return self.host.work_s

    @property
    def is_alone(self) -> bool:
        """It has no network card."""
        return True


@dataclass(frozen=True)
class Place:
    """A ground before it is entered, with a work folder and a log; `facts` are for proof.json."""

    facts: dict[str, object]
    enter: Callable[[Path, Path], AbstractContextManager[Ground]]


def choose_place(recipe: Recipe, spec: Spec, artifact: Artifact, *, with_xl: bool) -> Place:
    """This machine's own dom0, or the test host with the Xen that the spec names."""
    if with_xl:
        refuse_elsewhere()
        refuse_unready(artifact)
        facts: dict[str, object] = {"xen": describe_xen(), "proven with": "xl"}
        return Place(facts, lambda work, log: on_dom0(work, log=log))
    require_tools(TOOLS)
    host = ensure_host(recipe, spec)
    facts = {"xen": host.xen, "test host": host.fingerprint, "accelerator": host.accelerator.name}
    return Place(facts, lambda work, log: resumed(host, work, log=log))


@contextmanager
def resumed(host: TestHost, work: Path, *, log: Path) -> Iterator[EmulatedGround]:
    """The test host as its snapshot has it."""
    with machine.resume(host.folder, work, host.accelerator, log=log) as running:
        yield EmulatedGround(running)
