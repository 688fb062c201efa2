"""How a mirror is reached: through which HTTP proxy, with which file of passwords."""

from __future__ import annotations

from dataclasses import dataclass

DIRECT = "direct"


@dataclass(frozen=True)
class Way:
    """`proxy` is a URL, "direct" for none, or "" for that of http_proxy in the environment.

    `credentials` is a file in the form of apt_auth.conf(5), looked at before apt's own.
    """

    proxy: str = ""
    credentials: str = ""

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
