"""The keyring that judges an archive: the host's, a given one, or one from a verified package.

Ubuntu's keyring is not in every Debian suite. It is then taken from the ubuntu-keyring package of a
Debian archive whose own signature was checked first; never from the archive that it is to judge.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline import command
from pipeline.archive.index import PackageIndex, fetch_index
from pipeline.archive.release import parse_release, verify_signature
from pipeline.archive.sources import Source, host_archive
from pipeline.errors import EnvironmentFault
from pipeline.fetch import fetch_bytes, fetch_file
from pipeline.spec import Spec

# the oldest Debian suite that has ubuntu-keyring and is signed by keys every Debian 12 host has
_LENDING_SUITE = "trixie"
_LENDER_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def place_keyring(spec: Spec, given: str, target: Path, *, cache: Path, log: Path) -> None:
    """Put the keyring of a spec's archive at `target`; raises EnvironmentFault if there is none."""
    path = Path(spec.keyring or given or spec.suite_facts.keyring)
    if path.is_file():
        shutil.copyfile(path, target)
        return
    if spec.keyring or given:
        raise EnvironmentFault(
            f"keyring {path}: no such file", hint="correct keyring=, or leave it out"
        )
    package = spec.suite_facts.keyring_package
    if package != "ubuntu-keyring" or not _LENDER_KEYRING.is_file():
        raise EnvironmentFault(
            f"keyring {path}: no such file",
            hint=f"apt-get install {package}, or give keyring=/path",
        )
    _borrow(package, path.name, target, cache=cache, log=log)


def _borrow(package: str, name: str, target: Path, *, cache: Path, log: Path) -> None:
    source = Source(host_archive("debian"), _LENDING_SUITE, ("main",), "main")
    inrelease = target.with_name("lender-InRelease")
    inrelease.write_bytes(fetch_bytes(source.inrelease_url))
    text, signers = verify_signature(
        inrelease,
        _LENDER_KEYRING,
        where=source.inrelease_url,
        accepts_expired_keys=False,
        log=log,
    )
    release = parse_release(text, signers, where=source.inrelease_url)
    index = fetch_index(source, release, "main", "amd64", cache=cache / "indexes")
    assert index is not None
    found = PackageIndex([(source.uri, index)]).find(package)
    deb = fetch_file(found.url, cache / "debs" / found.sha256, size=found.size, sha256=found.sha256)
    unpacked = target.with_name("lender")
    command.run(["dpkg-deb", "-x", deb, unpacked], log=log)
    shutil.copyfile(next(unpacked.glob(f"usr/share/keyrings/{name}")), target)
    shutil.rmtree(unpacked)
    inrelease.unlink()
    inrelease.with_name(inrelease.name + ".text").unlink()
