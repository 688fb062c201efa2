"""Where a fleet's scheduler is: tls://HOST:PORT, or tcp://127.0.0.1:PORT without certificates.

Who reaches its port runs code on every machine of the fleet: so there is no way to it from another
machine but by TLS with certificates of the fleet's own, on both ends.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from pipeline.errors import WrongValueError

PORT = 8786
_ADDRESS = re.compile(r"(tls|tcp)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class Address:
    """A scheme, a host and a port."""

    scheme: str
    host: str
    port: int

    @property
    def is_encrypted(self) -> bool:
        """Whether both ends show certificates."""
        return self.scheme == "tls"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def read_address(text: str) -> Address:
    """As a person writes it; WrongValueError for another, and for tcp:// to another machine."""
    match = _ADDRESS.fullmatch(text)
    if not match or not 0 <= int(match[3] or PORT) <= 65535:
        raise WrongValueError(f"{text!r} is no scheduler", f"as tls://build1:{PORT}, or local:2")
    address = Address(match[1], match[2].strip("[]"), int(match[3] or PORT))
    if not address.is_encrypted and not is_loopback(address.host):
        raise WrongValueError(
            f"{text}: without TLS only this machine's own 127.0.0.1 is reached",
            f"doit fleet certificates, then tls://{address.host}:{address.port}",
        )
    return address


def is_loopback(host: str) -> bool:
    """Whether that is this machine's own address; names are not asked for, but for localhost."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


_LOCAL = re.compile(r"local:([1-9][0-9]?)")


def check_address(text: str) -> str:
    """The same text, if it is one; raises WrongValueError."""
    read_address(text)
    return text


def check_workers(text: str) -> str:
    """`local:2`, a scheduler's address, or `none`; raises WrongValueError."""
    if text != "none" and not _LOCAL.fullmatch(text):
        read_address(text)
    return text


def count_local(workers: str) -> int:
    """How many workers of this machine's own are meant; 0 for a scheduler's address."""
    match = _LOCAL.fullmatch(workers)
    return int(match[1]) if match else 0
