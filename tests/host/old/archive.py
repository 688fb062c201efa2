"""An archive as etch and lenny had it: Release and Release.gpg apart, signed by a key that expired.

Packages are made with dpkg-deb, indexes with apt-ftparchive (gzip, no by-hash), as they were then.
"""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tests.damages import remove
from tests.host.archives import Keys, ReleaseForm, SmallArchive
from tests.host.old.contents import OldPackage, packages
from tests.host.old.donors import Donors

ARCH = "i386"
ABIS = {"etch": "2.6.18-6-xen-686", "lenny": "2.6.26-2-xen-686"}
# not in the old release, or made anew for it: programs of today's way to boot and to configure
_NOT_THEN = frozenset(
    "adduser base-files init-system-helpers insserv libfile-find-rule-perl libnumber-compare-perl "
    "libperl5.36 libtext-glob-perl lsb-base perl perl-modules-5.36 runit-helper sensible-utils "
    "startpar sysv-rc ucf usrmerge util-linux-extra debian-archive-keyring".split()
)
_DROPPED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian"),
    *"usr/share/bash-completion usr/lib/systemd lib/systemd usr/share/bug usr/share/gcc".split(),
)


def fill_pool(root: Path, work: Path) -> None:
    """Every package of both suites in root/debian/pool, one security update beside it."""
    donors = Donors(work / "donors", ARCH)
    own = list(packages((), ABIS.values()))
    named = {name for package in own for name in package.donors}
    closure = donors.closure(named) - _NOT_THEN
    rest = sorted(closure - named)
    for name in sorted(closure):
        donors.unpack(name)
    made = list(packages(rest, ABIS.values()))
    update = next(replace(one, version="1.0+security1") for one in made if one.name == "netbase")
    jobs = [(root / "debian", one) for one in made] + [(root / "debian-security", update)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(_build, *job, donors, work) for job in jobs]:
            done.result()


def publish(root: Path, keys: Keys, signer: str, suite: str) -> None:
    """Sign the suite and its security, years ago."""
    archive = SmallArchive(root, keys, ARCH)
    form = ReleaseForm(
        codename=suite,
        suite="oldstable",
        dated_days_ago=1000,
        valid_days=0,
        has_by_hash=False,
        has_inrelease=False,
        signers=(signer,),
        signed_days_ago=1000,
        packer="gzip",
    )
    archive.publish(suite, form)
    archive.publish(f"{suite}/updates", form, "debian-security")


def _build(area: Path, package: OldPackage, donors: Donors, work: Path) -> None:
    tree = work / "build" / f"{area.name}-{package.name}"
    tree.mkdir(parents=True)
    for donor in package.donors:
        shutil.copytree(
            donors.unpack(donor), tree, symlinks=True, copy_function=_link, dirs_exist_ok=True
        )
    for path in (*_DROPPED, *package.without):
        remove(tree / path)
    _move_aside(tree, package, donors)
    for path in package.folders:
        (tree / path).mkdir(parents=True, exist_ok=True)
    for path, content in package.files.items():
        _write(tree / path, content)
    for path, target in package.links.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        remove(tree / path)
        (tree / path).symlink_to(target)
    _write_control(tree / "DEBIAN", package)
    pool = area / "pool/main"
    pool.mkdir(parents=True, exist_ok=True)
    deb = pool / f"{package.name}_{package.version}_{ARCH}.deb"
    argv = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(deb)]
    subprocess.run(argv, check=True, capture_output=True)
    shutil.rmtree(tree)


def _move_aside(tree: Path, package: OldPackage, donors: Donors) -> None:
    """Today's programs behind the scripts that can less."""
    aside = {"mktemp": ("coreutils", "bin/mktemp"), "findutils": ("findutils", "usr/bin/find")}
    if package.name in aside:
        donor, path = aside[package.name]
        target = tree / "usr/lib" / package.name / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(donors.unpack(donor) / path, target)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    path.write_bytes(content)
    path.chmod(0o755 if content.startswith(b"#!") else 0o644)


def _write_control(folder: Path, package: OldPackage) -> None:
    folder.mkdir()
    depends = f"Depends: {package.depends}\n" if package.depends else ""
    (folder / "control").write_text(
        f"Package: {package.name}\nVersion: {package.version}\nArchitecture: {ARCH}\n"
        f"Priority: {package.priority}\nSection: base\n{depends}"
        "Maintainer: Tests <tests@example.org>\nDescription: an old package for tests\n"
    )
    if package.postinst:
        (folder / "postinst").write_text(f"#!/bin/sh\nset -e\n{package.postinst}")
        (folder / "postinst").chmod(0o755)


def _link(source: str, target: str) -> None:
    if not os.path.lexists(target):
        os.link(source, target, follow_symlinks=False)
