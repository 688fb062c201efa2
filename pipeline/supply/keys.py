"""Keys that sign: one for each role, in the site's folder keys/.

keys/ROLE.pem is the private half (PKCS #8 in PEM, encrypted where a passphrase was given; mode
0600), keys/ROLE.pub the public one (SubjectPublicKeyInfo in PEM), which is what others verify with.
"""

import os
from pathlib import Path
from typing import Literal, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from pipeline.errors import UsageError
from pipeline.files import read_bytes, write_durably
from pipeline.walls.privacy import (
    PRIVATE_FILE,
    make_private_folder,
    read_secret_line,
    require_private,
)

# root, targets, snapshot, timestamp: of the image repository (TUF); statements: of an artifact
Role = Literal["root", "targets", "snapshot", "timestamp", "statements"]
ROLES: tuple[Role, ...] = get_args(Role)
_LIMIT = 64 << 10
_MAKE = "doit keys makes them"


def has_keys(folder: Path, role: Role = "statements") -> bool:
    """Whether this site signs: the private half of that role is here."""
    return _private(folder, role).is_file()


def make_key(folder: Path, role: Role, passphrase: bytes | None) -> None:
    """A new ed25519 key; UsageError where the role has one."""
    make_private_folder(folder)
    if os.path.lexists(_private(folder, role)):
        raise UsageError(
            f"{_private(folder, role)} is there already", hint="a key is never overwritten"
        )
    key = Ed25519PrivateKey.generate()
    lock: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        lock = BestAvailableEncryption(passphrase)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    # the private half is last: with it the role has a key
    write_durably(_public(folder, role), public)
    write_durably(_private(folder, role), private, mode=PRIVATE_FILE)


def load_signer(folder: Path, role: Role, passphrase_file: Path | None) -> CryptoSigner:
    """What signs for a role. Raises UsageError for no key and for a passphrase that is not its.

    EnvironmentFault where other users may read the key.
    """
    path = _private(folder, role)
    try:
        content = read_bytes(path, limit=_LIMIT)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such key", hint=_MAKE) from error
    require_private(path, otherwise="make another: doit keys rotate=statements")
    passphrase = read_passphrase(passphrase_file) if passphrase_file else None
    try:
        key = load_pem_private_key(content, passphrase)
    except TypeError as error:  # cryptography's, for one where there is none, or none where one is
        is_locked = passphrase is None
        raise UsageError(
            f"{path}: {'has a passphrase' if is_locked else 'has no passphrase'}",
            hint="name its file: passphrase=FILE, at night passphrase_file in nightly.toml"
            if is_locked
            else "without it",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        why = "the passphrase is another one" if passphrase else "this is no key"
        raise UsageError(f"{path}: {why}", hint=_MAKE if not passphrase else "") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: this is no ed25519 key", hint=_MAKE)
    return CryptoSigner(key)


def read_passphrase(path: Path) -> bytes:
    """The first line of a file that nobody else may read."""
    return read_secret_line(path, "passphrase")


def public_key(folder: Path, role: Role) -> SSlibKey:
    """The public half of a role's key."""
    return read_public_key(_public(folder, role))


def read_public_key(path: Path) -> SSlibKey:
    """An ed25519 public key from a PEM file; raises UsageError for anything else."""
    try:
        key = load_pem_public_key(read_bytes(path, limit=_LIMIT, follow=True))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such key", hint=_MAKE) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path}: this is no public key", hint="key=FILE: keys/statements.pub of who signed"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: this is no ed25519 key", hint="keys/statements.pub is one")
    return SSlibKey.from_crypto(key)


def _private(folder: Path, role: Role) -> Path:
    return folder / f"{role}.pem"


def _public(folder: Path, role: Role) -> Path:
    return folder / f"{role}.pub"
