"""The command lines of xen-tools' four programs, read as their Getopt::Long reads them.

The options are those of 4.9.2's calls of GetOptions, in its words: `=s` a text, `=i` a number,
`:s` a text that may be missing, `@` several, `!` also as --noNAME and --no-NAME. The rules are
Getopt::Long(3)'s defaults: -NAME and +NAME are --NAME, letters' case does not count, a name may be
cut short as long as it means one option, other words may stand anywhere, `--` ends the options.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError, suggest_nearest

_CREATE = """
dist=s size=s swap=s noswap image=s memory=s maxmem=s vcpus=i dir=s evms=s kernel=s initrd=s
mirror=s keyring=s apt_proxy=s modules=s lvm=s zpool=s image-dev=s swap-dev=s serial_device=s
disk_device=s nohosts copyhosts! no-hosts copy-hosts! dhcp! bridge=s gateway=s hostname=s ip=s@
mac=s randommac netmask=s broadcast=s nameserver=s vifname=s p2p=s vlan=s install-method=s
install-source=s debootstrap-cmd=s accounts! admins=s arch=s fs=s boot! cache=s cachedir=s config=s
ide scsi install=i hooks=i pygrub! passwd! genpass=i genpass-len=i genpass_len=i password=s
hash_method=s partitions=s role=s role-args=s finalrole=s roledir=s force! no-xen-ok keep!
template=s output=s extension:s dontformat lvm_thin=s debug! help manual dumpconfig verbose!
version
"""
# of 3.x, 4.10 (type) and the manual alone; what 4.9.2 knows goes first
_CREATE_OLD = """
debootstrap rpmstrap copy=s tar=s copy-cmd=s tar-cmd=s no-swap use-ide no-hooks no-install
type=s
"""
_LIST = "test=s extension:s help manual version"
_DELETE = """
dir=s dry-run lvm=s evms=s zpool=s extension:s hostname=s@ test verbose no-xen-ok help manual
version
"""
_UPDATE = "dir=s lvm=s evms=s help manual version"
_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*")
_SPEC = re.compile(r"([\w-]+)(!|[=:][si]@?)?")


@dataclass(frozen=True)
class Option:
    """One option: its name, `s` or `i` for its value ("" for none), and whether it must have one.

    `is_off` is the form --noNAME; of an option that `repeats` every value counts.
    """

    name: str
    kind: str = ""
    needs_value: bool = False
    repeats: bool = False
    is_off: bool = False


@dataclass(frozen=True)
class Typed:
    """What stands on a line: the options' values by name, flags as 1 and 0, and the other words."""

    options: Mapping[str, str]
    words: tuple[str, ...]


def _read_specs(text: str) -> dict[str, Option]:
    table: dict[str, Option] = {}
    for spec in text.split():
        match = _SPEC.fullmatch(spec)
        assert match is not None, spec
        name, kind = match[1], match[2] or ""
        option = Option(name, kind[1:2], needs_value=kind[:1] == "=", repeats="@" in kind)
        table[name] = option
        if kind == "!":
            off = Option(name, is_off=True)
            table |= {f"no{name}": off, f"no-{name}": off}
    return table


PROGRAMS: Mapping[str, tuple[dict[str, Option], ...]] = {
    "xen-create-image": (_read_specs(_CREATE), _read_specs(_CREATE_OLD)),
    "xen-list-images": (_read_specs(_LIST),),
    "xen-delete-image": (_read_specs(_DELETE),),
    "xen-update-image": (_read_specs(_UPDATE),),
}


def read_line(program: str, arguments: Sequence[str]) -> Typed:
    """What the arguments of `program` say; raises UsageError for what it would not take."""
    options: dict[str, str] = {}
    words: list[str] = []
    rest = list(arguments)
    while rest:
        text = rest.pop(0)
        if text == "--":
            words += rest
            break
        match = re.fullmatch(r"(--|[-+])(.*)", text, re.DOTALL)
        if match is None or text == "-":
            words.append(text)
            continue
        # an = at the very beginning is part of a name
        cut = match[2].find("=", 1)
        name, own = (match[2], None) if cut < 0 else (match[2][:cut], match[2][cut + 1 :])
        option = find_typed(program, name)
        value = _take_value(option, own, rest)
        before = options.get(option.name) if option.repeats else None
        options[option.name] = value if before is None else f"{before},{value}"
    return Typed(options, tuple(words))


def find_typed(program: str, name: str) -> Option:
    """The option that was typed so, perhaps cut short; raises UsageError where it is none."""
    key = name.lower()
    tables = PROGRAMS[program]
    # --debootstrap of 3.x goes before its being short for --debootstrap-cmd
    whole = [table[key] for table in tables if key in table]
    if whole:
        return whole[0]
    for table in tables:
        hits = sorted(each for each in table if each.startswith(key)) if key else []
        if len({table[each] for each in hits}) == 1:
            return table[hits[0]]
        if hits:
            shown = ", ".join(f"--{each}" for each in hits)
            raise UsageError(f"{program}: --{name} could be {shown}", hint="write more of it")
    known = [each for table in tables for each in table]
    hint = suggest_nearest(key, known) or f"{program} --help lists them"
    raise UsageError(f"{program} has no option --{name}", hint=hint)


def _take_value(option: Option, own: str | None, rest: list[str]) -> str:
    """Its value, from after the = or from the next word; raises UsageError."""
    if not option.kind:
        if own is not None:
            raise UsageError(f"--{option.name} takes no value", hint=f"leave ={own} away")
        return "0" if option.is_off else "1"
    if own == "" or (own is None and not rest):
        if option.needs_value:
            raise UsageError(f"--{option.name} needs a value", hint=f"--{option.name}=VALUE")
        return ""
    if own is None and not option.needs_value and _begins_option(rest[0]):
        return ""
    value = rest.pop(0) if own is None else own
    if option.kind == "i":
        if not _NUMBER.fullmatch(value):
            raise UsageError(f"--{option.name}: '{value}' is not a number")
        return str(int(value.replace("_", "")))
    return value


def _begins_option(text: str) -> bool:
    return text != "-" and text[:1] in ("-", "+") and text != "+"
