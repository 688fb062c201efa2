"""What changes bytes besides a spec: this program, and the tools that fingerprints name.

A worker with another one of them gets no work of ours: it would build what nobody here asked for.
"""

from collections.abc import Mapping
from functools import cache

from pipeline import ROOT
from pipeline.files import digest_tree, fingerprint
from pipeline.mirror.apt_sources import installed_version
from pipeline.stages.dib.dib import version

_PACKAGES = ("apt", "e2fsprogs", "mmdebstrap", "debootstrap", "xfsprogs", "btrfs-progs")
_PROGRAM = ("pipeline", "elements")


@cache
def read_toolchain() -> Mapping[str, str]:
    """Name -> version; of our own program a digest of its files."""
    files = {
        f"{folder}/{name}": digest
        for folder in _PROGRAM
        for name, digest in digest_tree(ROOT / folder).items()
        if "__pycache__" not in name
    }
    tools = {package: installed_version(package) for package in _PACKAGES}
    return {"program": fingerprint(files)[:12], "diskimage-builder": version(), **tools}


def compare_toolchains(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What differs, in a line; "" where nothing does."""
    names = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    told = (
        f"{name} {there.get(name) or 'none'}, here {here.get(name) or 'none'}" for name in names
    )
    return "; ".join(told)


def toolchain_resource(toolchain: Mapping[str, str]) -> str:
    """The resource that a worker with exactly these has: who asks for it gets no other worker."""
    return f"toolchain-{fingerprint(dict(toolchain))[:16]}"
