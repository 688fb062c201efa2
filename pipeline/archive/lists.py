"""A snapshot as apt's own lists folder: apt then works on exactly what was verified.

apt names a list by its URI without scheme and user, `/` as `_`, and `_` and other odd characters as
%xx (apt's URItoFileName; apt-get(8), /var/lib/apt/lists).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.archive.snapshot import Snapshot, index_name

_ODD = '\\|{}[]<>"^~_=!@#$%^&*'


def write_lists(snapshot: Snapshot, arch: str, folder: Path) -> None:
    """Fill `folder` with InRelease files and uncompressed Packages files under apt's names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "partial").mkdir(exist_ok=True)
    for source in snapshot.sources:
        stem = list_name(f"{source.uri}/dists/{source.suite}/")
        for signed in snapshot.signed_files(source):
            _give(signed, folder / f"{stem}{signed.name.replace(f'-{source.role}', '')}")
        for component in source.components:
            name = f"{stem}{list_name(component + '/')}binary-{arch}_Packages"
            index = snapshot.folder / index_name(source, component)
            if index.is_file():
                _give(index, folder / name)


def _give(kept: Path, name: Path) -> None:
    """The same file under apt's name: apt replaces lists, it never writes into them."""
    try:
        os.link(kept, name)
    except OSError:  # another file system
        shutil.copyfile(kept, name)


def list_name(uri: str) -> str:
    """A URI as part of a file name in apt's lists folder."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    text = "".join(f"%{ord(char):02x}" if char in _ODD else char for char in host + parts.path)
    return text.replace("/", "_")
