"""What reads a guest's dpkg status, in a cage and a process of its own: `python -m ... ORDER`.

Bills of materials and known vulnerabilities, both by debsbom; the same status gives the same bytes.
"""

import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from uuid import UUID

from debsbom.bomwriter import BomWriter
from debsbom.bomwriter.bomwriter import SerializerOpts
from debsbom.dpkg.package import Package, filter_binaries, filter_sources
from debsbom.generate.generate import Debsbom
from debsbom.resolver import PackageResolver
from debsbom.sbom import SBOMType
from debsbom.securityscan.scanner import SecurityScanner
from debsbom.util.checksum import ChecksumAlgo

from pipeline.errors import PipelineError
from pipeline.walls.errand import carry_out

CYCLONEDX, SPDX = "sbom.cdx.json", "sbom.spdx.json"
VULNERABILITIES, TRACKER = "vulnerabilities.json", "tracker.json"
_UNREADABLE = (LookupError, ValueError, TypeError, AttributeError, RuntimeError)
_LONGEST = 400  # letters of an error that a stranger may have made
_NAMESPACE = "https://spdx.org/spdxdocs/{name}-{serial}"


def fulfil(order: dict[str, Any]) -> None:
    """Write what was ordered into the room. Raises PipelineError for what cannot be read."""
    room = Path(order["room"])
    if VULNERABILITIES in order["results"]:
        (room / VULNERABILITIES).write_text(json.dumps(list(find_vulnerabilities(order))))
        return
    try:
        write_boms(read_packages(order), room)
    except _UNREADABLE as error:
        raise PipelineError(
            f"the guest's dpkg status cannot be read: {type(error).__name__}: {error}"[:_LONGEST]
        ) from error


def read_packages(order: dict[str, Any]) -> Debsbom:
    """What is installed, with the digests of the order, in one order of its own.

    The tree of the order has var/lib/dpkg/status.
    """
    serial = order["serial"]
    bom = Debsbom(
        distro_name=order["name"],
        root=order["tree"],
        distro_version=order["suite"],
        distro_arch=order["arch"],
        base_distro_vendor=order["vendor"],
        spdx_namespace=urlparse(_NAMESPACE.format(name=order["name"], serial=serial)),
        cdx_serialnumber=UUID(serial),
        timestamp=datetime.fromtimestamp(order["epoch"], UTC),
    )
    bom.scan()
    digests = {tuple(key): digest for *key, digest in order["digests"]}
    for package in bom.packages:
        package.distro = order["suite"]
    for package in filter_binaries(bom.packages):
        digest = digests.get((package.name, str(package.version), package.architecture))
        if digest is not None:
            package.checksums[ChecksumAlgo.SHA256SUM] = digest
    # debsbom keeps them in a set: what it writes would be in another order each time
    bom.packages = sorted(bom.packages, key=_key)
    bom.virtual_packages = bom._virtual_packages()
    return bom


def _key(package: Package) -> tuple[str, str, str, bool]:
    kind = package.architecture if package.is_binary() else "source"
    return package.name, str(package.version), kind or "", package.is_source()


def write_boms(bom: Debsbom, room: Path) -> None:
    """CycloneDX and SPDX."""
    for kind, name in ((SBOMType.CycloneDX, CYCLONEDX), (SBOMType.SPDX, SPDX)):
        stream = io.StringIO()
        options = SerializerOpts.create(bomtype=kind, schema_version="1.6")
        BomWriter.create(kind).write_to_stream(bom.generate(kind), stream, False, options)
        table = json.loads(stream.getvalue())
        for key in ("packages", "relationships"):
            if key in table:
                table[key].sort(key=lambda entry: json.dumps(entry, sort_keys=True))
        text = json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False)
        (room / name).write_text(f"{text}\n", encoding="utf-8")


def find_vulnerabilities(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each that affects a source package of a bill of materials, with the binaries made of it."""
    tree = Path(order["tree"])
    try:
        packages = list(PackageResolver.create(tree / CYCLONEDX))
    except _UNREADABLE as error:
        raise PipelineError(f"{CYCLONEDX} is none: {type(error).__name__}: {error}") from error
    binaries: dict[str, set[str]] = {}
    for package in filter_binaries(packages):
        for source in filter(None, (package.source, *package.built_using)):
            binaries.setdefault(source.name, set()).add(package.name)
    try:
        scanner = SecurityScanner(tree / TRACKER, distro=order["suite"])
        for item in scanner.scan(filter_sources(packages)):
            known = item.vulnerability
            if item.affected:
                yield {
                    "package": item.package.name,
                    "version": str(item.package.version),
                    "binaries": sorted(binaries.get(item.package.name, ())),
                    "cve": known.cve,
                    "urgency": str(known.urgency),
                    "status": str(known.status),
                    "fixed": known.fixed_version or "",
                    "description": known.description or "",
                }
    except _UNREADABLE as error:
        raise PipelineError(
            f"this is no file of Debian's security tracker: {type(error).__name__}: {error}",
            hint="db=FILE: its data/json, as it was downloaded",
        ) from error


if __name__ == "__main__":
    sys.exit(carry_out(fulfil))
