"""sshd's configuration files, as sshd_config(5) has them read.

The standard library alone, and no newer than Python 3.9: a proof reads a guest's files with this
module inside the test host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Protocol

MAIN = "/etc/ssh/sshd_config"
_MOST_INCLUDED = 200  # files that include one another all have no end
_MOST_DEPTH = 16
_SYNONYMS = {"challengeresponseauthentication": "kbdinteractiveauthentication"}
_KEYS = ".ssh/authorized_keys .ssh/authorized_keys2"
# what keeps root's key out, whatever the key
_REFUSALS = {"permitrootlogin": ("no", "forced-commands-only"), "pubkeyauthentication": ("no",)}
_ADDED_UP = ("allowusers", "allowgroups", "denyusers", "denygroups")

Setting = tuple[str, str, str]


class Files(Protocol):
    """A guest's files; `oversized` takes the names of those that are more than anybody reads."""

    @property
    def oversized(self) -> set[str]:
        """What was asked for and not read."""

    def text(self, path: str) -> str:
        """The content of a file, "" when there is none."""

    def glob(self, pattern: str) -> list[str]:
        """Paths like a pattern whose `*` stays within one name, sorted."""


def read_settings(tree: Files) -> Iterator[Setting]:
    """(condition, keyword, value) in the order in which sshd reads them, Include followed."""
    return _read(tree, MAIN, 0, [_MOST_INCLUDED])


def _read(tree: Files, path: str, depth: int, room: list[int]) -> Iterator[Setting]:
    condition = ""
    for line in tree.text(path).splitlines():
        match = re.match(r"([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)", line.strip())
        if match is None:
            continue
        keyword, value = match[1].lower(), match[2].strip('"')
        if keyword == "match":
            condition = "" if value.lower() == "all" else value
        elif keyword == "include" and depth < _MOST_DEPTH:
            for found in _included(tree, value, room):
                # a Match block inside an included file ends with it
                for inner, word, setting in _read(tree, found, depth + 1, room):
                    yield inner or condition, word, setting
        else:
            yield condition, _SYNONYMS.get(keyword, keyword), value


def _included(tree: Files, patterns: str, room: list[int]) -> Iterator[str]:
    """The files of an Include line, as long as there are not too many of them in all."""
    for pattern in patterns.split():
        if room[0] <= 0:
            tree.oversized.add(f"{MAIN} with all that it includes")
            return
        room[0] -= 1
        start = "" if pattern.startswith("/") else "/etc/ssh/"
        for found in tree.glob(start + pattern)[: room[0]]:
            room[0] -= 1
            yield found


def find_key_files(settings: Iterable[Setting]) -> tuple[list[str], str]:
    """Where sshd looks for root's keys, as it is written; or why it lets no root in by a key.

    A Match block counts when it is about users alone.
    """
    values = _values_for_root(settings)
    for keyword, refused in _REFUSALS.items():
        if (value := values.get(keyword, "")).lower() in refused:
            return [], f"{keyword} {value}"
    for keyword in _ADDED_UP:
        if keyword in values and _names_root(values[keyword]) is not keyword.startswith("allow"):
            return [], f"{keyword} {values[keyword]}"
    methods = values.get("authenticationmethods", "any").lower().split()
    if not {"any", "publickey"} & set(methods):
        return [], f"authenticationmethods {' '.join(methods)}"
    names = [name.strip('"') for name in values.get("authorizedkeysfile", _KEYS).split()]
    return (names, "") if names != ["none"] else ([], "authorizedkeysfile none")


def _values_for_root(settings: Iterable[Setting]) -> dict[str, str]:
    """Keyword to value: the first of the blocks that are root's, else the first outside of any."""
    of_all: dict[str, str] = {}
    of_root: dict[str, str] = {}
    for condition, keyword, value in settings:
        values = of_root if condition else of_all
        kind, _, patterns = condition.partition(" ")
        if condition and not (kind.lower() == "user" and _names_root(patterns)):
            continue
        if keyword in _ADDED_UP and keyword in values:
            values[keyword] += f" {value}"
        else:
            values.setdefault(keyword, value)
    return {**of_all, **of_root}


def _names_root(patterns: str) -> bool:
    """Whether root, or its group, is meant by patterns: USER[@HOST], * and ?, ! for nobody."""
    words = [word.strip('"').partition("@")[0] for word in re.split(r"[\s,]+", patterns) if word]
    if any(word[0] == "!" and fnmatchcase("root", word[1:]) for word in words if word):
        return False
    return any(fnmatchcase("root", word) for word in words)
