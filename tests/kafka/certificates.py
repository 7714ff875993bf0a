"""A certificate authority of our own, and what it signs: the broker's certificate and a client's."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

CLIENT_NAME = "reporting-client"


@dataclass(frozen=True)
class Certificates:
    """Files in PEM format; `server` and `client` hold the private key and the certificate."""

    authority: Path
    server: Path
    client: Path
    stranger: Path  # signed by an authority that the broker does not know


def write_certificates(folder: Path) -> Certificates:
    """Makes them all; valid for a day."""
    written = Certificates(*(folder / f"{name}.pem" for name in ("authority", "server", "client", "stranger")))
    authority, key = _authority("Tests")
    written.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    _write_signed(written.server, "localhost", authority, key)
    _write_signed(written.client, CLIENT_NAME, authority, key)
    _write_signed(written.stranger, CLIENT_NAME, *_authority("Strangers"))
    return written


def _authority(name: str) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    key = generate_private_key(SECP256R1())
    builder = _builder(name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key


def _write_signed(file: Path, name: str, authority: x509.Certificate, key: EllipticCurvePrivateKey) -> None:
    own = generate_private_key(SECP256R1())
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = _builder(name, authority.subject, own)
    builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    signed = builder.add_extension(authority_key, critical=False).sign(key, hashes.SHA256())
    file.touch(mode=0o600)
    file.write_bytes(
        own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed.public_bytes(Encoding.PEM)
    )


def _builder(name: str, issuer: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(hours=1),
        not_valid_after=now + dt.timedelta(days=1),
    )
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
