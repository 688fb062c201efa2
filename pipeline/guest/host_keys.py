"""The guest's SSH host keys: made once, kept in output/identity/<guest>/, used by every build.

Apart from identity.py because of cryptography, which only a build of a volume and a check load.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pipeline.files import write_durably
from pipeline.guest.kept_file import damaged, read_kept

RSA_BITS = 3072


def keep_host_keys(folder: Path, *, old: bool) -> dict[str, bytes]:
    """Files below /etc/ssh, those that are missing made; `old` for an sshd before 6.5.

    Raises VerificationError for what is there and damaged.
    """
    keys: dict[str, bytes] = {}
    for kind in _key_kinds(folder, old=old):
        path = folder / f"ssh_host_{kind}_key"
        public = path.with_suffix(".pub")
        if not os.path.lexists(path) and not os.path.lexists(public):
            private_bytes, public_bytes = make_key(kind, old=old)
            write_durably(path, private_bytes, mode=0o600)
            write_durably(public, public_bytes, mode=0o600)
        keys[path.name], keys[public.name] = _read_pair(path, public)
    return keys


def derive_public_key(private: bytes) -> bytes:
    """`type base64` of a private key in OpenSSH's form or PEM.

    Raises ValueError when it is none, TypeError when it wants a passphrase.
    """
    is_openssh = b"BEGIN OPENSSH" in private
    load = form.load_ssh_private_key if is_openssh else form.load_pem_private_key
    try:
        key = load(private, None).public_key()
        return key.public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error


def _read_pair(path: Path, public: Path) -> tuple[bytes, bytes]:
    """A private key and its public half, which is written again where it alone is missing."""
    private = read_kept(path)
    try:
        line = derive_public_key(private)
    except (ValueError, TypeError):
        raise damaged(path) from None
    if not os.path.lexists(public):
        write_durably(public, line + b" root\n", mode=0o600)
    kept = read_kept(public)
    if kept.split()[:2] != line.split()[:2]:
        raise damaged(public)
    return private, kept


def _key_kinds(folder: Path, *, old: bool) -> list[str]:
    """RSA where nothing else is understood, or where the guest has had such a key.

    Making one costs up to a second, and every client of the last ten years knows the other two.
    """
    if old:
        return ["rsa"]
    kept = ["rsa"] if (folder / "ssh_host_rsa_key").is_file() else []
    return [*kept, "ecdsa", "ed25519"]


def make_key(kind: str, *, old: bool) -> tuple[bytes, bytes]:
    """A fresh rsa, ecdsa or ed25519 key: private, public.

    The private half is in OpenSSH's form, in PEM where sshd is older than 6.5.
    """
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    elif kind == "ecdsa":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    shape = form.PrivateFormat.TraditionalOpenSSL if old else form.PrivateFormat.OpenSSH
    private = key.private_bytes(form.Encoding.PEM, shape, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return private, public + b" root\n"
