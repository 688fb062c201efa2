"""The course that every proof takes: the ground entered, faults told apart, evidence written."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings, render_table, summarize
from pipeline.console.progress import print_line
from pipeline.errors import Broken, GuestFailed, PipelineError, UsageError
from pipeline.proof.console import last_lines
from pipeline.proof.evidence import Evidence
from pipeline.proof.history import note_proof
from pipeline.proof.names import PROOF
from pipeline.proof.seals import Seal, find_change
from pipeline.proof.testbed import Ground, Place
from pipeline.recipe import Recipe
from pipeline.scratch import remove_abandoned, scratch_folder

Sealed = Callable[[], dict[str, Seal]]


@dataclass(frozen=True)
class Course:
    """One proof: the digests of its evidence are those of files below `folder`, it is written to
    `written`. `as_json`: what is found is printed for a program.
    """

    recipe: Recipe
    evidence: Evidence
    folder: Path
    written: Path
    as_json: bool = False

    @property
    def log(self) -> Path:
        """What programs on this machine say meanwhile."""
        return self.recipe.project.log(self.evidence.guest, "prove")

    def run(self, prove: Callable[[Path], None]) -> None:
        """Let `prove` work in a folder that is gone afterwards, then judge and write the evidence.

        Raises GuestFailed or Broken, with what was seen.
        """
        project, evidence = self.recipe.project, self.evidence
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        project.scratch.mkdir(parents=True, exist_ok=True)
        remove_abandoned(project.scratch)
        try:
            with scratch_folder(project.scratch, f"prove-{evidence.guest}") as work:
                prove(work)
            _see_unchanged(self.folder, evidence)
            _judge(evidence)
        except PipelineError as error:
            _conclude(evidence, error)
            error.stage, error.guest, error.log = "prove", evidence.guest, str(self.log)
            raise
        finally:
            evidence.write(self.written)
            evidence.trend = note_proof(project.output, evidence.to_json())
            tell(evidence, self.written / PROOF, as_json=self.as_json)

    @contextmanager
    def entered(self, place: Place, work: Path, measure: Sealed) -> Iterator[tuple[Ground, Sealed]]:
        """The ground, and what `measure` comes to, which is measured meanwhile.

        Whatever goes wrong in it and is not a guest's fault is Broken.
        """
        evidence = self.evidence
        with evidence.phase("total"), ExitStack() as stack:
            sealing = stack.enter_context(ThreadPoolExecutor(1)).submit(measure)
            with evidence.phase("resume"):
                ground = stack.enter_context(place.enter(work, self.log))
            evidence.meter = ground.meter
            stack.callback(evidence.stop_meter)
            try:
                yield ground, sealing.result
            except (GuestFailed, UsageError):
                raise
            except PipelineError as error:
                raise ground.explain(error) from error
            except OSError as error:
                raise Broken(
                    f"the machine cannot carry the proof: {error.strerror or error}",
                    details=str(error.filename or ""),
                    hint="it is written where output/scratch is: see that there is space",
                ) from error


def tell(evidence: Evidence, path: Path, *, as_json: bool) -> None:
    """What was found, for a program; for a person what an error does not say."""
    record: dict[str, object] = {}
    if as_json:
        record = {**evidence.to_json(), "evidence": str(path)}
        del record["checks"], record["digests"], record["guest"]
    ANSWER.add_findings(evidence.guest, evidence.checks, **record)
    if as_json or evidence.verdict != "proven":
        return
    print_findings(evidence.checks)
    held, total = summarize(evidence.checks), evidence.seconds["total"]
    boots: dict[str, dict[str, object]] = evidence.facts.get("boots", {})
    how = f"in {len(boots)} starts" if boots else "under Xen"
    print_line(f"{evidence.guest} is proven: {held}, {how} in {total:.0f} s")
    for boot, told in boots.items():
        times = f"login prompt after {told['login_s']} s, down after {told['total_s']} s"
        print_line(f"  {boot + ':':<10} {times}")
    if not boots:
        print_line(f"  times:     {evidence.describe_times()}")
    if put := evidence.injected:
        print_line(f"  key:       of this proof alone, in {put['path']} in {put['into']}")
    if evidence.trend:
        print_line(f"  {evidence.trend}")
    print_line(f"  evidence:  {path}")


def _see_unchanged(folder: Path, evidence: Evidence) -> None:
    """What was booted is what lies there, bit for bit; else Broken: it was a proof of nothing."""
    with evidence.phase("compare"):
        change = find_change(folder, evidence.digests)
    if change:
        raise Broken(
            f"the artifact changed while it was proven: {change}",
            hint="whoever builds, starts or edits it has to wait: prove it again",
        )
    evidence.is_unchanged = True


def _judge(evidence: Evidence) -> None:
    """Who has a check that does not hold has failed; every such check is shown."""
    if evidence.failed:
        count = len(evidence.failed)
        raise GuestFailed(f"{count} of {len(evidence.checks)} checks do not hold")
    evidence.verdict = "proven"


def _conclude(evidence: Evidence, error: PipelineError) -> None:
    """Put what was seen into the error: the checks, the end of the console, the likely cause."""
    evidence.verdict = "failed" if isinstance(error, GuestFailed) else "broken"
    evidence.reason = error.brief
    lines = render_table(evidence.failed)
    lines += [error.details] if error.details else []
    if isinstance(error, GuestFailed) and evidence.console:
        tail = last_lines(evidence.console)
        lines += ["the end of its console:", *(f"  | {line}" for line in tail)]
    error.details = "\n".join(lines)
    if evidence.causes:
        error.hint = f"likely cause: {'; '.join(evidence.causes)}"
    elif isinstance(error, Broken) and not error.hint:
        error.hint = "the host is at fault, not the guest: see the log"
