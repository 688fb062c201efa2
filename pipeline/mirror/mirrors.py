"""The mirrors that a spec's `mirror` stands for, in order of preference.

The forms: host, proxy, a URL, host:port, file:/folder, or a file mirrors/NAME.toml.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import ROOT
from pipeline.errors import UsageError, suggest_nearest
from pipeline.mirror.apt_sources import (
    Source,
    complete_url,
    host_archives,
    host_security,
    security_root,
)
from pipeline.mirror.credentials import DIRECT, Way, refuse_credentials, without_credentials
from pipeline.mirror.definition import Definition, grace_of, read_definition
from pipeline.mirror.proxy.settings import MANAGED, read_settings
from pipeline.mirror.release import Terms
from pipeline.spec import Spec
from pipeline.suites import Suite

HOST = "host"
RESERVED = (HOST, MANAGED)


@dataclass(frozen=True)
class Archive:
    """The roots of one mirror: main and, where they are apart, updates, security, backports.

    `lacks` are the roles that it does not have, `has_backports` adds a role that is off otherwise.
    """

    root: str
    security_root: str
    keyring: str = ""
    updates_root: str = ""
    backports_root: str = ""
    way: Way = Way()
    terms: Terms = Terms()
    lacks: frozenset[str] = frozenset()
    has_backports: bool = False

    def root_of(self, role: str) -> str:
        """The archive root of a role."""
        apart = {
            "security": self.security_root,
            "updates": self.updates_root,
            "backports": self.backports_root,
        }
        return apart.get(role) or self.root


def find_archives(spec: Spec, mirrors: Path) -> tuple[Archive, ...]:
    """The mirrors that a spec names, best first; see docs/how-to/mirrors.md for the forms."""
    return resolve_mirrors(spec.mirror, spec.suite_facts, mirrors, spec.components)


def find_archive(spec: Spec, mirrors: Path) -> Archive:
    """The first of `find_archives`."""
    return find_archives(spec, mirrors)[0]


def resolve_mirrors(
    mirror: str, suite: Suite, mirrors: Path, components: tuple[str, ...] = ()
) -> tuple[Archive, ...]:
    """The mirrors behind host, proxy, a URL, host:port, file:/folder or a name in `mirrors`.

    Raises UsageError for an unknown name and for a URL with a user or password in it, SpecError
    with every mistake of a file.
    """
    if mirror == HOST:
        roots = host_archives(suite.distribution)
        found = tuple(Archive(root, host_security(suite, root=root)) for root in roots)
    elif mirror == MANAGED:
        settings = read_settings(mirrors)
        root = f"http://{settings.address}/{suite.distribution}"
        terms = Terms(grace_s=grace_of(settings.valid_until))
        found = (Archive(root, security_root(root, suite), way=Way(proxy=DIRECT), terms=terms),)
    elif "/" in mirror or ":" in mirror:
        root = complete_url(mirror, suite.distribution)
        found = (Archive(root, security_root(root, suite)),)
    else:
        found = _read_named(mirror, suite, mirrors, components)
    for archive in found:
        for url in (archive.root, archive.security_root):
            refuse_credentials(url, where="apt's source" if mirror == HOST else "mirror")
    age = Terms.for_suite(suite)
    return tuple(replace(one, terms=one.terms.combined(age)) for one in found)


def resolve_mirror(mirror: str, suite: Suite, mirrors: Path) -> Archive:
    """The first of `resolve_mirrors`."""
    return resolve_mirrors(mirror, suite, mirrors)[0]


def list_named(mirrors: Path) -> list[str]:
    """The names in the folder of mirrors."""
    return sorted(path.stem for path in mirrors.glob("*.toml") if path.stem not in RESERVED)


def _read_named(
    name: str, suite: Suite, mirrors: Path, components: tuple[str, ...]
) -> tuple[Archive, ...]:
    path = mirrors / f"{name}.toml"
    if not path.is_file():
        known = list_named(mirrors)
        hints = [suggest_nearest(name, known)]
        hints.append(f"give host, proxy, a URL, host:port, or one of mirrors/: {_join(known)}")
        raise UsageError(f"mirror '{name}': no file {path}", hint="; ".join(filter(None, hints)))
    definition = read_definition(path)
    _check_scope(definition, path, suite, components)
    return definition_archives(definition, suite)


def _check_scope(
    definition: Definition, path: Path, suite: Suite, components: tuple[str, ...]
) -> None:
    """The suite and components that are asked for against those that the file says it has."""
    if definition.suites and suite.name not in definition.suites:
        raise UsageError(
            f"{path}: suites: this mirror has no {suite.name}",
            hint=f"it has {_join(definition.suites)}; choose another mirror= or suite=",
        )
    absent = [
        one for one in components if definition.components and one not in definition.components
    ]
    if absent:
        raise UsageError(
            f"{path}: components: this mirror has no {_join(absent)}",
            hint=f"it has {_join(definition.components)}; correct `components` in the spec",
        )


def definition_archives(definition: Definition, suite: Suite) -> tuple[Archive, ...]:
    """The archives of a definition, one for each of its URLs."""
    roots = [complete_url(url, suite.distribution) for url in definition.url]
    lacks = {role for role in ("updates", "security") if not getattr(definition, role)}
    return tuple(
        Archive(
            root,
            _at(definition.security_url, index) or security_root(root, suite),
            definition.keyring,
            _at(definition.updates_url, index),
            _at(definition.backports_url, index),
            way=Way(definition.proxy, definition.credentials),
            terms=definition.terms,
            lacks=frozenset(lacks),
            has_backports=definition.backports,
        )
        for index, root in enumerate(roots)
    )


def _at(urls: tuple[str, ...], index: int) -> str:
    """The URL of the same rank; a single one serves all."""
    return urls[min(index, len(urls) - 1)].rstrip("/") if urls else ""


def _join(words: object) -> str:
    return ", ".join(words) if isinstance(words, (list, tuple)) and words else "none"


def sources_of(spec: Spec, archive: Archive) -> tuple[Source, ...]:
    """The suites that a guest is built from: main, then updates, security, backports if any."""
    suite = spec.suite_facts
    components = tuple(spec.components)
    pockets = {
        "updates": suite.updates_suite if spec.updates else "",
        "security": suite.security_suite if spec.security else "",
        "backports": suite.backports_suite if archive.has_backports else "",
    }
    found = [Source(archive.root, suite.name, components, "main")]
    for role, name in pockets.items():
        if name and role not in archive.lacks:
            found.append(Source(archive.root_of(role), name, components, role))
    return tuple(found)


def render_guest_sources(spec: Spec, builder: Archive, mirrors: Path = ROOT / "mirrors") -> str:
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
