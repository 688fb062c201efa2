"""The keyring that judges an archive: the host's, a given one, or one from a verified package.

Ubuntu's keyring is not in every Debian suite. It is then taken from the ubuntu-keyring package of a
Debian archive whose own signature was checked first; never from the archive that it is to judge.
"""

import shutil
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentFault
from pipeline.mirror.apt_sources import Source, host_archive
from pipeline.mirror.fetch import fetch_bytes, fetch_file
from pipeline.mirror.index import Package, PackageIndex, fetch_index, unpack_index
from pipeline.mirror.release import Terms, read_release
from pipeline.project import Cache
from pipeline.spec import Spec

# the oldest Debian suite that has ubuntu-keyring and is signed by keys every Debian 12 host has
_LENDING_SUITE = "trixie"
_LENDER_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def choose_keyring(spec: Spec, given: str) -> Path:
    """The keyring's path: the spec's, else the mirror file's (`given`), else the suite's."""
    return Path(spec.keyring or given or spec.suite_facts.keyring)


def place_keyring(spec: Spec, given: str, target: Path, *, cache: Cache, log: Path) -> None:
    """Put the keyring of a spec's archive at `target`; raises EnvironmentFault if there is none."""
    path = choose_keyring(spec, given)
    if path.is_file():
        _copy(path, target)
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
    borrow_keyring(package, path.name, target, cache=cache, log=log)


def _copy(path: Path, target: Path) -> None:
    if path.read_bytes().lstrip().startswith(b"-----BEGIN PGP"):
        raise EnvironmentFault(
            f"keyring {path}: ASCII-armored, which gpgv does not read",
            hint=f"gpg --dearmor < {path} > {path.with_suffix('.gpg')}, and give that one",
        )
    shutil.copyfile(path, target)


def borrow_keyring(package: str, name: str, target: Path, *, cache: Cache, log: Path) -> None:
    """Put a keyring from a package at `target`, verified by Debian's own; raises PipelineError."""
    found = _find_in_lender(package, target.with_name("lender-InRelease"), cache=cache, log=log)
    deb = fetch_file(found.url, cache.debs / found.sha256, size=found.size, sha256=found.sha256)
    unpacked = target.with_name("lender")
    process.run(["dpkg-deb", "-x", deb, unpacked], log=log)
    keyring = unpacked / "usr/share/keyrings" / name
    if not keyring.is_file():
        raise EnvironmentFault(
            f"{package} {found.version}: holds no {name}", hint="give keyring=/path"
        )
    shutil.copyfile(keyring, target)
    shutil.rmtree(unpacked)


def _find_in_lender(package: str, inrelease: Path, *, cache: Cache, log: Path) -> Package:
    """The package in the lending suite's index, whose signature Debian's own keyring confirms."""
    source = Source(host_archive("debian"), _LENDING_SUITE, ("main",), "main")
    inrelease.write_bytes(fetch_bytes(source.inrelease_url))
    release = read_release(
        inrelease, _LENDER_KEYRING, source.suite, where=source.inrelease_url, terms=Terms(), log=log
    )
    inrelease.unlink()
    index = fetch_index(source, release, "main", "amd64", cache=cache.indexes)
    if index is None:
        raise EnvironmentFault(
            f"{source.inrelease_url}: has no main for amd64",
            hint=f"install {package} by hand, or give keyring=/path",
        )
    plain = inrelease.with_name("lender-Packages")
    unpack_index(index, plain, release, "main", "amd64")
    found = PackageIndex([(source.uri, plain)]).find(package)
    plain.unlink()
    return found
