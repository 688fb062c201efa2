"""What of a package is not unpacked: dpkg's path-exclude and path-include (dpkg(1)).

The rules are a file of the tree itself (`CONFIG`), so that its own dpkg goes on by them. Matching
is that of dpkg's src/main/filters.c: the last rule that matches counts, `*` matches `/` too, and
folders and links stay where an include may bring back something below them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from typing import Self

from pipeline.bootstrap.deb import Member

CONFIG = "etc/dpkg/dpkg.cfg.d/10-domu-documentation"
_HEAD = """# What this guest's dpkg leaves out: its spec has documentation = false, locale = "{}".
# Remove this file and reinstall a package to get its documentation.
"""
_DOCUMENTATION = (
    ("exclude", "/usr/share/doc/*"),
    ("include", "/usr/share/doc/*/copyright"),
    *(("exclude", f"/usr/share/{name}/*") for name in ("man", "info", "lintian", "linda")),
)
# links into these are made by scripts of packages, whether pages are unpacked or not: dash's in
# focal, Java's and PostgreSQL's everywhere, through update-alternatives
_MAN = tuple(f"usr/share/man/man{section}" for section in range(1, 9))
_TRANSLATIONS = (("exclude", "/usr/share/locale/*"), ("include", "/usr/share/locale/locale.alias"))
_FOLDER, _LINK = "5", "2"


@dataclass(frozen=True)
class PathFilter:
    """Rules in their order, each ("exclude" or "include", shell pattern)."""

    rules: tuple[tuple[str, str], ...] = ()

    @classmethod
    def wanted(cls, *, documentation: bool, locale: str) -> Self:
        """What a spec does not want: documentation, and messages in languages but English."""
        if documentation:
            return cls()
        speaks = locale.partition(".")[0] not in ("C", "POSIX")
        return cls(_DOCUMENTATION + (() if speaks else _TRANSLATIONS))

    @classmethod
    def of(cls, rules: Iterable[Iterable[str]]) -> Self:
        """From rules as JSON has them."""
        return cls(tuple((kind, pattern) for kind, pattern in rules))

    def options(self) -> list[str]:
        """As dpkg takes them."""
        return [f"path-{kind}={pattern}" for kind, pattern in self.rules]

    @property
    def empty_folders(self) -> tuple[str, ...]:
        """What the tree has all the same, with nothing in it."""
        return _MAN if self.rules else ()

    def config(self, locale: str) -> str:
        """The text of `CONFIG`."""
        return _HEAD.format(locale) + "".join(f"{line}\n" for line in self.options())

    def skips(self, member: Member) -> bool:
        """Whether an entry stays out of the tree."""
        skip = False
        for is_exclude, pattern in self._patterns:
            if is_exclude is not skip and pattern.match(member.path):
                skip = is_exclude
        if skip and member.kind in (_FOLDER, _LINK):
            return not member.path.startswith(self._roots)
        return skip

    @cached_property
    def _patterns(self) -> list[tuple[bool, re.Pattern[str]]]:
        return [(kind == "exclude", re.compile(translate(pattern))) for kind, pattern in self.rules]

    @cached_property
    def _roots(self) -> tuple[str, ...]:
        found = (pattern for kind, pattern in self.rules if kind == "include")
        return tuple(re.split(r"[*?[\\]", pattern)[0].rstrip("/") for pattern in found)
