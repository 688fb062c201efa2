"""A source of packages, and those that the build host's own apt uses (sources.list(5), both forms).

No public mirror's name stands here: everything is read from the host's configuration.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import PipelineError
from pipeline.mirror.stanzas import find_stanzas, read_fields, read_stanzas
from pipeline.suites import Suite

# a fleet's worker reads those of the machine that asked (fleet/workplace.py)
APT_FOLDER = Path(os.environ.get("DOMU_APT_FOLDER") or "/etc/apt")
_FETCHABLE = ("http", "https", "file")


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
            found += _read_deb822(path, text)
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


def _read_deb822(path: Path, text: str) -> Iterator[HostSource]:
    try:
        stanzas = list(read_stanzas(text))
    except ValueError as error:
        raise PipelineError(f"{path}: {error} is no field", hint="correct it for apt too") from None
    for block in stanzas:
        if "deb" not in block.get("types", "").split() or block.get("enabled") == "no":
            continue
        components = tuple(block.get("components", "").split())
        for uri in block.get("uris", "").split():
            for suite in block.get("suites", "").split():
                yield HostSource(uri.rstrip("/"), suite, components)


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


def host_archives(distribution: str, folder: Path = APT_FOLDER) -> tuple[str, ...]:
    """The host's archive roots for a distribution ("debian", "ubuntu"), in the host's order.

    A host of one distribution is taken to reach the other's archive at the same servers. Raises
    PipelineError when the host names no archive at all.
    """
    uris = [source.uri for source in _archives(folder)]
    found = [uri for uri in uris if urlsplit(uri).path.endswith(f"/{distribution}")]
    other = "ubuntu" if distribution == "debian" else "debian"
    if not found:
        same = [uri for uri in uris if urlsplit(uri).path.endswith(f"/{other}")]
        found = [uri.removesuffix(other) + distribution for uri in same]
    if found:
        return tuple(dict.fromkeys(found))
    raise PipelineError(
        f"{folder}: no {distribution} archive among this machine's apt sources",
        hint="name a mirror: mirror=URL",
    )


def host_archive(distribution: str, folder: Path = APT_FOLDER) -> str:
    """The first of `host_archives`."""
    return host_archives(distribution, folder)[0]


def host_security(suite: Suite, folder: Path = APT_FOLDER, root: str = "") -> str:
    """The host's security archive, which may be on another server than the main one."""
    if suite.security_path and suite.security_path != suite.distribution:
        for source in _archives(folder):
            if source.path.endswith(f"/{suite.security_path}"):
                return source.uri
    return security_root(root or host_archive(suite.distribution, folder), suite)


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


STATUS = Path("/var/lib/dpkg/status")


@cache
def _read_status(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def installed_version(package: str, status: Path = STATUS) -> str:
    """The version of a package that dpkg's status file calls installed, else ""."""
    for stanza in find_stanzas(_read_status(status), package):
        fields = read_fields(stanza)
        if fields.get("status", "").endswith(" installed"):
            return fields.get("version", "")
    return ""
