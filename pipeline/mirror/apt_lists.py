"""A snapshot as apt's own lists folder: apt then works on exactly what was verified.

apt names a list by its URI without scheme and user, `/` as `_`, and `_` and other odd characters as
%xx (apt's URItoFileName; apt-get(8), /var/lib/apt/lists).
"""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.mirror.snapshot import Snapshot, index_name
from pipeline.mirror.stanzas import find_lines, package_of, split_stanzas

_ODD = '\\|{}[]<>"^~_=!@#$%^&*'


def write_lists(snapshot: Snapshot, arch: str, folder: Path) -> None:
    """Fill `folder` with InRelease files and uncompressed Packages files under apt's names.

    Copies: a link to a file, and the end of one, change that file, and a tar of another guest's
    build that reads it at that moment ends with an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "partial").mkdir(exist_ok=True)
    for index, name in _copy_signed(snapshot, arch, folder):
        shutil.copyfile(index, folder / name)


def _copy_signed(snapshot: Snapshot, arch: str, folder: Path) -> Iterator[tuple[Path, str]]:
    """The Release files are put there; each Packages file, and what apt calls it."""
    for source in snapshot.sources:
        stem = list_name(f"{source.uri}/dists/{source.suite}/")
        for signed in snapshot.signed_files(source):
            shutil.copyfile(signed, folder / f"{stem}{signed.name.replace(f'-{source.role}', '')}")
        for component in source.components:
            index = snapshot.folder / index_name(source, component)
            if index.is_file():
                yield index, f"{stem}{list_name(component + '/')}binary-{arch}_Packages"


def list_name(uri: str) -> str:
    """A URI as part of a file name in apt's lists folder."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    text = "".join(f"%{ord(char):02x}" if char in _ODD else char for char in host + parts.path)
    return text.replace("/", "_")


_NEEDED = re.compile(rb"^(?:Pre-)?Depends: (.*)", re.MULTILINE)
_NAMES = re.compile(rb"(?:^|[,|])\s*([^\s,|:(]+)")
_ALWAYS = (b"Essential: yes\n", b"Priority: required\n")


def write_selected_lists(
    snapshot: Snapshot, arch: str, packages: Iterable[str], folder: Path
) -> list[bytes]:
    """Fill apt's lists folder with what can matter for these packages and for a minimal system.

    The Release files are the snapshot's own, only the Packages files are shorter. Returns the
    stanzas.
    """
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    texts: list[bytes] = []
    for index, name in _copy_signed(snapshot, arch, folder):
        names.append(name)
        texts.append(index.read_bytes())
    selected = select_stanzas(texts, packages)
    for name, stanzas in zip(names, selected, strict=True):
        (folder / name).write_bytes(b"".join(stanza + b"\n\n" for stanza in stanzas))
    return [stanza for stanzas in selected for stanza in stanzas]


def select_stanzas(texts: Sequence[bytes], packages: Iterable[str]) -> list[list[bytes]]:
    """Of each Packages file the stanzas that these packages or a minimal system can lead to."""
    split = [split_stanzas(text) for text in texts]
    names = [[package_of(one) for one in part] for part in split]
    stanzas: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for part_names, part in zip(names, split, strict=True):
        for name, stanza in zip(part_names, part, strict=True):
            stanzas[name].append(stanza)
    providers: defaultdict[bytes, set[bytes]] = defaultdict(set)
    wanted = {name.encode() for name in packages}
    for text in texts:
        for name, relation in find_lines(text, b"Provides: "):
            for provided in _NAMES.findall(relation):
                providers[provided].add(name)
        wanted |= {name for sign in _ALWAYS for name, _ in find_lines(text, sign)}
    found = _closure(wanted, stanzas, providers)
    return [
        [stanza for name, stanza in zip(part_names, part, strict=True) if name in found]
        for part_names, part in zip(names, split, strict=True)
    ]


def _closure(
    wanted: set[bytes], stanzas: Mapping[bytes, list[bytes]], providers: Mapping[bytes, set[bytes]]
) -> set[bytes]:
    found: set[bytes] = set()
    waiting = set(wanted)
    while waiting:
        name = waiting.pop()
        found.add(name)
        for stanza in stanzas.get(name, ()):
            for relation in _NEEDED.findall(stanza):
                waiting.update(set(_NAMES.findall(relation)) - found)
        waiting |= providers.get(name, set()) - found
    return found
