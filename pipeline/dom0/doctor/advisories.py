"""Xen's security advisories on a Debian host: which wait for an update, which for a reboot.

`xen-uploads.txt` has a line for each upload of Xen to Debian, the oldest of a branch first: its
version, its date and the advisories that it fixed, out of the packages' own changelogs (made by
`python -m tests.xen_uploads`). Debian builds Xen with the date of the upload (SOURCE_DATE_EPOCH):
it is the cc_compile_date of `xl info` and stands in /boot/xen-4.17-amd64.gz. So the Xen that runs
tells its upload, which its version does not: xl info says 4.17.7 of several.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path

from pipeline.compression import unpack
from pipeline.errors import Finding, PipelineError
from pipeline.files import read_bytes
from pipeline.mirror.apt_sources import installed_version
from pipeline.mirror.stanzas import find_stanzas, read_fields
from pipeline.mirror.versions import is_newer

TABLE = Path(__file__).with_name("xen-uploads.txt")
_DEBIAN = "lists.alioth.debian.org"  # who built it: cc_compile_domain
_DATE = re.compile(rb"\0[A-Z][a-z]{2} ([A-Z][a-z]{2} [ \d]\d [\d:]{8} UTC \d{4})\0")
_MOST_PACKED, _MOST_XEN, _MOST_LIST = 32 << 20, 64 << 20, 256 << 20
_SHOWN = 12
_LEFT_DAYS = 365


@dataclass(frozen=True)
class Upload:
    """An upload of Xen to Debian; `date` as 2026-11-04T16:52:28Z, which sorts."""

    version: str
    date: str
    advisories: tuple[int, ...]


@dataclass(frozen=True)
class Builds:
    """Debian's Xen on a host: what runs, what is installed, what apt could install.

    `running` is the date of the Xen that runs, "" for one that Debian did not build; `booted` the
    newest date in /boot. `installed` and `offered` are versions by package: of hypervisors and
    their xen-utils, of the newest branch.
    """

    branch: str = ""
    running: str = ""
    booted: str = ""
    installed: Mapping[str, str] = field(default_factory=dict)
    offered: str = ""


@cache
def read_table() -> Mapping[str, tuple[Upload, ...]]:
    """Every upload that is known, by branch (4.17), the oldest first."""
    table: dict[str, list[Upload]] = {}
    for line in TABLE.read_text().splitlines():
        version, date, *numbers = line.split()
        branch = ".".join(re.findall(r"\d+", version)[:2])
        table.setdefault(branch, []).append(Upload(version, date, tuple(map(int, numbers))))
    return {branch: tuple(uploads) for branch, uploads in table.items()}


def read_builds(root: Path, info: Mapping[str, str]) -> Builds:
    """What the host below `root` has; `info` is what `xl info` says."""
    status = root / "var/lib/dpkg/status"
    names = {branch: _names(branch) for branch in read_table()}
    here = [branch for branch in names if installed_version(names[branch][0], status)]
    running = ""
    if info.get("cc_compile_domain") == _DEBIAN:
        running = _to_iso(info.get("cc_compile_date", "").partition(" ")[2])
    if not here:
        return Builds(running=running)
    branch = here[-1]
    versions = {name: installed_version(name, status) for name in names[branch]}
    files = (root / f"boot/xen-{name}-amd64.gz" for name in here)
    return Builds(
        branch=branch,
        running=running,
        booted=max(map(_read_date, files)),
        installed={name: version for name, version in versions.items() if version},
        offered=_read_offer(root / "var/lib/apt/lists", names[branch][0]),
    )


def _names(branch: str) -> tuple[str, str]:
    return f"xen-hypervisor-{branch}-amd64", f"xen-utils-{branch}"


def _to_iso(date: str) -> str:
    """Nov  4 16:52:28 UTC 2026 as 2026-11-04T16:52:28Z; "" for anything else."""
    with suppress(ValueError):
        return datetime.strptime(date, "%b %d %H:%M:%S UTC %Y").strftime("%Y-%m-%dT%H:%M:%SZ")
    return ""


def _read_date(path: Path) -> str:
    """When a hypervisor in /boot was built, "" where that cannot be read."""
    with suppress(OSError, PipelineError, ValueError):
        packed = read_bytes(path, limit=_MOST_PACKED, follow=True)
        date = _DATE.search(unpack(packed, "gzip", limit=_MOST_XEN))
        return _to_iso(date[1].decode()) if date else ""
    return ""


def _read_offer(lists: Path, package: str) -> str:
    """The newest version in apt's lists, "" where they have none."""
    newest = ""
    for path in lists.glob("*_Packages"):
        with suppress(OSError, PipelineError):
            for stanza in find_stanzas(read_bytes(path, limit=_MOST_LIST), package):
                version = read_fields(stanza).get("version", "")
                newest = version if not newest or is_newer(version, newest) else newest
    return newest


def find_advisory_trouble(builds: Builds) -> Iterator[Finding]:
    """What the installed Xen lacks, and what the running one lacks of that; pure."""
    if builds.branch:
        uploads = read_table()[builds.branch]
        yield from _find_missing(builds, uploads)
        yield from _find_end(builds.branch, uploads)
        yield from _find_reboot(builds, uploads)


def _find_missing(builds: Builds, uploads: tuple[Upload, ...]) -> Iterator[Finding]:
    names = " ".join(builds.installed)
    at, package = min(
        (_place(uploads, version), name) for name, version in builds.installed.items()
    )
    version = builds.installed[package]
    missing = _name(uploads[at:])
    newest = uploads[-1].version
    if is_newer(builds.offered, newest):
        newest = builds.offered
    if missing or (builds.offered and is_newer(builds.offered, version)):
        lacks = f"lacks what {newest} fixes" + (f": {missing}" if missing else "")
        yield Finding(
            "error",
            "Xen",
            f"{package} {version} {lacks}",
            f"apt-get update; apt-get install --only-upgrade {names}; then reboot",
            code="advisories",
        )


def _place(uploads: tuple[Upload, ...], version: str) -> int:
    """How many uploads a version comes after or is: by the changelog, else by dpkg's order.

    A rebuild for a stable release (-1~deb12u1) is older than -1 for dpkg, and was made after it.
    """
    known = [upload.version for upload in uploads]
    if version in known:
        return known.index(version) + 1
    return sum(not is_newer(upload, version) for upload in known)


def _find_end(branch: str, uploads: tuple[Upload, ...]) -> Iterator[Finding]:
    last, newest = (
        datetime.fromisoformat(max(upload.date for upload in some))
        for some in (uploads, [upload for every in read_table().values() for upload in every])
    )
    if (newest - last).days > _LEFT_DAYS:
        yield Finding(
            "error",
            "Xen",
            f"Debian's last update of Xen {branch} is of {last:%d %B %Y}: nobody mends it any more",
            "upgrade this host to a release of Debian that has updates",
            code="support",
        )


def _find_reboot(builds: Builds, uploads: tuple[Upload, ...]) -> Iterator[Finding]:
    if not builds.running or builds.running >= builds.booted:
        return
    since = [upload for upload in uploads if builds.running < upload.date <= builds.booted]
    closed = _name(since)
    yield Finding(
        "error" if closed else "warning",
        "Xen",
        f"the Xen that runs was built on {builds.running[:10]}, the one in /boot on "
        f"{builds.booted[:10]}" + (f": until a reboot without {closed}" if closed else ""),
        "doit shutdown all=yes; reboot",
        code="reboot",
    )


def _name(uploads: Iterable[Upload]) -> str:
    """XSA-509 XSA-510 and 8 more."""
    numbers = sorted({number for upload in uploads for number in upload.advisories})
    left = len(numbers) - _SHOWN
    shown = " ".join(f"XSA-{number}" for number in numbers[-_SHOWN:])
    return f"{shown} and {left} older ones" if left > 0 else shown
