"""The manifest: which packages are in a guest, from dpkg's own status file."""

from __future__ import annotations

from pipeline.bootstrap.relations import read_fields
from pipeline.errors import PipelineError


def render_manifest(status: str) -> str:
    """`name version architecture`, a line a package, sorted. `status` is /var/lib/dpkg/status."""
    entries = (read_fields(stanza) for stanza in status.split("\n\n") if stanza.strip())
    try:
        lines = [
            f"{entry['Package']} {entry['Version']} {entry['Architecture']}\n"
            for entry in entries
            if entry.get("Status", "").endswith(" installed")
        ]
    except KeyError as error:
        raise PipelineError(f"the guest's dpkg status: a package without {error}") from None
    if not lines:
        raise PipelineError("the guest's dpkg status lists no package")
    return "".join(sorted(lines))
