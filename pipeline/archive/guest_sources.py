"""The guest's own apt sources: the suite by name, in the form that its apt prefers."""

from __future__ import annotations

from pathlib import Path

from pipeline.archive.credentials import without_credentials
from pipeline.archive.sources import (
    Archive,
    Source,
    resolve_mirror,
    sources_of,
)
from pipeline.spec import Spec
from pipeline.spec.files import MIRRORS


def render_guest_sources(spec: Spec, builder: Archive, mirrors: Path = MIRRORS) -> str:
    """The content of the guest's sources.list, or of its .sources file from trixie on.

    `guest_mirror` where given, else the builder's mirror; a mirror that only the builder can see
    (file:) is replaced by the archive of the host's own apt sources.
    """
    sources = sources_of(spec, _archive(spec, builder, mirrors))
    if spec.suite_facts.sources_form == "deb822":
        return "\n".join(_deb822(spec, source) for source in sources)
    return "".join(f"{_one_line(spec, source)}\n" for source in sources)


def _archive(spec: Spec, builder: Archive, mirrors: Path) -> Archive:
    if spec.guest_mirror != spec.mirror:
        return resolve_mirror(spec.guest_mirror, spec.suite_facts, mirrors)
    if builder.root.startswith("file:"):
        return resolve_mirror("host", spec.suite_facts, mirrors)
    return Archive(without_credentials(builder.root), without_credentials(builder.security_root))


def _one_line(spec: Spec, source: Source) -> str:
    option = "" if spec.suite_facts.checks_valid_until else "[check-valid-until=no] "
    return f"deb {option}{source.uri} {source.suite} {' '.join(source.components)}"


def _deb822(spec: Spec, source: Source) -> str:
    keyring = f"/usr/share/keyrings/{Path(spec.suite_facts.keyring).name}"
    return (
        "Types: deb\n"
        f"URIs: {source.uri}\n"
        f"Suites: {source.suite}\n"
        f"Components: {' '.join(source.components)}\n"
        f"Signed-By: {keyring}\n"
    )
