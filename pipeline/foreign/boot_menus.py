"""Boot menus of foreign systems: the kernel's command line in them, and one that GRUB reads.

Formats: GRUB 2's grub.cfg and grubenv, GRUB legacy's menu.lst, syslinux' extlinux.conf, the Boot
Loader Specification's entries, /etc/default/grub and /etc/kernel/cmdline (kernel-install(8)).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline import ROOT
from pipeline.foreign.installed_kernels import InstalledKernel
from pipeline.foreign.root_tree import RootTree

_COMMAND = re.compile(
    r"^(?P<head>\s*(?:linux(?:16|efi)?|kernel|append|options|module)\s+)(?P<words>\S.*)$", re.I
)
_SETTING = re.compile(r"""^(?P<head>GRUB_CMDLINE_LINUX=)(?P<quote>["']?)(?P<words>.*)(?P=quote)$""")
_ENVIRONMENT = re.compile(r"^(?P<head>kernelopts=)(?P<words>.*)$")
_INITRD = re.compile(r"^\s*(initrd(?:16|efi)?|append)\b", re.I)
_GRUBENV_BYTES = 1024
_HOOKS = tuple(f"/etc/kernel/{when}.d/zz-xen-grub-menus" for when in ("postinst", "postrm"))
_LOST = re.compile(r"^(resume|rootdelay)=")  # of a disk that is not there
_TITLE = re.compile(r"[^\w .,:()+~-]")


def mend_menu(
    path: str,
    text: str,
    *,
    root: str,
    console: str,
    tags: Sequence[str],
    initrds: Mapping[str, str],
) -> str:
    """The same menu with this root= and console=; a root= of one of the `tags` stays.

    `initrds` are to be named in the place of others, paths from the system's root.
    """
    if path == "/etc/kernel/cmdline":
        return f"{_mend_words(text.strip(), root, console, tags, is_whole=True)}\n"
    lines = []
    for line in text.split("\n"):
        command = _COMMAND.match(line)
        setting = _SETTING.match(line) if path == "/etc/default/grub" else None
        environment = _ENVIRONMENT.match(line) if path.endswith("grubenv") else None
        if setting:
            words = _mend_words(setting["words"], "", console, tags)
            line = f'{setting["head"]}"{words}"'
        elif environment:
            line = environment["head"] + _mend_words(environment["words"], root, console, tags)
        elif command and "$kernelopts" not in line and "root=" in command["words"]:
            line = command["head"] + _mend_words(command["words"], root, console, tags)
        lines.append(_name_initrd(line, initrds) if _INITRD.match(line) else line)
    return _pad(path, "\n".join(lines))


def _mend_words(
    text: str, root: str, console: str, tags: Sequence[str], *, is_whole: bool = False
) -> str:
    """A command line: root= where there is one (or all of it is one), console= as the last."""
    words = [word for word in text.split() if not _LOST.match(word)]
    has_root = any(word.startswith("root=") for word in words)
    mended = [
        f"root={root}"
        if root
        and word.startswith("root=")
        and not word.removeprefix("root=").startswith(tuple(tags))
        else word
        for word in words
    ]
    if is_whole and not has_root:
        mended.insert(0, f"root={root}")
    if not any(re.fullmatch(rf"console={console}(,\S*)?", word) for word in words):
        mended.append(f"console={console}")
    return text if mended == text.split() else " ".join(mended)


def _name_initrd(line: str, initrds: Mapping[str, str]) -> str:
    """Whole names only: that of another kernel may begin with it; a separate /boot names none."""
    for old, new in initrds.items():
        short_old, short_new = old.removeprefix("/boot"), new.removeprefix("/boot")
        line = re.sub(rf"{re.escape(short_old)}(?=[\s,]|$)", short_new.replace("\\", ""), line)
    return line


def _pad(path: str, text: str) -> str:
    """grubenv is a block of one length, filled with #."""
    if not path.endswith("grubenv"):
        return text
    body = text.rstrip("#")
    return body + "#" * max(0, _GRUBENV_BYTES - len(body.encode("utf-8", "surrogateescape")))


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a menu of ours says: root=, console=, and where GRUB finds what is in /boot."""

    root: str
    console: str
    prefix: str = "/boot"

    @property
    def options(self) -> str:
        """The kernel's command line but for root=."""
        return f"ro console={self.console}"


def write_menu(tree: RootTree, place: Place, initrds: Mapping[str, str]) -> str:
    """A grub.cfg with an entry for every kernel that a PVH domain can enter, the newest first."""
    able = [kernel for kernel in tree.kernels if kernel.has_pvh_note] or list(tree.kernels)
    entries = [_entry(tree, kernel, place, initrds) for kernel in able]
    return "\n".join(["set default=0", "set timeout=1", *entries, ""])


def _entry(
    tree: RootTree, kernel: InstalledKernel, place: Place, initrds: Mapping[str, str]
) -> str:
    initrd = initrds.get(kernel.initrd, kernel.initrd)
    title = _TITLE.sub("", f"{tree.os_name or tree.os_id or 'Linux'}, {kernel.abi}")
    names = [name.removeprefix("/boot") for name in (kernel.kernel, initrd)]
    # Alpine's initramfs loads what mounts its root by this word alone
    modules = "modules=ext4,xfs,btrfs " if "/etc/mkinitfs" in tree.folders else ""
    lines = [
        f'\nmenuentry "{title}" {{',
        f"    linux {place.prefix}{names[0]} root={place.root} {modules}{place.options}",
    ]
    return "\n".join([*lines, *([f"    initrd {place.prefix}{names[1]}"] if initrd else []), "}"])


def keep_menu(tree: RootTree, place: Place) -> Iterator[tuple[str, str]]:
    """Files that write the menu anew whenever a kernel comes or goes: the element grub-menus'.

    For Debian's kernels alone, whose packages run what is in /etc/kernel.
    """
    if not tree.is_debian_family or "/etc/kernel/postinst.d" not in tree.folders:
        return
    script = (ROOT / "elements/grub-menus/static/usr/local/sbin/xen-grub-menus").read_text()
    yield from ((path, script) for path in _HOOKS)
    values = {"ROOT": place.root, "OPTIONS": place.options, "PREFIX": place.prefix, "TIMEOUT": "1"}
    settings = "".join(f'{key}="{value}"\n' for key, value in values.items())
    yield "/etc/default/xen-grub-menus", settings


def is_program(path: str) -> bool:
    """Whether a file of ours is run, not read."""
    return path in _HOOKS
