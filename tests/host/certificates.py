"""TLS certificates for a mirror of the tests: a CA of its own, good and bad ones by it."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.host.bad_mirror import LOCALHOST


class Authority:
    """A CA; `file` is what a machine that trusts it has."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("the tests' own CA")
        made = _draft(
            self._name, self._name, self._key, starts_days=-30, ends_days=30
        ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))

    def context(
        self, *, host: str = "", starts_days: int = -10, ends_days: int = 10, is_signed: bool = True
    ) -> ssl.SSLContext:
        """A server's side for 127.0.0.1 or another host; signed by the CA or by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(host or LOCALHOST)
        issuer, signer = (self._name, self._key) if is_signed else (name, key)
        place = x509.DNSName(host) if host else x509.IPAddress(ip_address(LOCALHOST))
        draft = _draft(name, issuer, key, starts_days=starts_days, ends_days=ends_days)
        draft = draft.add_extension(x509.SubjectAlternativeName([place]), critical=False)
        path = self._folder / f"server-{id(key)}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(private + _pem(draft.sign(signer, hashes.SHA256())))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _draft(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    starts_days: int,
    ends_days: int,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=starts_days))
        .not_valid_after(now + timedelta(days=ends_days))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
