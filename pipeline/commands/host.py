"""What commands about guests of this Xen host share."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Protocol, TypeVar

from pipeline.artifact.folder import Source
from pipeline.commands.options import Options, Unproven
from pipeline.console.progress import print_line
from pipeline.diagnosis import explain_os_error
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import survey, tighten
from pipeline.dom0.layout import Layout
from pipeline.dom0.setup.host_change import host_site
from pipeline.errors import EnvironmentFault, PipelineError, VerificationError
from pipeline.proof.seals import read_verdict
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.storage.transaction import recover_all, working_on

AnyOptions = TypeVar("AnyOptions", bound=Options)


class Named(Protocol):
    """What a command about one guest takes."""

    @property
    def name(self) -> str:
        """The guest's."""


AnyGuest = TypeVar("AnyGuest", bound=Named)
Action = Callable[[Recipe, Mapping[str, Spec], AnyOptions], None]


def on_host(action: Action[AnyOptions]) -> Action[AnyOptions]:
    """A command's function; what a killed command left is undone or finished first."""

    @wraps(action)
    def begun(recipe: Recipe, specs: Mapping[str, Spec], options: AnyOptions) -> None:
        layout = Layout.here()
        with _explained():
            done = [*recover_all(host_site(layout, [])), *recover_all(site_of(layout))]
            _prepare(layout, [] if getattr(options, "json_form", False) else done)
            action(recipe, specs, options)

    return begun


def changing_guest(
    action: Callable[[Recipe, Mapping[str, Spec], AnyGuest], None],
) -> Callable[[Recipe, Mapping[str, Spec], AnyGuest], None]:
    """The same for one that changes its guest.

    It keeps the guest's lock from its first look to its end, and waits for whoever has it.
    """

    @wraps(action)
    def begun(recipe: Recipe, specs: Mapping[str, Spec], options: AnyGuest) -> None:
        with changing_guests(Layout.here(), options.name):
            action(recipe, specs, options)

    return begun


@contextmanager
def changing_guests(layout: Layout, *names: str) -> Iterator[None]:
    """The same for several, of all of which the locks are kept."""
    with _explained(), working_on(site_of(layout), *names) as done:
        _prepare(layout, done)
        yield


def _prepare(layout: Layout, done: list[str]) -> None:
    tighten(disk for guest in survey(layout)[0].values() for disk in guest.disks)
    for text in done:
        print_line(f"  {text}")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise describe_fault(error) from error


def require_proven(source: Source, options: Unproven, *, appliance: str | None = None) -> str:
    """`proven`, or why not where the user goes on without; raises VerificationError.

    The members of an `appliance` are proven together.
    """
    verdict = read_verdict(source.folder)
    if verdict.is_proven:
        return "proven"
    if not options.unproven:
        what = f"appliance={appliance}" if appliance else f"name={source.name}"
        raise VerificationError(
            f"{source.name} is not proven: {verdict.reason}",
            hint=f"doit prove {what}, or go on without: unproven=yes",
        )
    print_line(f"  {source.name} is not proven: {verdict.reason}")
    return verdict.reason


def describe_fault(error: OSError) -> PipelineError:
    """What the system said to a command that was at work on the host's files."""
    known = explain_os_error(error)
    if known is not None:
        return known
    where = f"{error.filename}: " if error.filename else ""
    return EnvironmentFault(
        f"{where}{error.strerror or error}",
        hint="nothing is half done: what was begun was undone; mend it, then again",
    )
