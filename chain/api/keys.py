"""WireGuard keys (RFC 7748 X25519), in the base64 form that WireGuard's own tools use."""

from __future__ import annotations

import base64
import os

from chain.secret import Secret

KEY_BYTES = 32


def new_private_key() -> Secret:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return Secret(base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode())


def public_key(private_key: Secret) -> str:
    """Derive the public key. Raises ValueError, without the value in it, when the private key is none."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        raw = base64.b64decode(private_key.reveal(), validate=True)
    except ValueError:
        raise ValueError("not base64") from None
    if len(raw) != KEY_BYTES:
        raise ValueError(f"{len(raw)} bytes, a key has {KEY_BYTES}")
    return base64.b64encode(X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()).decode()


def new_preshared_key() -> Secret:
    return Secret(base64.b64encode(os.urandom(KEY_BYTES)).decode())
