"""xen-create-image's options in our words: what each becomes, or why there is nothing to become.

The table itself is in table.py, the roles in roles.py; the facts come from xen-create-image(8)
of 4.9.2.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.errors import Finding, WrongValueError, suggest_nearest
from pipeline.spec.xen_create_image.roles import describe_role, list_roles, translate_role
from pipeline.spec.xen_create_image.table import OPTIONS, Option, Status

COMMAND_LINE = "command line"
TITLES: dict[Status, str] = {
    "same": "the same",
    "different": "done differently",
    "refused": "not done",
}
_PAGE = """\
# xen-create-image's options

Every option of `xen-create-image` (4.9.2, and 4.10 where it is new) and its answer here. Each may
be written as a variable, `doit create name=web1 dist=bookworm dhcp= size=4G`, with `-` or `_`.
An option that is *not done* stops the command with the reason, before anything runs.

This page is generated from `pipeline/spec/xen_create_image/table.py`;
`python -m pipeline.spec.schema --write` writes it again.

## The two lines that everybody knows

    xen-create-image --hostname test-drbd --kernel /boot/vmlinuz-2.6.26-2-xen-686 \\
      --initrd /boot/initrd.img-2.6.26-2-xen-686 --dist lenny \\
      --mirror http://monmiroir:9999/debian/ --dhcp --lvm VG0 --size 4G --role udev

    doit create name=test-drbd kernel=/boot/vmlinuz-2.6.26-2-xen-686 \\
      initrd=/boot/initrd.img-2.6.26-2-xen-686 dist=lenny \\
      mirror=http://monmiroir:9999/debian/ dhcp= lvm=VG0 size=4G role=udev

    xen-create-image --hostname montest ... --debootstrap --dist etch --mirror monmiroir:9999 ...

    doit create name=montest ... debootstrap= dist=etch mirror=monmiroir:9999 ...

## The release, where none is given

xen-create-image takes the host's own release. Here it is bookworm on every host: a spec is to give
the same bytes wherever it is built, so what it means does not depend on the machine. `doit create`
says which it took; `dist=`, or `suite` in `guests/defaults.toml`, says another for all.
"""


class Translation(NamedTuple):
    """What a set of options becomes: our variables, remarks for the user, and problems."""

    overrides: dict[str, str]
    notes: list[str]
    problems: list[Finding]


def find_option(name: str) -> Option | None:
    """The option of that name, written with `-` or `_`, with or without leading dashes."""
    return OPTIONS.get(name.lstrip("-").replace("-", "_"))


def translate_options(options: Mapping[str, str]) -> Translation:
    """xen-create-image's options, a flag having the value "", in our words; nothing is raised."""
    done = Translation({}, [], [])
    folder = next((options[name] for name in options if _plain(name) == "roledir"), "")
    for name, value in _join_roles(options).items():
        option = find_option(name)
        if option is None:
            hint = suggest_nearest(name.lstrip("-").replace("-", "_"), OPTIONS)
            hint = hint or "docs/reference/xen-create-image.md lists them all"
            done.problems.append(
                Finding(
                    "error", name, "xen-create-image has no such option", hint, source=COMMAND_LINE
                )
            )
            continue
        _translate_one(option, name, value, done, folder)
    return done


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _join_roles(options: Mapping[str, str]) -> dict[str, str]:
    """With the roles of finalrole behind the others: here all run before there is a file."""
    names = {_plain(name): name for name in options}
    if "finalrole" not in names:
        return dict(options)
    first, last = names.get("role", "role"), options[names["finalrole"]]
    return {**options, first: ",".join(filter(None, (options.get(first, ""), last)))}


def _translate_one(
    option: Option, name: str, value: str, done: Translation, folder: str = ""
) -> None:
    try:
        is_role = _plain(name) == "role"
        overrides = translate_role(value, folder) if is_role else option.translate(value)
    except WrongValueError as mistake:
        done.problems.append(
            Finding("error", name, mistake.message, mistake.hint, source=COMMAND_LINE)
        )
        return
    for key, text in overrides.items():
        if done.overrides.setdefault(key, text) != text:
            message = f"'{text}' contradicts {key}={done.overrides[key]}"
            done.problems.append(
                Finding("error", name, message, "keep one of them", source=COMMAND_LINE)
            )
    if is_role:
        done.notes.append(f"{name}: {describe_role(value, overrides.get('role', ''))}")
    elif option.status == "different":
        done.notes.append(f"{name}: {option.note_for(value)}")


def render_answers() -> list[str]:
    """Each option in a line or two, for the prompt."""
    lines = []
    for option in dict.fromkeys(OPTIONS.values()):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in option.names)
        title = "" if option.status == "same" else f"{TITLES[option.status]}: "
        lines.append(f"  {names}\n      {title}{option.answer}")
    return lines


def render_options_page() -> str:
    """docs/reference/xen-create-image.md."""
    lines = [_PAGE.rstrip("\n")]
    section = ""
    for option in dict.fromkeys(OPTIONS.values()):
        if option.section != section:
            section = option.section
            lines += [f"\n## {section}\n", "| option | here | how |", "|---|---|---|"]
        answer = option.answer.replace("|", "\\|")
        names = [f"`--{name.replace('_', '-')}`" for name in option.names]
        lines.append(f"| {', '.join(names[:2])} | {TITLES[option.status]} | {answer} |")
        if names[2:]:
            lines.append(f"| {', '.join(names[2:])} | {TITLES[option.status]} | the same |")
    lines += ["\n## Roles\n", "What `--role` does in xen-tools 4.9.2, and what is done here:\n"]
    return "\n".join([*lines, *list_roles()]) + "\n"
