"""User and password of a mirror: from apt's own files, never in a URL (apt_auth.conf(5)).

A URL goes into logs, buildinfo.json, command lines and the guest's sources.list; a password in it
would go there too.
"""

import netrc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from pipeline.errors import EnvironmentFault, UsageError

DIRECT = "direct"


@dataclass(frozen=True)
class Way:
    """`proxy` is a URL, "direct" for none, or "" for that of http_proxy in the environment.

    `credentials` is a file in the form of apt_auth.conf(5), looked at before apt's own. `cache` is
    the folder where the proxy that we run ourselves keeps its copies.
    """

    proxy: str = ""
    credentials: str = ""
    cache: str = ""

    @property
    def proxies(self) -> dict[str, str] | None:
        """What requests wants: None leaves it to the environment."""
        if not self.proxy:
            return None
        url = "" if self.proxy == DIRECT else self.proxy
        return {"http": url, "https": url}


@dataclass(frozen=True)
class Place:
    """An address and the way to it."""

    url: str
    way: Way = Way()

    def drop_copy(self) -> bool:
        """Make our own proxy forget its copy; False where there is none to forget."""
        if not self.way.cache:
            return False
        path = Path(self.way.cache) / unquote(urlsplit(self.url).path).lstrip("/")
        # apt-cacher-ng keeps the headers beside the file
        found = [one for one in (path, path.with_name(f"{path.name}.head")) if one.is_file()]
        try:
            for one in found:
                one.unlink()
        except PermissionError:
            return False
        return bool(found)


APT_FOLDER = Path("/etc/apt")
AUTH_HINT = (
    "put user and password into /etc/apt/auth.conf.d/NAME.conf, mode 0600, as apt_auth.conf(5) "
    "says: machine http://HOST:PORT login USER password PASSWORD"
)


def without_credentials(url: str) -> str:
    """The URL fit for a log or an error: user and password left out."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def refuse_credentials(url: str, *, where: str) -> None:
    """UsageError when a URL holds a user or a password; `where` says who gave it."""
    if "@" in urlsplit(url).netloc:
        raise UsageError(
            f"{where} {without_credentials(url)}: a user or password in the URL would end in "
            "logs and images",
            hint=AUTH_HINT,
        )


def find_credentials(
    url: str, folder: Path | None = None, *, own: str = ""
) -> tuple[str, str] | None:
    """User and password for a URL from auth.conf and auth.conf.d/*.conf, the first that fits.

    `own` is a file of the mirror's own, looked at first. Files that this user may not read are
    passed over, as apt does. Raises EnvironmentFault for a file that cannot be understood.
    """
    parts = urlsplit(url)
    first = [Path(own)] if own else []
    for path in [*first, *_auth_files(folder or APT_FOLDER)]:
        try:
            entries = netrc.netrc(str(path)).hosts
        except netrc.NetrcParseError as error:
            raise EnvironmentFault(
                f"{path}: line {error.lineno} is not understood",
                hint="see apt_auth.conf(5) for its form",
            ) from None  # its text may quote the password
        for machine, (login, _, password) in entries.items():
            if _is_for(machine, parts):
                return login or "", password or ""
    return None


def _auth_files(folder: Path) -> Iterator[Path]:
    for path in (folder / "auth.conf", *sorted((folder / "auth.conf.d").glob("*.conf"))):
        if path.is_file() and os.access(path, os.R_OK):
            yield path


def _is_for(machine: str, url: SplitResult) -> bool:
    """apt's rule: no scheme means https only; no port means any; a path is a prefix."""
    scheme, found, rest = machine.rpartition("://")
    if url.scheme != (scheme if found else "https"):
        return False
    host, port = url.hostname or "", f":{url.port}" if url.port else ""
    places = (f"{host}{port}", host)
    if "/" in rest:
        return any(f"{place}{url.path}".startswith(rest) for place in places)
    return rest in places
