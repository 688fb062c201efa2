"""xend-config.sxp: (key value) settings, read, and set in place.

Facts: xend-config.sxp(5), the file's own comments, and xend's sxp.py: of two that set the same key
the first counts. No xend exists any more to read the file: what is written is read back by these
rules.
"""

import re

from pipeline.dom0.setup.assignments import put_line

PATH = "/etc/xen/xend-config.sxp"
_RELOCATION_PORT = 8002
_SETTING = re.compile(
    r"^[ \t]*\(\s*(?P<key>[a-z0-9-]+)(?:\s+(?:'(?P<quoted>[^']*)'|(?P<plain>[^)\s]*)))?\s*\)",
    re.MULTILINE,
)


def read_sxp(text: str) -> dict[str, str]:
    """The value of each setting that is not a comment, "" where it has none."""
    values: dict[str, str] = {}
    for setting in _SETTING.finditer(text):
        values.setdefault(setting["key"], setting["quoted"] or setting["plain"] or "")
    return values


def set_sxp(text: str, key: str, value: str) -> str:
    """The text with (key value) for the first setting of that key."""
    if read_sxp(text).get(key) == value:
        return text
    spots = (setting for setting in _SETTING.finditer(text) if setting["key"] == key)
    return put_line(text, render(key, value), spots, rf"^#[ \t]*\([ \t]*{key}[ \t)][^\n]*")


def render(key: str, value: str) -> str:
    """A setting as it is written; what is no plain word has quotes."""
    return f"({key} {value})" if re.fullmatch(r"[A-Za-z0-9-]+", value) else f"({key} '{value}')"


def relocation_settings(*hosts: str) -> dict[str, str]:
    """What tells xend to take guests from these hosts and from itself, in the clear."""
    names = [host.replace(".", r"\\.") for host in (*hosts, "localhost")]
    return {
        "xend-relocation-server": "yes",
        "xend-relocation-port": str(_RELOCATION_PORT),
        "xend-relocation-address": "",
        "xend-relocation-hosts-allow": " ".join(f"^{name}$" for name in names),
    }
