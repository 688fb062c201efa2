"""Where packages come from: the build host's own apt sources, or the mirror that was named.

No public mirror's name stands here: everything is read from the host's configuration
(sources.list(5), both forms) or given by the user.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import PipelineError, UsageError
from pipeline.spec import Spec
from pipeline.suites import Suite

APT_FOLDER = Path("/etc/apt")


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


def read_host_sources(folder: Path = APT_FOLDER) -> list[HostSource]:
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
    return found


def _read_deb822(text: str) -> Iterator[HostSource]:
    from debian.deb822 import Deb822

    for block in Deb822.iter_paragraphs(text):
        if "deb" not in block.get("Types", "").split() or block.get("Enabled") == "no":
            continue
        for uri in block.get("URIs", "").split():
            for suite in block.get("Suites", "").split():
                yield HostSource(uri.rstrip("/"), suite)


def _read_one_line(text: str) -> Iterator[HostSource]:
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 3 or words[0] != "deb":
            continue
        if words[1].startswith("["):
            end = next((i for i, word in enumerate(words) if word.endswith("]")), 1)
            words = [words[0], *words[end + 1 :]]
        if len(words) >= 3:
            yield HostSource(words[1].rstrip("/"), words[2])


def host_archive(distribution: str, folder: Path = APT_FOLDER) -> str:
    """The host's archive root for a distribution ("debian", "ubuntu").

    A host of one distribution is taken to reach the other's archive at the same server. Raises
    PipelineError when the host names no archive at all.
    """
    roots = [source.uri for source in read_host_sources(folder)]
    for uri in roots:
        if urlsplit(uri).path.rstrip("/").endswith(f"/{distribution}"):
            return uri
    other = "ubuntu" if distribution == "debian" else "debian"
    for uri in roots:
        if urlsplit(uri).path.rstrip("/").endswith(f"/{other}"):
            return uri.removesuffix(other) + distribution
    raise PipelineError(
        f"{folder}: no {distribution} archive among this machine's apt sources",
        hint="name a mirror: mirror=URL",
    )


@dataclass(frozen=True)
class Archive:
    """The roots of one archive: main and, where it is apart, security."""

    root: str
    security_root: str
    keyring: str = ""


def find_archive(spec: Spec, mirrors: Path) -> Archive:
    """The archive that a spec's `mirror` names; see docs/mirrors.md for the forms."""
    suite = spec.suite_facts
    if spec.mirror == "host":
        root = host_archive(suite.distribution)
    elif "/" in spec.mirror or ":" in spec.mirror:
        root = complete_url(spec.mirror, suite.distribution)
    else:
        return _read_named(spec, mirrors)
    return Archive(root, security_root(root, spec.suite_facts))


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


def _read_named(spec: Spec, mirrors: Path) -> Archive:
    path = mirrors / f"{spec.mirror}.toml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in mirrors.glob("*.toml"))) or "none"
        raise UsageError(
            f"mirror '{spec.mirror}': no file {path}",
            hint=f"give host, a URL, host:port, or one of mirrors/: {known}",
        )
    with open(path, "rb") as stream:
        try:
            table = tomllib.load(stream)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path}: {error}") from error
    unknown = sorted(set(table) - {"url", "security_url", "keyring"})
    if unknown or not isinstance(table.get("url"), str):
        raise UsageError(
            f"{path}: {'unknown key ' + unknown[0] if unknown else 'no url'}",
            hint='write url = "http://host/debian", and if wanted security_url and keyring',
        )
    root = complete_url(table["url"], spec.suite_facts.distribution)
    security = str(table.get("security_url", "")).rstrip("/")
    security = security or security_root(root, spec.suite_facts)
    return Archive(root, security, str(table.get("keyring", "")))


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
