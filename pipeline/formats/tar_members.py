"""A tar that strangers made, member after member: plain files alone, each header proven.

Written down in POSIX.1 (pax, ustar Interchange Format). What other tars have besides (links, long
names, holes) stands in no container of disks, and is refused.
"""

from typing import IO

from pipeline.errors import VerificationError

_RECORD = 512
_NAME, _SIZE, _SUM, _KIND, _MAGIC, _PREFIX = (
    slice(0, 100),
    slice(124, 136),
    slice(148, 156),
    slice(156, 157),
    slice(257, 262),
    slice(345, 500),
)


class Members:
    """The members of a tar that is read from its beginning to its end, once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._rest = 0

    def next_member(self) -> tuple[str, int] | None:
        """Name and size of the next file; None at the end of the tar.

        Raises VerificationError for what is no such tar or cut short.
        """
        if self._rest:
            raise VerificationError("the last file of the tar was not read to its end")
        head = self._take(_RECORD)
        if not any(head):
            self._end()
            return None
        told = _octal(head[_SUM], "checksum")
        if told != sum(head) - sum(head[_SUM]) + 8 * 0x20:
            raise VerificationError("a header of the tar has a wrong checksum")
        prefix = _text(head[_PREFIX]) if head[_MAGIC] == b"ustar" else ""
        name = f"{prefix}/{_text(head[_NAME])}" if prefix else _text(head[_NAME])
        if head[_KIND] not in (b"0", b"\0"):
            raise VerificationError(f"{name!r} is no plain file of the tar")
        self._rest = _octal(head[_SIZE], "size")
        return name, self._rest

    def read_all(self, *, most: int) -> bytes:
        """What the member holds. Raises VerificationError for more than `most` bytes."""
        size = self._rest
        if size > most:
            raise VerificationError(f"a file of {size} bytes, {most} at most are expected there")
        content = self._take(size)
        self._take(-size % _RECORD)
        self._rest = 0
        return content

    def _take(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._stream.read(size)
            if not piece:
                raise VerificationError("it is cut short: the tar has no end")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _end(self) -> None:
        """A second record of zeros, then nothing but zeros."""
        if any(self._take(_RECORD)):
            raise VerificationError("a record of zeros stands amidst the tar")
        while rest := self._stream.read(1 << 20):
            if any(rest):
                raise VerificationError("something stands behind the end of the tar")


def _octal(field: bytes, what: str) -> int:
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise VerificationError(f"a header of the tar has no {what}")
    return int(digits, 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")
