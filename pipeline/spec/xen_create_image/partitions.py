"""xen-tools' partition files: sections with size, type, mountpoint and options.

The form is that of /etc/xen-tools/partitions.d/sample-server, read by xen-create-image(8) 4.9.2
with Perl's Config::IniFiles.
"""

import configparser
import os
import re
from pathlib import Path

from pipeline.errors import UsageError, WrongValueError
from pipeline.files import read_named_text
from pipeline.spec.values import show_size

FOLDER = Path("/etc/xen-tools/partitions.d")
_KEYS = frozenset(("size", "type", "mountpoint", "options"))
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([GgMmKk])[Bb]?")
_KIB = {"k": 1, "m": 1024, "g": 1024**2}


def find_partitions_file(text: str, folder: Path) -> Path:
    """The file of that name: relative to `folder`, or where xen-tools keeps such files.

    Raises WrongValueError when there is none.
    """
    home = Path.home() / text[2:] if text.startswith("~/") else Path(text)
    own = (folder / home).absolute()
    places = [own] if "/" in text else [own, FOLDER / text]
    for place in places:
        if os.path.isfile(place):
            return place
    shown = " nor ".join(map(str, places))
    raise WrongValueError(f"no file {shown}", "write tables [[partitions]], or name a file")


def read_partitions_file(path: Path) -> list[dict[str, object]]:
    """The partitions as the tables of a spec; raises WrongValueError for what xen-tools refuses."""
    parser = configparser.RawConfigParser(
        strict=True, delimiters=("=",), comment_prefixes=("#", ";")
    )
    try:
        parser.read_string(read_named_text(path), source=str(path))
    except UsageError as error:
        raise WrongValueError(error.brief) from error
    except configparser.Error as error:
        message = str(error).partition("\n")[0]
        raise WrongValueError(f"{path}: {message}", "sections [name], lines key=value") from error
    if not parser.sections():
        raise WrongValueError(f"{path}: no partition in it", "sections [name], lines key=value")
    return [_read_section(path, name, dict(parser[name])) for name in parser.sections()]


def _read_section(path: Path, name: str, keys: dict[str, str]) -> dict[str, object]:
    unknown = sorted(set(keys) - _KEYS)
    if unknown:
        raise WrongValueError(f"{path}: [{name}]: no such key: {', '.join(unknown)}")
    for key in ("size", "type"):
        if not keys.get(key):
            raise WrongValueError(f"{path}: [{name}]: {key} is missing")
    table: dict[str, object] = {
        "name": name.lower(),
        "size": _read_size(path, name, keys["size"]),
        "fs": keys["type"],
    }
    if keys["type"] != "swap":
        table["mountpoint"] = keys.get("mountpoint", "")
        # xen-tools writes "defaults" where nothing is said
        table["options"] = keys.get("options", "") or "defaults"
    return table


def _read_size(path: Path, name: str, text: str) -> str:
    match = _SIZE.fullmatch(text)
    kib = float(match[1]) * _KIB[match[2].lower()] if match else 0
    if not match or kib < 1024:
        raise WrongValueError(f"{path}: [{name}]: '{text}' is not a size", "write it as 4G, 512M")
    # whole megabytes: what lvcreate would round it up to, and less than any extent
    return show_size(-(-int(kib) // 1024))
