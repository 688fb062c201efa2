"""The key inside a line of authorized_keys, read by cryptography."""

import base64
import binascii

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from pipeline.errors import WrongValueError

MIN_RSA_BITS = 2048


def check_blob(key_type: str, encoded: str, *, is_fido: bool) -> None:
    """WrongValueError for what is not a sound key of that type; a FIDO key's inside is not read."""
    try:
        blob = base64.b64decode(encoded, validate=True)
        if not blob.startswith(len(key_type).to_bytes(4, "big") + key_type.encode()):
            raise ValueError("another type inside")
        if is_fido:
            return
        key = load_ssh_public_key(f"{key_type} {encoded}".encode())
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise WrongValueError(
            f"the {key_type} key is damaged", "copy the .pub file as it is, on one line"
        ) from error
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise WrongValueError(
            f"an RSA key of {key.key_size} bits is too short",
            f"at least {MIN_RSA_BITS}; better: ssh-keygen -t ed25519",
        )
