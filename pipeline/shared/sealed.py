"""What is a guest's own on its way through a shared store: encrypted for one job, then gone.

A file is pieces of ChaCha20-Poly1305, the number of each and whether it is the last in its nonce,
so that none can be left out, moved or added. The job's key never meets a nonce twice: each file
has a key derived with a salt of its own, and its name is authenticated with it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pipeline.errors import VerificationError
from pipeline.walls.privacy import make_private

KEY_BYTES = 32
_MAGIC = b"DOMU-SEALED-1\n"
_SALT_BYTES = 32
_PIECE = 1 << 20
_TAG = 16


def seal(source: Path, target: Path, key: bytes, name: str) -> None:
    """Encrypt a file into `target`, which is new; `name` is what it is asked for by."""
    salt = os.urandom(_SALT_BYTES)
    cipher = _derive(key, salt)
    make_private(target)
    with open(source, "rb") as plain, open(target, "wb") as sealed:
        sealed.write(_MAGIC + salt)
        for number, piece, is_last in _with_last(plain, _PIECE):
            sealed.write(cipher.encrypt(_nonce(number, is_last=is_last), piece, name.encode()))


def unseal(source: Path, target: Path, key: bytes, name: str) -> None:
    """Decrypt it; VerificationError for another key, another name, and any other byte."""
    make_private(target)
    with open(source, "rb") as sealed, open(target, "wb") as plain:
        head = sealed.read(len(_MAGIC) + _SALT_BYTES)
        if not head.startswith(_MAGIC) or len(head) < len(_MAGIC) + _SALT_BYTES:
            raise _refusal(name)
        cipher = _derive(key, head[len(_MAGIC) :])
        for number, piece, is_last in _with_last(sealed, _PIECE + _TAG):
            try:
                nonce = _nonce(number, is_last=is_last)
                plain.write(cipher.decrypt(nonce, piece, name.encode()))
            except InvalidTag:
                raise _refusal(name) from None


def sealed_bytes(size: int) -> int:
    """How many bytes a file of `size` bytes has when it is sealed."""
    pieces = max(1, -(-size // _PIECE))
    return len(_MAGIC) + _SALT_BYTES + size + pieces * _TAG


def _derive(key: bytes, salt: bytes) -> ChaCha20Poly1305:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes")
    return ChaCha20Poly1305(HKDF(SHA256(), KEY_BYTES, salt, _MAGIC).derive(key))


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _with_last(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes, bool]]:
    """Each piece with its number, and whether none comes after it; an empty file has one."""
    piece, number = stream.read(size), 0
    while True:
        following = stream.read(size)
        yield number, piece, not following
        if not following:
            return
        piece, number = following, number + 1


def _refusal(name: str) -> VerificationError:
    return VerificationError(
        f"{name}: not what was sealed for this job", hint="nothing of it was used: build it again"
    )
