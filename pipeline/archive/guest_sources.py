"""The guest's own apt sources: the suite by name, in the form that its apt prefers."""

from __future__ import annotations

from pathlib import Path

from pipeline.archive.sources import (
    Archive,
    Source,
    complete_url,
    host_archive,
    security_root,
    sources_of,
)
from pipeline.fetch import without_credentials
from pipeline.spec import Spec


def render_guest_sources(spec: Spec, builder: Archive) -> str:
    """The content of the guest's sources.list, or of its .sources file from trixie on.

    `guest_mirror` where given, else the builder's mirror; a mirror that only the builder can see
    (file:) is replaced by the archive of the host's own apt sources.
    """
    sources = sources_of(spec, _archive(spec, builder))
    if spec.suite_facts.sources_form == "deb822":
        return "\n".join(_deb822(spec, source) for source in sources)
    return "".join(f"{_one_line(spec, source)}\n" for source in sources)


def _archive(spec: Spec, builder: Archive) -> Archive:
    distribution = spec.suite_facts.distribution
    if spec.guest_mirror == "host" or builder.root.startswith("file:"):
        root = host_archive(distribution)
    elif spec.guest_mirror == spec.mirror:
        return Archive(
            without_credentials(builder.root), without_credentials(builder.security_root)
        )
    else:
        root = complete_url(spec.guest_mirror, distribution)
    return Archive(root, security_root(root, spec.suite_facts))


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
