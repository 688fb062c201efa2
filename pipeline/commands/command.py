"""What a command of the command line is: `doit COMMAND name=GUEST key=value`."""

from dataclasses import dataclass, field
from importlib import import_module

from pipeline.commands.options import Options, variables_of
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Command:
    """A command that is not a stage.

    `target` is module:function (.module: of this room), imported when it runs; it gets the recipe,
    the guest's spec (all specs by name where the command `is_single`) and the `options`, checked.
    `after` is the stage that must be current first. `elsewhere` says of a variable that is no
    option of this command what does what is meant. `operand` is the variable that a bare word
    after it means, where that is no guest. `whole` is the target of one that is about an appliance
    as a whole: it gets the appliance in the place of a spec.

    A command that `is_of_host` is single and about guests of this Xen host, which need no spec.
    One that `only_reads` works in an output that another user owns; one that `clears` says itself
    what it removes of the dead. While a command that `needs_output` runs, `doit gc` of another run
    removes nothing. One that `creates` writes the guest's spec before there is a graph.
    """

    name: str
    doc: str
    target: str
    options: type[Options] = Options
    example: str = ""
    after: str = ""
    whole: str = ""
    is_single: bool = False
    is_of_host: bool = False
    only_reads: bool = False
    clears: bool = False
    creates: bool = False
    needs_output: bool = True
    operand: str = ""
    elsewhere: dict[str, str] = field(default_factory=dict)

    @property
    def takes_spec(self) -> bool:
        """Whether the keys of a spec and xen-create-image's options are variables of it too."""
        return not self.is_single

    @property
    def variables(self) -> list[str]:
        """The variables of its own."""
        return list(variables_of(self.options))

    def run(self, recipe: Recipe, subject: object, options: Options) -> None:
        """Do it. Raises what the target does, PipelineError for what a person can mend."""
        is_whole = bool(self.whole and getattr(options, "appliance", None))
        module, _, function = (self.whole if is_whole else self.target).partition(":")
        getattr(import_module(module, __package__), function)(recipe, subject, options)
