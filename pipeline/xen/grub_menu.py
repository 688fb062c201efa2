"""Boot menus as pygrub reads them: GRUB legacy's menu.lst and a plain grub.cfg.

pygrub of Xen 4.17 looks for grub.cfg, then extlinux.conf, then menu.lst, and understands little of
GRUB 2's language: `if` and variables are not run, `submenu` is flattened. pygrub of Xen 3.x reads
menu.lst only. tests/host/test_xl_real_parser.py asks pygrub's own parser.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.xen.values import SyntaxFault

GRUB_CFG_PATHS = (
    "/boot/grub/grub.cfg",
    "/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/grub2/grub.cfg",
)
MENU_LST_PATHS = (
    "/boot/grub/menu.lst",
    "/boot/grub/grub.conf",
    "/grub/menu.lst",
    "/grub/grub.conf",
)
GRUB_CFG_SINCE = (4, 0)  # pygrub learned grub.cfg in 2009-11, between 3.4 and 4.0

_LONGEST_LINE, _MOST_DIGITS = 4096, 6
_MENUENTRY = re.compile(r"""menuentry ["'](?P<title>.*?)["'] (?P<rest>.*)\{""")
_DEFAULT = re.compile(r"""set default=["']?(?P<index>[^"'\s]+)["']?""")


@dataclass(frozen=True)
class MenuEntry:
    """One line of the menu: what it is called and what it boots, paths inside the guest."""

    title: str
    kernel: str
    initrd: str | None = None
    args: str = ""


@dataclass(frozen=True)
class Menu:
    """A parsed menu; `default` is the index of the entry that boots by itself."""

    entries: tuple[MenuEntry, ...]
    default: int = 0

    @property
    def default_entry(self) -> MenuEntry:
        """The entry that boots; the first when the index is out of range, as in pygrub."""
        return self.entries[self.default if self.default < len(self.entries) else 0]


def find_menu(menus: Mapping[str, str], version: tuple[int, int]) -> tuple[str, Menu] | None:
    """The menu that pygrub of this Xen takes out of the guest's files, and its path.

    None when there is none. Raises SyntaxFault, with the path, when pygrub would fail on it.
    """
    modern = GRUB_CFG_PATHS if version >= GRUB_CFG_SINCE else ()
    for path in (*modern, *MENU_LST_PATHS):
        if path in menus:
            parse = parse_grub_cfg if path in GRUB_CFG_PATHS else parse_menu_lst
            try:
                return path, parse(menus[path])
            except SyntaxFault as fault:
                raise SyntaxFault(f"{path}: {fault}") from None
    return None


def parse_menu_lst(text: str) -> Menu:
    """A GRUB legacy menu. Raises SyntaxFault when there is no entry that boots."""
    default = 0
    blocks: list[tuple[str, list[str]]] = []
    for line in _meaningful_lines(text):
        if line.startswith("title"):
            blocks.append((line[6:].strip(), []))
        elif blocks:
            blocks[-1][1].append(line)
        elif line.split()[0].split("=")[0] == "default":
            default = _read_index(re.split(r"[\s=]+", line, maxsplit=1)[-1])
    return _make_menu([_read_block(title, lines) for title, lines in blocks], default)


def parse_grub_cfg(text: str) -> Menu:
    """The part of a grub.cfg that pygrub sees. Raises SyntaxFault where pygrub gives up."""
    default, level = 0, 0
    in_function = False
    title: str | None = None
    block: list[str] = []
    entries: list[MenuEntry | None] = []
    for line in _meaningful_lines(text):
        if in_function or line.startswith("function"):
            in_function = not line.startswith("}")
        elif (match := _MENUENTRY.match(line)) is not None:
            if title is not None:
                raise SyntaxFault(f"menuentry {match['title']!r} inside another one")
            title, block = match["title"], []
        elif line.startswith("submenu"):
            level += 1
        elif line.startswith("}"):
            if title is not None:
                entries.append(_read_block(title, block))
                title = None
            elif level == 0:
                raise SyntaxFault("a closing brace without menuentry")
            else:
                level -= 1
        elif title is not None:
            block.append(line)
        elif (chosen := _DEFAULT.match(line)) is not None:
            default = _read_index(chosen["index"])
    if title is not None:
        raise SyntaxFault(f"menuentry {title!r} is never closed")
    return _make_menu(entries, default)


def _meaningful_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.split("\n")]
    if any(len(line) > _LONGEST_LINE for line in lines):
        raise SyntaxFault(f"a line of more than {_LONGEST_LINE} characters")
    return [line for line in lines if line and not line.startswith("#")]


def _make_menu(entries: Sequence[MenuEntry | None], default: int) -> Menu:
    bootable = tuple(entry for entry in entries if entry is not None)
    if not bootable:
        raise SyntaxFault("no entry names a kernel")
    return Menu(bootable, default)


def _read_block(title: str, lines: Sequence[str]) -> MenuEntry | None:
    kernel, args, initrd = "", "", None
    for line in lines:
        word, _, rest = line.partition(" ")
        if word in ("kernel", "linux", "linux16"):
            path, _, args = rest.strip().partition(" ")
            kernel = _drop_device(path)
        elif word in ("initrd", "initrd16"):
            initrd = _drop_device(rest.strip())
    return MenuEntry(title, kernel, initrd, args.strip()) if kernel else None


def _drop_device(path: str) -> str:
    """(hd0,0)/vmlinuz as /vmlinuz; pygrub takes the partition from its own choice."""
    return re.sub(r"^\([^)]*\)", "", path)


def _read_index(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < _MOST_DIGITS else 0
