"""The order of versions, for who compares many of them: in a cage, and outside."""

from functools import lru_cache

from debian.debian_support import Version


def is_newer(version: str, other: str) -> bool:
    """As dpkg orders versions (deb-version(7)); what is no version is older than all."""
    try:
        return bool(_parse(version) > _parse(other))
    except ValueError:
        return version > other


@lru_cache(maxsize=10_000)
def _parse(version: str) -> Version:
    return Version(version)
