"""The golden image that a copy-on-write disk rests on: there, in a store, and what it was.

The overlay holds what differs; without the image, or with another, the guest is no guest.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import command
from pipeline.canonical import digest_file
from pipeline.errors import VerificationError
from pipeline.life.source import Source
from pipeline.store import read_buildinfo
from pipeline.volumes.overlay import TOOLS, find_backing


def require_backing(source: Source) -> None:
    """Raises VerificationError when a disk of the artifact rests on what is not a golden image."""
    overlays = [name for name in source.disks if name.endswith(".qcow2")]
    if overlays:
        command.require_tools(TOOLS)
    for name in overlays:
        found = find_backing(command.run, source.folder / name)
        if found:
            _require_golden(source, name, source.folder / found)


def _require_golden(source: Source, disk: str, image: Path) -> None:
    again = f"doit build name={source.name} replace=yes makes both again"
    made = read_buildinfo(image.parent)
    recorded = made.files.get(image.name, {}) if made else {}
    if made is None or not image.is_file() or image.is_symlink() or "sha256" not in recorded:
        raise VerificationError(
            f"{source.name}: {disk} rests on {image}, which is gone or damaged", hint=again
        )
    asked = source.origin().get("image", made.fingerprint)
    if made.fingerprint != asked or digest_file(image) != recorded["sha256"]:
        raise VerificationError(
            f"{source.name}: {disk} rests on {image}, which is not the golden image that it was "
            "made from",
            hint=again,
        )
