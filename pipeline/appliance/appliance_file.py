"""appliances/NAME.toml: which guests make an appliance, and what is between them.

Facts: drbd.conf-8.4(5), xl-disk-configuration(5), ip-link(8) (names of at most 15 letters).
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictStr,
)

from pipeline.errors import Finding, SpecError, WrongValueError, suggest_nearest
from pipeline.spec import values
from pipeline.spec.replication import (
    AfterOne,
    AfterTwo,
    AfterZero,
    Minor,
    PartSize,
    Port,
    Protocol,
    ResourceName,
)
from pipeline.spec.table_file import read_table_file
from pipeline.xen.values import check_interface, matching

HOST = "host"
_READY = re.compile(r"login|port (?P<port>[0-9]{1,5})|command (?P<command>\S.*)")
_MISSING = {"members": "add [members.a] and below it spec = ..., the name of a guest"}


# an appliance, or something in it: part of guests' host names too
check_key = matching(
    "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?",
    "is no name here",
    "a-z, 0-9 and '-' between them, as web1",
)


def _check_member(text: str) -> str:
    if check_key(text) == HOST:
        raise WrongValueError(f"'{HOST}' means the host itself", "give the member another name")
    return text


def _check_ready(text: str) -> str:
    match = _READY.fullmatch(text)
    if not match or not text.isprintable() or not 0 < int(match["port"] or 1) < 65536:
        raise WrongValueError(
            f"{text!r} is no condition", "login, port NUMBER or command LINE, as in 'port 80'"
        )
    return text


def _check_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise WrongValueError(
            f"{text!r} is no regular expression: {error}", "as Python reads it"
        ) from error
    return text


Key = Annotated[StrictStr, AfterValidator(check_key)]
MemberKey = Annotated[StrictStr, AfterValidator(_check_member)]
Ready = Annotated[StrictStr, AfterValidator(_check_ready)]
Line = Annotated[StrictStr, Field(min_length=1), AfterValidator(values.check_text)]
BridgeName = Annotated[StrictStr, AfterValidator(check_interface)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Network(_Table):
    """[networks.NAME]: a bridge of the host that only members of the appliance join."""

    bridge: BridgeName | Literal[""] = ""


class Member(_Table):
    """[members.NAME]: a guest, as its spec says; every further key is one of a spec and wins."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    spec: values.GuestName
    after: tuple[MemberKey, ...] = ()
    ready: Annotated[tuple[Ready, ...], values.AsList] = ()

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of a spec, with `network` in the place of a bridge."""
        return dict(self.model_extra or {})


class SplitBrain(_Table):
    """[replicated.NAME.split_brain]: what happens when both sides were written to."""

    after_0pri: AfterZero = "discard-zero-changes"
    after_1pri: AfterOne = "consensus"
    after_2pri: AfterTwo = "disconnect"


class Replicated(_Table):
    """[replicated.NAME]: a DRBD resource over a disk of each of two members."""

    members: tuple[MemberKey, MemberKey]
    network: Key
    size: PartSize
    port: Port = 7788
    minor: Minor = 0
    protocol: Protocol = "C"
    split_brain: SplitBrain = SplitBrain()


class SharedDisk(_Table):
    """[shared.NAME]: one disk that several members may write to at once."""

    members: Annotated[tuple[MemberKey, ...], Field(min_length=2)]
    size: PartSize


class Expect(_Table):
    """[[expect]]: a command that ends with status 0, in a member or in the host itself."""

    name: Line
    member: Key
    command: Line
    output: Annotated[StrictStr, AfterValidator(_check_expression)] = ""


class ApplianceFile(_Table):
    """The whole file."""

    description: values.Text = ""
    members: Annotated[dict[MemberKey, Member], Field(min_length=1)]
    networks: dict[Key, Network] = {}
    replicated: dict[ResourceName, Replicated] = {}
    shared: dict[ResourceName, SharedDisk] = {}
    expect: tuple[Expect, ...] = ()

    def start_order(self) -> tuple[str, ...]:
        """The members, each behind those that it waits for, else as the file has them."""
        waiting = {key: set(member.after) for key, member in self.members.items()}
        order: list[str] = []
        while waiting:
            key = next(key for key, before in waiting.items() if before <= set(order))
            order.append(key)
            del waiting[key]
        return tuple(order)


def read_appliance_file(path: Path) -> ApplianceFile:
    """The file's tables; SpecError with every mistake in it."""
    source = f"{path.parent.name}/{path.name}"
    try:
        check_key(path.stem)
    except WrongValueError as mistake:
        problem = Finding("error", "", mistake.message, "rename the file", source=source)
        raise SpecError([problem]) from mistake
    file = read_table_file(path, ApplianceFile, missing=_MISSING)
    problems = [replace(problem, source=source) for problem in find_clashes(file)]
    if problems:
        raise SpecError(problems)
    return file


def find_clashes(file: ApplianceFile) -> Iterator[Finding]:
    """What does not go together, but for what the members' specs say."""
    yield from _find_unknown(file)
    yield from _find_circle(file)
    yield from _find_lonely(file)
    yield from _find_repeated(file)


def _find_unknown(file: ApplianceFile) -> Iterator[Finding]:
    members, networks = list(file.members), list(file.networks)
    for key, member in file.members.items():
        yield from _unknown(f"members.{key}.after", member.after, members)
    for name, resource in file.replicated.items():
        yield from _unknown(f"replicated.{name}.members", resource.members, members)
        yield from _unknown(f"replicated.{name}.network", (resource.network,), networks)
    for name, disk in file.shared.items():
        yield from _unknown(f"shared.{name}.members", disk.members, members)
    for number, expect in enumerate(file.expect):
        yield from _unknown(f"expect[{number}].member", (expect.member,), [*members, HOST])


def _unknown(subject: str, names: tuple[str, ...], known: list[str]) -> Iterator[Finding]:
    for name in names:
        if name not in known:
            hint = suggest_nearest(name, known) or f"there are: {', '.join(known) or 'none'}"
            yield Finding("error", subject, f"there is no '{name}'", hint)


def _find_circle(file: ApplianceFile) -> Iterator[Finding]:
    waiting = {key: member.after for key, member in file.members.items()}
    try:
        TopologicalSorter(waiting).prepare()
    except CycleError as error:
        circle = error.args[1]
        message = f"{' waits for '.join(reversed(circle))}: none would ever start"
        yield Finding("error", f"members.{circle[0]}.after", message, "leave one of them out")


def _find_lonely(file: ApplianceFile) -> Iterator[Finding]:
    groups: dict[str, tuple[str, ...]] = {
        **{f"replicated.{name}": each.members for name, each in file.replicated.items()},
        **{f"shared.{name}": each.members for name, each in file.shared.items()},
    }
    for subject, members in groups.items():
        if len(set(members)) < len(members):
            message = f"{', '.join(members)}: it is between different members"
            yield Finding("error", f"{subject}.members", message, "name two different ones")


def _find_repeated(file: ApplianceFile) -> Iterator[Finding]:
    """One port or minor number cannot serve two resources of one member; no bridge two networks."""
    owners: dict[tuple[str, str, int], str] = {}
    for name, resource in file.replicated.items():
        for key, number in (("port", resource.port), ("minor", resource.minor)):
            for member in dict.fromkeys(resource.members):
                owner = owners.setdefault((key, member, number), name)
                if owner != name:
                    message = f"{number} is already that of {owner} in {member}"
                    yield Finding(
                        "error", f"replicated.{name}.{key}", message, f"take {number + 1}"
                    )
                    break
    bridges: dict[str, str] = {}
    for name, network in file.networks.items():
        owner = bridges.setdefault(network.bridge or name, name)
        if owner != name and network.bridge:
            message = f"{network.bridge} is already that of {owner}"
            yield Finding("error", f"networks.{name}.bridge", message, "a network has its own")
