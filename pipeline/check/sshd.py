"""What sshd would do with its configuration files: sshd_config(5), as far as who may enter."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.check.tree import Tree

MAIN = "/etc/ssh/sshd_config"
# Keyword to the values that keep passwords and other keys out; the first is sshd's default.
KEYS_ONLY = {
    "passwordauthentication": ("yes", "no"),
    "kbdinteractiveauthentication": ("yes", "no"),
    "permitrootlogin": ("prohibit-password", "without-password", "forced-commands-only"),
    "permitemptypasswords": ("no",),
    "pubkeyauthentication": ("yes",),
    "hostbasedauthentication": ("no",),
    "gssapiauthentication": ("no",),
    "kerberosauthentication": ("no",),
    "authorizedkeysfile": (
        ".ssh/authorized_keys .ssh/authorized_keys2",
        ".ssh/authorized_keys",
        "%h/.ssh/authorized_keys",
    ),
    "authorizedkeyscommand": ("none",),
    "trustedusercakeys": ("none",),
}
_MUST_BE_NO = ("passwordauthentication", "kbdinteractiveauthentication")
_MOST_INCLUDED = 200  # files that include one another all have no end
_SYNONYMS = {"challengeresponseauthentication": "kbdinteractiveauthentication"}


def find_openings(tree: Tree, openssh: tuple[int, int]) -> list[str]:
    """`keyword value` for each setting by which somebody without a listed key could enter."""
    openings = []
    values = _global_values(tree)
    if openssh < (7, 0):  # before, root might enter with a password unless it was forbidden
        values.setdefault("permitrootlogin", "yes")
    for keyword, sound in KEYS_ONLY.items():
        value = values.get(keyword, sound[0])
        if value.lower() not in sound or (keyword in _MUST_BE_NO and value.lower() != "no"):
            openings.append(f"{keyword} {value}")
    for condition, keyword, value in _conditional(tree):
        if keyword in KEYS_ONLY:
            openings.append(f"Match {condition}: {keyword} {value}")
    return openings


def _global_values(tree: Tree) -> dict[str, str]:
    """Keyword to value outside Match blocks; the first one counts."""
    values: dict[str, str] = {}
    for condition, keyword, value in _settings(tree, MAIN):
        if not condition:
            values.setdefault(keyword, value)
    return values


def _conditional(tree: Tree) -> Iterator[tuple[str, str, str]]:
    return (setting for setting in _settings(tree, MAIN) if setting[0])


def _settings(
    tree: Tree, path: str, depth: int = 0, room: list[int] | None = None
) -> Iterator[tuple[str, str, str]]:
    """(condition, keyword, value) in the order in which sshd reads them, Include followed."""
    room = [_MOST_INCLUDED] if room is None else room
    condition = ""
    for line in tree.text(path).splitlines():
        match = re.match(r"([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)", line.strip())
        if match is None:
            continue
        keyword, value = match[1].lower(), match[2].strip('"')
        if keyword == "match":
            condition = "" if value.lower() == "all" else value
        elif keyword == "include" and depth < 16:
            for found in _included(tree, value, room):
                # a Match block inside an included file ends with it
                for inner, word, setting in _settings(tree, found, depth + 1, room):
                    yield inner or condition, word, setting
        else:
            yield condition, _SYNONYMS.get(keyword, keyword), value


def _included(tree: Tree, patterns: str, room: list[int]) -> Iterator[str]:
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
