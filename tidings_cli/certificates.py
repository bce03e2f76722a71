"""A private certificate authority, and certificates for the servers of one deployment.

step-ca and cert-manager do more: issue on request, rotate, revoke. This exists for deployments that run neither:
`tidings secrets` makes all files that compose and Kubernetes mount, in one command, without a service to operate. The
files of another authority take their place.
"""

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_AUTHORITY_DAYS = 3650
_SERVER_DAYS = 825  # the longest that Apple's systems take
# Clocks differ: a new certificate must be valid where it is still the minute before.
_BEFORE = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes


def expires(certificate: bytes) -> datetime.datetime:
    """Return the end of a certificate's validity (PEM)."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def names_of(certificate: bytes) -> list[str]:
    """Return the host names and addresses of a certificate (PEM)."""
    read = x509.load_pem_x509_certificate(certificate)
    try:
        alternatives = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in alternatives]


def is_signed_by(certificate: bytes, authority: bytes) -> bool:
    """Return whether an authority signed a certificate (both PEM)."""
    try:
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(
            x509.load_pem_x509_certificate(authority)
        )
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def has_issuer_name_of(certificate: bytes, authority: bytes) -> bool:
    """Return whether a certificate names this authority, or an earlier one of ours, as its issuer."""
    issuer = x509.load_pem_x509_certificate(certificate).issuer
    return issuer == x509.load_pem_x509_certificate(authority).subject


def make_authority(now: datetime.datetime) -> KeyPair:
    """Make an authority that may only sign servers' certificates."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Tidings")
    builder = (
        _builder(name, name, key.public_key(), now, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return _pair(builder, key, key)


def make_server(authority: KeyPair, names: list[str], now: datetime.datetime) -> KeyPair:
    """Make a certificate for servers with these names. They may also use it as clients of each other."""
    signer = serialization.load_pem_private_key(authority.key, None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is not an elliptic-curve key")
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(names[0]), issuer.subject, key.public_key(), now, _SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    return _pair(builder, signer, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(**allowed: bool) -> x509.KeyUsage:
    kinds = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    more = ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{kind: allowed.get(kind, False) for kind in (*kinds, *more)})


def _pair(
    builder: x509.CertificateBuilder, signer: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey
) -> KeyPair:
    pem, format = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    certificate = builder.sign(signer, hashes.SHA256()).public_bytes(pem)
    return KeyPair(certificate, key.private_bytes(pem, format, serialization.NoEncryption()))
