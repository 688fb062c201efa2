"""Root's password: locked, or a crypt(5) hash in the form that the suite understands.

The secret comes from a file, the terminal, standard input or a ready hash, never from a command
line; only its hash is written, and only into the guest's own disk.
"""

import ctypes
import sys
from collections.abc import Iterable
from getpass import getpass
from pathlib import Path

from pipeline.console.progress import print_line
from pipeline.errors import EnvironmentFault, PipelineError, UsageError
from pipeline.spec import Spec

LOCKED = "*"
_PREFIX = {"yescrypt": b"$y$", "sha512": b"$6$", "md5": b"$1$"}
_TRIES = 3
_LONGEST = 512  # CRYPT_MAX_PASSPHRASE_SIZE of crypt(3)
_OTHERWISE = "or name a file: root_password_file=FILE"


def ask_root_hashes(specs: Iterable[Spec]) -> dict[str, str]:
    """The hashes of root's passwords that are to be asked for (`-`), by guest.

    Twice on a terminal, without echo; else a line of standard input each, in order. Raises
    UsageError where none comes.
    """
    return {
        spec.name: hash_password(_ask_secret(spec.name), spec.suite_facts.password_hash)
        for spec in specs
        if spec.root_password_file == "-"
    }


def _ask_secret(guest: str) -> bytes:
    if sys.stdin is None or not sys.stdin.isatty():
        raw = sys.stdin.buffer.readline(_LONGEST + 2) if sys.stdin else b""
        if not raw:
            raise UsageError(
                f"{guest}: root's password was to come from standard input, where there is none",
                hint=f"give it one line there, {_OTHERWISE}",
            )
        return _check_secret(raw, "standard input")
    try:
        for _ in range(_TRIES):
            first = getpass(f"root's password in {guest}: ")
            secret = _check_secret(first.encode(), "the terminal")
            if getpass("the same again: ") == first:
                return secret
            print_line("they differ")
    except (EOFError, UnicodeError) as error:
        raise UsageError(f"{guest}: no password was typed", hint=_OTHERWISE) from error
    raise UsageError(f"{guest}: the two differed {_TRIES} times", hint=f"again, {_OTHERWISE}")


def read_root_hash(spec: Spec, folder: Path) -> str:
    """The hash for root, "" when the password is to be locked.

    `folder` is what a relative root_password_file is relative to. Raises UsageError for a missing,
    empty or many-lined file.
    """
    if spec.root_password_hash or not spec.root_password_file:
        return spec.root_password_hash
    if spec.root_password_file == "-":
        return ask_root_hashes([spec])[spec.name]
    return hash_password(
        _read_secret(spec.root_password_file, folder), spec.suite_facts.password_hash
    )


def _read_secret(name: str, folder: Path) -> bytes:
    path = folder / name
    if path.exists() and not path.is_file():
        raise UsageError(
            f"root_password_file {name}: not a file", hint="write - to give it on standard input"
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"root_password_file {name}: {error.strerror}", hint="correct root_password_file="
        ) from error
    return _check_secret(raw, name)


def _check_secret(raw: bytes, where: str) -> bytes:
    secret = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not secret or b"\n" in secret or b"\0" in secret or len(secret) > _LONGEST:
        raise UsageError(
            f"root's password from {where}: not one line of text, of {_LONGEST} bytes at most",
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
