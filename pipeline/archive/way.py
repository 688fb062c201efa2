"""How a mirror is reached: through which HTTP proxy, with which file of passwords."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

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
