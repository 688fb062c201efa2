"""Root's password: locked, or a crypt(5) hash in the form that the suite understands.

The secret comes from a file, standard input or a ready hash, never from a command line; only its
hash is written, and only into the guest's own disk.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from pipeline.errors import EnvironmentFault, PipelineError, UsageError
from pipeline.spec import Spec

LOCKED = "*"
_PREFIX = {"yescrypt": b"$y$", "sha512": b"$6$", "md5": b"$1$"}


def read_root_hash(spec: Spec, folder: Path) -> str:
    """The hash for root, "" when the password is to be locked.

    `folder` is what a relative root_password_file is relative to. Raises UsageError for a missing,
    empty or many-lined file.
    """
    if spec.root_password_hash:
        return spec.root_password_hash
    if not spec.root_password_file:
        return ""
    return hash_password(
        _read_secret(spec.root_password_file, folder), spec.suite_facts.password_hash
    )


def _read_secret(name: str, folder: Path) -> bytes:
    path = folder / name
    if name != "-" and path.exists() and not path.is_file():
        raise UsageError(
            f"root_password_file {name}: not a file", hint="write - to give it on standard input"
        )
    try:
        raw = sys.stdin.buffer.read() if name == "-" else path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"root_password_file {name}: {error.strerror}", hint="correct root_password_file="
        ) from error
    secret = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not secret or b"\n" in secret or b"\0" in secret:
        raise UsageError(
            f"root_password_file {name}: not one line of text",
            hint="put the password alone on one line",
        )
    return secret


def hash_password(secret: bytes, method: str) -> str:
    """A fresh crypt(5) hash by libcrypt; `method` is yescrypt, sha512 or md5."""
    try:
        libcrypt = ctypes.CDLL("libcrypt.so.1")
    except OSError as error:
        raise EnvironmentFault(
            "libcrypt is not installed", hint="apt-get install libcrypt1"
        ) from error
    libcrypt.crypt_gensalt.restype = ctypes.c_char_p
    libcrypt.crypt_gensalt.argtypes = [
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    libcrypt.crypt.restype = ctypes.c_char_p
    libcrypt.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    setting = libcrypt.crypt_gensalt(_PREFIX[method], 0, None, 0)
    hashed = libcrypt.crypt(secret, setting) if setting else None
    if not hashed or hashed.startswith(b"*"):
        raise PipelineError(f"libcrypt cannot make a {method} hash")
    return str(hashed.decode("ascii"))


def replace_root_password(shadow: str, root_hash: str) -> str:
    """shadow(5) text with root's password field set, or locked for good with `*`."""
    lines = shadow.splitlines()
    for number, line in enumerate(lines):
        fields = line.split(":")
        if fields[0] == "root" and len(fields) > 1:
            fields[1] = root_hash or LOCKED
            lines[number] = ":".join(fields)
            return "\n".join(lines) + "\n"
    raise PipelineError("/etc/shadow in the image has no root")
