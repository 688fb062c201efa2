"""The guest's own apt sources: the suite by name, in the form that its apt prefers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.archive.credentials import without_credentials
from pipeline.archive.managed import MANAGED
from pipeline.archive.mirrors import HOST, Archive, resolve_mirror, sources_of
from pipeline.archive.sources import Source
from pipeline.archive.terms import Terms
from pipeline.spec import Spec
from pipeline.spec.files import MIRRORS


def render_guest_sources(spec: Spec, builder: Archive, mirrors: Path = MIRRORS) -> str:
    """The content of the guest's sources.list, or of its .sources file from trixie on.

    `guest_mirror` where given, else the builder's mirror; a mirror that only the builder can see
    (file:, proxy) is replaced by the archive of the host's own apt sources.
    """
    archive = _archive(spec, builder, mirrors)
    sources = sources_of(spec, archive)
    ignores = not archive.terms.combined(Terms.for_suite(spec.suite_facts)).checks_valid_until
    ignores = ignores and spec.suite_facts.apt_knows_signed_by
    if spec.suite_facts.sources_form == "deb822":
        return "\n".join(_deb822(spec, source, ignores=ignores) for source in sources)
    return "".join(f"{_one_line(source, ignores=ignores)}\n" for source in sources)


def _archive(spec: Spec, builder: Archive, mirrors: Path) -> Archive:
    if spec.guest_mirror != spec.mirror:
        return resolve_mirror(spec.guest_mirror, spec.suite_facts, mirrors)
    if builder.root.startswith("file:") or spec.mirror == MANAGED:
        return resolve_mirror(HOST, spec.suite_facts, mirrors)
    return replace(
        builder,
        root=without_credentials(builder.root),
        security_root=without_credentials(builder.security_root),
    )


def _one_line(source: Source, *, ignores: bool) -> str:
    option = "[check-valid-until=no] " if ignores else ""
    return f"deb {option}{source.uri} {source.suite} {' '.join(source.components)}"


def _deb822(spec: Spec, source: Source, *, ignores: bool) -> str:
    keyring = f"/usr/share/keyrings/{Path(spec.suite_facts.keyring).name}"
    return (
        "Types: deb\n"
        f"URIs: {source.uri}\n"
        f"Suites: {source.suite}\n"
        f"Components: {' '.join(source.components)}\n"
        f"Signed-By: {keyring}\n" + ("Check-Valid-Until: no\n" if ignores else "")
    )
