"""Who belongs to a fleet: an authority of its own, and a certificate and key for each party.

`ca.pem` is what all trust, `ca-key.pem` what makes parties; each has NAME.pem and NAME-key.pem. All
are ed25519: the same key is a party's end of TLS, as server and client, and signs what it puts into
a shared store.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.errors import UsageError, VerificationError
from pipeline.files import read_bytes, write_durably
from pipeline.walls.party_names import PARTY_NAME
from pipeline.walls.privacy import PRIVATE_FILE, make_private_folder, require_private

AUTHORITY = "ca"
AUTHORITY_DAYS, PARTY_DAYS = 3650, 398
# whoever made a certificate a moment ago may have a clock before ours
_SKEW = timedelta(hours=1)
_LIMIT = 64 << 10
_MAKE = "doit fleet certificates makes them"


@dataclass(frozen=True)
class Party:
    """One of a fleet, by its files: `authority`, `certificate`, and the private `key` (0600)."""

    folder: Path
    name: str

    @property
    def authority(self) -> Path:
        """The certificate that it trusts."""
        return self.folder / f"{AUTHORITY}.pem"

    @property
    def certificate(self) -> Path:
        """Its own."""
        return self.folder / f"{self.name}.pem"

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.folder / f"{self.name}-key.pem"

    def load_key(self) -> Ed25519PrivateKey:
        """What it signs with; EnvironmentFault where other users may read it."""
        content = _read(self.key)
        require_private(self.key, otherwise="make the fleet's anew")
        try:
            key = load_pem_private_key(content, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{self.key}: this is no key", hint=_MAKE) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{self.key}: this is no ed25519 key", hint=_MAKE)
        return key

    def require_valid(self, now: datetime | None = None) -> None:
        """Raises what others would say of it, before they do: expired, not of this authority."""
        certificate = check_certificate(
            _read(self.certificate), _read(self.authority), now or datetime.now(UTC)
        )
        if certificate.public_key() != self.load_key().public_key():
            raise UsageError(f"{self.key} is not the key of {self.certificate.name}", hint=_MAKE)


def find_party(folder: Path, name: str = "") -> Party:
    """The party that this folder is of, or that of this name; raises UsageError, says which."""
    if not (folder / f"{AUTHORITY}.pem").is_file():
        raise UsageError(f"{folder} holds no certificates of a fleet", hint=_MAKE)
    parties = sorted(
        path.name.removesuffix("-key.pem")
        for path in folder.glob("*-key.pem")
        if path.name != f"{AUTHORITY}-key.pem"
    )
    if name and name not in parties:
        raise UsageError(
            f"{folder} has no certificate of {name}",
            hint=f"{_MAKE}: parties={name}; it has {', '.join(parties) or 'none'}",
        )
    if not name and len(parties) != 1:
        host = os.uname().nodename
        if host not in parties:
            raise UsageError(
                f"{folder} has the certificates of {', '.join(parties) or 'no party'}",
                hint=f'which is ours? party = "{parties[0]}" in fleet.toml says it; else {host} is'
                if parties
                else _MAKE,
            )
        name = host
    return Party(folder, name or parties[0])


def make_authority(folder: Path, now: datetime) -> bool:
    """The fleet's own authority, where there is none yet; whether it was made."""
    make_private_folder(folder)
    own = Party(folder, AUTHORITY)
    if own.certificate.is_file() and own.key.is_file():
        return False
    if os.path.lexists(own.certificate) or os.path.lexists(own.key):
        raise UsageError(
            f"{folder} has half an authority: {own.certificate.name} without {own.key.name}, or so",
            hint="parties are made where both are: on the machine that made them first",
        )
    key = Ed25519PrivateKey.generate()
    name = _name("authority of a fleet")
    draft = _draft(name, name, key.public_key(), now=now, days=AUTHORITY_DAYS)
    draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    draft = draft.add_extension(_usage(is_authority=True), critical=True)
    _write(own, key, draft.sign(key, None))
    return True


def make_party(
    folder: Path,
    name: str,
    places: Sequence[str],
    now: datetime,
    *,
    renew: bool = False,
    days: int = PARTY_DAYS,
) -> Party:
    """A certificate for a party and its `places` (host names, addresses).

    A new key each time. UsageError where there is one, unless it is to be renewed.
    """
    party, own = Party(folder, name), Party(folder, AUTHORITY)
    if not PARTY_NAME.fullmatch(name) or name in (AUTHORITY, f"{AUTHORITY}-key"):
        raise UsageError(f"{name!r} is no name of a party", hint="as build1, or its host's name")
    if not renew and (os.path.lexists(party.certificate) or os.path.lexists(party.key)):
        raise UsageError(
            f"{party.certificate} is there already", hint="renew=yes makes it anew, with a new key"
        )
    authority = _load(_read(own.certificate))
    key = Ed25519PrivateKey.generate()
    draft = _draft(_name(name), authority.subject, key.public_key(), now=now, days=days)
    draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    draft = draft.add_extension(_usage(is_authority=False), critical=True)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    draft = draft.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    named = x509.SubjectAlternativeName([_place(text) for text in dict.fromkeys((name, *places))])
    draft = draft.add_extension(named, critical=False)
    signer = own.load_key()
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    draft = draft.add_extension(issuer, critical=False)
    _write(party, key, draft.sign(signer, None))
    return party


def check_certificate(content: bytes, authority: bytes, at: datetime) -> x509.Certificate:
    """A party's certificate that the authority has signed and that was valid `at` this time.

    Raises VerificationError for any other.
    """
    certificate, issuer = _load(content), _load(authority)
    name = name_of(certificate)
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise VerificationError(
            f"the certificate of {name} is not by this fleet's authority",
            hint="each party needs one that was made where ca-key.pem is: doit fleet certificates",
        ) from error
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= at <= ends:
        word = "is not valid yet" if at < begins else "has expired"
        raise VerificationError(
            f"the certificate of {name} {word}: {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M}"
            f" UTC, and it is {at:%Y-%m-%d %H:%M}",
            hint="doit fleet certificates renew=yes makes it anew; or the clock is wrong",
        )
    if not isinstance(certificate.public_key(), Ed25519PublicKey):
        raise VerificationError(f"the certificate of {name} has no ed25519 key", hint=_MAKE)
    return certificate


def name_of(certificate: x509.Certificate) -> str:
    """The party that a certificate is of, as one line."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(names[0].value) if names else ""
    return text if PARTY_NAME.fullmatch(text) else ascii(text)


def _load(content: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise VerificationError("what should be a certificate is none", hint=_MAKE) from error


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, limit=_LIMIT)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file", hint=_MAKE) from error


def _write(party: Party, key: Ed25519PrivateKey, certificate: x509.Certificate) -> None:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_durably(party.key, private, mode=PRIVATE_FILE)
    write_durably(party.certificate, certificate.public_bytes(Encoding.PEM))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _place(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    if not PARTY_NAME.fullmatch(text):
        raise UsageError(
            f"{text!r} is neither a host name nor an address", hint="as build1@10.0.0.5"
        )
    return x509.DNSName(text)


def _draft(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, *, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
