"""Certificates and keys for the tests' OpenVPN files: the same ones each time they are made, but for a sealed one."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

BEGINS, ENDS = datetime(2024, 1, 1, tzinfo=UTC), datetime(2044, 1, 1, tzinfo=UTC)


def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def _bytes(name: str, count: int) -> bytes:
    return hashlib.shake_256(name.encode()).digest(count)


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(name: str, begins: datetime = BEGINS, ends: datetime = ENDS) -> str:
    """Make a certificate by the authority `authority`, which has made its own."""
    made = (
        x509.CertificateBuilder(_called("authority"), _called(name), _key(name).public_key(), 7)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
        .sign(_key("authority"), None)
    )
    return made.public_bytes(Encoding.PEM).decode().strip()


def _private(name: str, seal: KeySerializationEncryption) -> str:
    return _key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, seal).decode().strip()


def _static(name: str) -> str:
    text = _bytes(name, 256).hex()
    lines = "\n".join(text[at : at + 32] for at in range(0, len(text), 32))
    return f"-----BEGIN OpenVPN Static key V1-----\n{lines}\n-----END OpenVPN Static key V1-----"


def _wrapped(name: str) -> str:
    lines = base64.encodebytes(_bytes(name, 256 + 300)).decode()
    return f"-----BEGIN OpenVPN tls-crypt-v2 client key-----\n{lines}-----END OpenVPN tls-crypt-v2 client key-----"


def _revoked() -> str:
    made = (
        x509.CertificateRevocationListBuilder(_called("authority"))
        .last_update(BEGINS)
        .next_update(ENDS)
        .sign(_key("authority"), None)
    )
    return made.public_bytes(Encoding.PEM).decode().strip()


def values(password: str) -> dict[str, str]:
    """Make them all; the password opens the sealed key."""
    return {
        "CA": _certificate("authority"),
        "CERT": _certificate("client"),
        "OLDCERT": _certificate("client", ends=datetime(2025, 3, 1, tzinfo=UTC)),
        "NEWCERT": _certificate("client", begins=datetime(2040, 1, 1, tzinfo=UTC)),
        "KEY": _private("client", NoEncryption()),
        "SEALEDKEY": _private("client", BestAvailableEncryption(password.encode())),
        "STATIC": _static("static"),
        "WRAPPED": _wrapped("wrapped"),
        "CRL": _revoked(),
    }
