"""A file of a guest's identity: it is kept from build to build, and never made anew where it is."""

from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.files import open_plain

_MOST_BYTES = 1 << 16


def read_kept(path: Path) -> bytes:
    """A small file of the guest's identity; VerificationError for one that cannot be read."""
    try:
        with open(open_plain(path), "rb") as stream:
            return stream.read(_MOST_BYTES)
    except OSError as error:
        raise damaged(path) from error


def damaged(path: Path) -> VerificationError:
    """The error for what is kept and is no longer what it was."""
    return VerificationError(
        f"{path} is damaged: it makes the guest what it is, so it is not made anew",
        hint=f"restore it from a copy; or remove {path.parent}, and the guest is another one",
    )
