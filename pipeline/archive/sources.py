"""Where packages come from: the build host's own apt sources, or the mirror that was named.

No public mirror's name stands here: everything is read from the host's configuration
(sources.list(5), both forms) or given by the user.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.archive.credentials import refuse_credentials
from pipeline.errors import PipelineError, UsageError
from pipeline.spec import Spec
from pipeline.suites import Suite

APT_FOLDER = Path("/etc/apt")
_FETCHABLE = ("http", "https", "file")
_MIRROR_KEYS = ("url", "security_url", "keyring")


@dataclass(frozen=True)
class Source:
    """A line of sources.list: archive root, suite, components. Roles: main, updates, security."""

    uri: str
    suite: str
    components: tuple[str, ...]
    role: str

    @property
    def inrelease_url(self) -> str:
        """Where the signed Release file of the suite is."""
        return f"{self.uri}/dists/{self.suite}/InRelease"

    def one_line(self, *, keyring: Path | None = None) -> str:
        """The one-line form of sources.list(5)."""
        options = f"[signed-by={keyring}] " if keyring else ""
        return f"deb {options}{self.uri} {self.suite} {' '.join(self.components)}"


@dataclass(frozen=True)
class HostSource:
    """One source that the build host itself uses."""

    uri: str
    suite: str
    components: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The path of its URI."""
        return urlsplit(self.uri).path


@cache
def read_host_sources(folder: Path = APT_FOLDER) -> tuple[HostSource, ...]:
    """Every `deb` source of the build host, deb822 and one-line form."""
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    found: list[HostSource] = []
    for path in files:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            found += _read_deb822(text)
        elif path.suffix == ".list":
            found += _read_one_line(text)
    return tuple(one for source in found for one in _expand(source))


def _expand(source: HostSource) -> list[HostSource]:
    """A mirror+file: source, as cloud images have it, as the URLs that its file lists."""
    parts = urlsplit(source.uri)
    if parts.scheme != "mirror+file":
        return [source]
    path = Path(parts.path)
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    urls = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    return [replace(source, uri=url.rstrip("/")) for url in urls]


def _read_deb822(text: str) -> Iterator[HostSource]:
    for block in _paragraphs(text):
        if "deb" not in block.get("types", "").split() or block.get("enabled") == "no":
            continue
        components = tuple(block.get("components", "").split())
        for uri in block.get("uris", "").split():
            for suite in block.get("suites", "").split():
                yield HostSource(uri.rstrip("/"), suite, components)


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a sources file, their fields by name in lower case (sources.list(5)).

    Read here because python-debian takes 50 ms to import, a tenth of a run that builds nothing.
    """
    stanza: dict[str, str] = {}
    field = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            yield from [stanza] if stanza else []
            stanza, field = {}, ""
        elif line[0].isspace():
            stanza[field] = f"{stanza.get(field, '')} {line.strip()}"
        else:
            name, _, value = line.partition(":")
            field = name.strip().lower()
            stanza[field] = value.strip()


def _read_one_line(text: str) -> Iterator[HostSource]:
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 3 or words[0] != "deb":
            continue
        if words[1].startswith("["):
            end = next((i for i, word in enumerate(words) if word.endswith("]")), 1)
            words = [words[0], *words[end + 1 :]]
        if len(words) >= 3:
            yield HostSource(words[1].rstrip("/"), words[2], tuple(words[3:]))


def _archives(folder: Path) -> list[HostSource]:
    """The host's sources that can be a distribution's: vendors' .../debian have no main."""
    return [
        source
        for source in read_host_sources(folder)
        if urlsplit(source.uri).scheme in _FETCHABLE and "main" in source.components
    ]


def host_archive(distribution: str, folder: Path = APT_FOLDER) -> str:
    """The host's archive root for a distribution ("debian", "ubuntu").

    A host of one distribution is taken to reach the other's archive at the same server. Raises
    PipelineError when the host names no archive at all.
    """
    sources = _archives(folder)
    for source in sources:
        if source.path.endswith(f"/{distribution}"):
            return source.uri
    other = "ubuntu" if distribution == "debian" else "debian"
    for source in sources:
        if source.path.endswith(f"/{other}"):
            return source.uri.removesuffix(other) + distribution
    raise PipelineError(
        f"{folder}: no {distribution} archive among this machine's apt sources",
        hint="name a mirror: mirror=URL",
    )


def host_security(suite: Suite, folder: Path = APT_FOLDER) -> str:
    """The host's security archive, which may be on another server than the main one."""
    root = host_archive(suite.distribution, folder)
    if suite.security_path and suite.security_path != suite.distribution:
        for source in _archives(folder):
            if source.path.endswith(f"/{suite.security_path}"):
                return source.uri
    return security_root(root, suite)


@dataclass(frozen=True)
class Archive:
    """The roots of one archive: main and, where it is apart, security."""

    root: str
    security_root: str
    keyring: str = ""


def find_archive(spec: Spec, mirrors: Path) -> Archive:
    """The archive that a spec's `mirror` names; see docs/mirrors.md for the forms."""
    return resolve_mirror(spec.mirror, spec.suite_facts, mirrors)


def resolve_mirror(mirror: str, suite: Suite, mirrors: Path) -> Archive:
    """The archive behind host, a URL, host:port, file:/folder or a name in the folder `mirrors`.

    Raises UsageError for an unknown name and for a URL with a user or password in it.
    """
    if mirror == "host":
        archive = Archive(host_archive(suite.distribution), host_security(suite))
    elif "/" in mirror or ":" in mirror:
        root = complete_url(mirror, suite.distribution)
        archive = Archive(root, security_root(root, suite))
    else:
        archive = _read_named(mirror, suite, mirrors)
    for url in (archive.root, archive.security_root):
        refuse_credentials(url, where="apt's source" if mirror == "host" else "mirror")
    return archive


def complete_url(mirror: str, distribution: str) -> str:
    """`monmiroir:9999` as http://monmiroir:9999/debian; a full URL as it is, without last slash."""
    if "://" in mirror or mirror.startswith("file:"):
        url = mirror
    else:
        url = f"http://{mirror}"
        if "/" not in mirror:
            url = f"{url}/{distribution}"
    return url.rstrip("/")


def security_root(root: str, suite: Suite) -> str:
    """Where the security suite is, next to the main archive: .../debian -> .../debian-security."""
    if not suite.security_path or suite.security_path == suite.distribution:
        return root
    return f"{root.removesuffix('/' + suite.distribution)}/{suite.security_path}"


def _read_named(name: str, suite: Suite, mirrors: Path) -> Archive:
    path = mirrors / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in mirrors.glob("*.toml"))) or "none"
        raise UsageError(
            f"mirror '{name}': no file {path}",
            hint=f"give host, a URL, host:port, or one of mirrors/: {known}",
        )
    table = _read_table(path)
    root = complete_url(table["url"], suite.distribution)
    security = table.get("security_url", "").rstrip("/")
    keyring = table.get("keyring", "")
    return Archive(
        root,
        security or security_root(root, suite),
        str(path.parent / keyring) if keyring else "",
    )


def _read_table(path: Path) -> dict[str, str]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint="see docs/mirrors.md for its form") from error
    wrong = [f"unknown key {key}" for key in sorted(set(table) - set(_MIRROR_KEYS))]
    known = {key: table[key] for key in _MIRROR_KEYS if key in table}
    wrong += [f"{key} is not a text" for key, value in known.items() if not isinstance(value, str)]
    if "url" not in table:
        wrong.append("no url")
    if wrong:
        raise UsageError(
            f"{path}: {', '.join(wrong)}",
            hint='write url = "http://host/debian", and if wanted security_url and keyring',
        )
    return known


def sources_of(spec: Spec, archive: Archive) -> tuple[Source, ...]:
    """The suites that a guest is built from: main, then updates and security where asked for."""
    suite = spec.suite_facts
    components = tuple(spec.components)
    found = [Source(archive.root, suite.name, components, "main")]
    if spec.updates and suite.updates_suite:
        found.append(Source(archive.root, suite.updates_suite, components, "updates"))
    if spec.security and suite.security_suite:
        found.append(Source(archive.security_root, suite.security_suite, components, "security"))
    return tuple(found)
