"""Xen's command line and dom0's: rendered for GRUB 2 and GRUB legacy, and read from both.

Facts: Debian's /etc/grub.d/20_linux_xen (which variables reach which line; an empty REPLACE counts
as none), grub-mkconfig (grub.d's files are sourced in order, so the last one wins), the update-grub
of grub-legacy (reads "# xenhopt=" between two markers and nowhere else), xen-command-line(7).
"""

import re
from collections.abc import Iterable, Iterator

from pipeline.dom0.setup.assignments import keys_of, read_assignments, replace_words
from pipeline.dom0.setup.host_settings import Boot
from pipeline.dom0.setup.host_view import HostView
from pipeline.errors import PipelineError
from pipeline.spec.values import parse_size

DEFAULTS = "/etc/default/grub"
OURS = f"{DEFAULTS}.d/zz-domu-xen.cfg"  # after xen.cfg and whatever else is there
GRUB_CFG = "/boot/grub/grub.cfg"
MENU_LST = "/boot/grub/menu.lst"

_SCRIPT = """\
# Of [boot] in dom0.toml. What other files set stays, but for the words of these keys.
domu_without() {{
    keys=" $1 " kept=" "
    shift
    for word; do
        case $keys in *" ${{word%%=*}} "*) ;; *) kept="$kept $word" ;; esac
    done
}}
set -f
{assignments}set +f
unset keys kept word
"""
_XEN = ("GRUB_CMDLINE_XEN_DEFAULT", "GRUB_CMDLINE_XEN")
_LINUX = ("GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX")
_OPTIONS = re.compile(
    r"(?<=^## ## Start Default Options ##\n).*?(?=^## ## End Default Options ##$)",
    re.MULTILINE | re.DOTALL,
)
_UNSET = {"xenkopt": "console=tty0"}  # what update-grub takes without the line
_ENTRY = re.compile(
    r"^\s*(?:kernel|multiboot2?|xen_hypervisor)\s+\S*/xen\S*(?P<xen>.*)\n(?:.*\n){0,8}?"
    r"\s*(?:module2?|xen_module)\s+\S*/vmlinu\S*(?P<linux>.*)$",
    re.MULTILINE,
)


def xen_words(boot: Boot, host: HostView) -> list[str]:
    """What [boot] puts on Xen's line."""
    is_old = is_of_xend(host)
    words = []
    if boot.dom0_mem:
        size = f"{parse_size(boot.dom0_mem)}M"
        words += [f"dom0_mem={size}" if is_old else f"dom0_mem={size},max:{size}"]
    if boot.dom0_max_vcpus and not is_old:
        words += [f"dom0_max_vcpus={boot.dom0_max_vcpus}", "dom0_vcpus_pin"]
    if boot.serial:
        words += [f"{boot.serial}={boot.serial_speed},8n1", f"console={boot.serial},vga"]
    return words


def linux_words(boot: Boot) -> list[str]:
    """What [boot] puts on the line of dom0's kernel."""
    words = ["console=tty0", "console=hvc0"] if boot.serial else []
    return words + ([f"xencons={boot.xencons}"] if boot.xencons else [])


def is_of_xend(host: HostView) -> bool:
    """Whether memory and processors are Xen 3's: no max:, and the processors are xend's to give."""
    return host.loader == "grub-legacy" and host.toolstack == "xm"


def render_grub2(boot: Boot, host: HostView) -> str:
    """Our file in /etc/default/grub.d.

    It is a script, not a list of values, so that what an administrator sets later still counts.
    """
    xen = [*_take_out(_XEN, xen_words(boot, host))]
    linux = [*_take_out(_LINUX, linux_words(boot), tail="_XEN_REPLACE")]
    return _SCRIPT.format(assignments="".join([*xen, *linux]))


def _take_out(names: tuple[str, str], words: list[str], *, tail: str = "") -> Iterator[str]:
    """The lines that have the words once, at the end of what recovery boots get too."""
    keys = " ".join(dict.fromkeys(word.partition("=")[0] for word in words))
    for name in names if words else ():
        target = name.replace("LINUX", f"LINUX{tail}")
        old = f"${{{target}:-${name}}}" if tail else f"${name}"
        new = f" {' '.join(words)}" if name == names[-1] else ""
        yield f'domu_without "{keys}" {old}\n{target}="$kept{new}"\n'


def render_menu_lst(text: str, boot: Boot, host: HostView) -> str:
    """GRUB legacy's menu with the two lines that update-grub makes its entries of.

    Raises PipelineError for a menu that was not made by update-grub.
    """
    block = _OPTIONS.search(text)
    if block is None:
        raise PipelineError(
            f"{MENU_LST}: no options of update-grub (## ## Start Default Options ##)",
            hint="update-grub adds them below the menu that is there",
        )
    options = block[0]
    for key, words in (("xenhopt", xen_words(boot, host)), ("xenkopt", linux_words(boot))):
        options = _set_option(options, key, words) if words else options
    return text[: block.start()] + options + text[block.end() :]


def _set_option(options: str, key: str, words: Iterable[str]) -> str:
    # update-grub joins several lines of one key
    lines = [*re.finditer(rf"^# {key}=(.*)\n", options, re.MULTILINE)]
    old = " ".join(line[1] for line in lines) if lines else _UNSET.get(key, "")
    new = f"# {key}={replace_words(old, words)}\n"
    for line in reversed(lines):
        is_first = line is lines[0]
        options = options[: line.start()] + (new if is_first else "") + options[line.end() :]
    return options if lines else f"{options}{new}\n"


def read_menu_lst(text: str) -> tuple[str, str]:
    """Xen's line and dom0's of the entries that update-grub makes of this menu, or that it has."""
    options = _OPTIONS.search(text)
    if options is None:
        return read_entries(text) or ("", "")
    values = dict(re.findall(r"^# (\w+)=(.*)$", options[0], re.MULTILINE))
    linux = f"{values.get('kopt', '')} {values.get('xenkopt', _UNSET['xenkopt'])}"
    return values.get("xenhopt", "").strip(), linux.strip()


def read_entries(text: str) -> tuple[str, str] | None:
    """Xen's line and dom0's of the first entry of a menu that boots Xen; None without one."""
    entry = _ENTRY.search(text)
    return (_plain(entry["xen"]), _plain(entry["linux"])) if entry else None


def _plain(words: str) -> str:
    return " ".join(word for word in words.split() if word not in ("placeholder", "${xen_rm_opts}"))


def read_defaults(texts: Iterable[str]) -> tuple[str, str]:
    """Xen's line and dom0's as /etc/default/grub and the files of grub.d, in order, set them."""
    values = read_assignments("\n".join(texts))
    xen = " ".join(values.get(name, "") for name in reversed(_XEN))
    replaced = (
        values.get(name.replace("LINUX", "LINUX_XEN_REPLACE")) or values.get(name, "")
        for name in reversed(_LINUX)
    )
    return xen.strip(), " ".join(replaced).strip()


def lacking(boot: Boot, host: HostView, lines: tuple[str, str]) -> list[str]:
    """Words of [boot] that these lines have not, or have another value for afterwards."""
    missing = []
    for line, words in zip(lines, (xen_words(boot, host), linux_words(boot)), strict=True):
        given = line.split()
        keys = keys_of(words)
        effective = [word for word in given if not keys.isdisjoint(keys_of([word]))]
        if effective != words:
            missing += words
    return missing
