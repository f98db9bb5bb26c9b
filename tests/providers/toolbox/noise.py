"""WireGuard's handshake and its messages: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s. No clock, no network."""

from __future__ import annotations

import hmac
import os
import struct
from dataclasses import dataclass
from hashlib import blake2s
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

INITIATION, RESPONSE, COOKIE, TRANSPORT = 1, 2, 3, 4
KEY, TAG, MAC, TIMESTAMP = 32, 16, 16, 12  # bytes
INITIATION_BYTES, RESPONSE_BYTES, COOKIE_BYTES, HEADER_BYTES = 148, 92, 64, 16
PROLOGUE = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
NO_PRESHARED = bytes(KEY)
_NAME = blake2s(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s").digest()
_NONCE_0 = bytes(12)
_CONSTANTS = b"expand 32-byte k"


class RefusedError(ValueError):
    """A message that is not what its sender should have sent."""


class Keys(NamedTuple):
    """What a handshake gives: to seal what is sent, and to open what comes."""

    send: ChaCha20Poly1305
    receive: ChaCha20Poly1305


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "blake2s")


def _derive(chaining: bytes, material: bytes, count: int) -> list[bytes]:
    """Noise's HKDF."""
    secret, found = _mac(chaining, material), [b""]
    for number in range(1, count + 1):
        found.append(_mac(secret, found[-1] + bytes([number])))
    return found[1:]


class Transcript:
    """Noise's symmetric state: what both sides have said, and the keys that follow from it."""

    def __init__(self, responder: bytes, prologue: bytes) -> None:
        self._chaining = self._hash = _NAME
        self.hear(prologue)
        self.hear(responder)

    def hear(self, data: bytes) -> None:
        self._hash = blake2s(self._hash + data).digest()

    def mix(self, material: bytes) -> None:
        (self._chaining,) = _derive(self._chaining, material, 1)

    def agree(self, secret: bytes) -> ChaCha20Poly1305:
        self._chaining, key = _derive(self._chaining, secret, 2)
        return ChaCha20Poly1305(key)

    def share(self, preshared: bytes) -> ChaCha20Poly1305:
        self._chaining, heard, key = _derive(self._chaining, preshared, 3)
        self.hear(heard)
        return ChaCha20Poly1305(key)

    def seal(self, key: ChaCha20Poly1305, text: bytes) -> bytes:
        sealed = key.encrypt(_NONCE_0, text, self._hash)
        self.hear(sealed)
        return sealed

    def open(self, key: ChaCha20Poly1305, sealed: bytes) -> bytes:
        try:
            text = key.decrypt(_NONCE_0, sealed, self._hash)
        except InvalidTag:
            raise RefusedError("it was sealed with other keys") from None
        self.hear(sealed)
        return text

    def split(self) -> tuple[ChaCha20Poly1305, ChaCha20Poly1305]:
        first, second = _derive(self._chaining, b"", 2)
        return ChaCha20Poly1305(first), ChaCha20Poly1305(second)


@dataclass(frozen=True)
class Identity:
    """Who somebody is to one peer. What can be computed once is, since it takes as long as all else but the DHs."""

    private: X25519PrivateKey
    public: bytes
    peer: X25519PublicKey
    peer_public: bytes
    static: bytes  # what the two private keys have in common
    preshared: bytes
    mac_to_peer: bytes
    mac_from_peer: bytes
    cookie_from_peer: bytes

    @classmethod
    def of(cls, private: bytes, peer: bytes, preshared: bytes = NO_PRESHARED) -> Identity:
        own, other = X25519PrivateKey.from_private_bytes(private), X25519PublicKey.from_public_bytes(peer)
        public = own.public_key().public_bytes_raw()
        return cls(
            private=own,
            public=public,
            peer=other,
            peer_public=peer,
            static=own.exchange(other),
            preshared=preshared,
            mac_to_peer=blake2s(b"mac1----" + peer).digest(),
            mac_from_peer=blake2s(b"mac1----" + public).digest(),
            cookie_from_peer=blake2s(b"cookie--" + peer).digest(),
        )


class Initiator:
    """The side that begins: `begin`, then `finish` with the answer."""

    def __init__(self, own: Identity, ephemeral: X25519PrivateKey | None = None, prologue: bytes = PROLOGUE) -> None:
        self._own = own
        self._ephemeral = ephemeral or X25519PrivateKey.generate()
        self._transcript = Transcript(own.peer_public, prologue)

    def begin(self, payload: bytes) -> bytes:
        said, own = self._transcript, self._own
        ephemeral = self._ephemeral.public_key().public_bytes_raw()
        said.hear(ephemeral)
        said.mix(ephemeral)
        static = said.seal(said.agree(self._ephemeral.exchange(own.peer)), own.public)
        return ephemeral + static + said.seal(said.agree(own.static), payload)

    def finish(self, answer: bytes) -> tuple[bytes, Keys]:
        """Give the answer's payload, and the keys. Raises RefusedError; then it can be tried with no other answer."""
        said = self._transcript
        ephemeral, sealed = answer[:KEY], answer[KEY:]
        said.hear(ephemeral)
        said.mix(ephemeral)
        theirs = _public(ephemeral)
        said.mix(_exchange(self._ephemeral, theirs))
        said.mix(_exchange(self._own.private, theirs))
        payload = said.open(said.share(self._own.preshared), sealed)
        first, second = said.split()
        return payload, Keys(send=first, receive=second)


class Responder:
    """The side that answers: `read` what the other one begins with, then `answer`."""

    def __init__(self, own: Identity, ephemeral: X25519PrivateKey | None = None, prologue: bytes = PROLOGUE) -> None:
        self._own = own
        self._ephemeral = ephemeral or X25519PrivateKey.generate()
        self._transcript = Transcript(own.public, prologue)
        self._theirs = own.peer  # until it is heard

    def read(self, message: bytes) -> bytes:
        """Give the payload. Raises RefusedError, where somebody else than the peer began too."""
        said, own = self._transcript, self._own
        ephemeral = message[:KEY]
        said.hear(ephemeral)
        said.mix(ephemeral)
        self._theirs = _public(ephemeral)
        static = said.open(said.agree(_exchange(own.private, self._theirs)), message[KEY : 2 * KEY + TAG])
        if static != own.peer_public:
            raise RefusedError("it is somebody else's")
        return said.open(said.agree(own.static), message[2 * KEY + TAG :])

    def answer(self, payload: bytes = b"") -> tuple[bytes, Keys]:
        said = self._transcript
        ephemeral = self._ephemeral.public_key().public_bytes_raw()
        said.hear(ephemeral)
        said.mix(ephemeral)
        said.mix(_exchange(self._ephemeral, self._theirs))
        said.mix(_exchange(self._ephemeral, self._own.peer))
        sealed = said.seal(said.share(self._own.preshared), payload)
        first, second = said.split()
        return ephemeral + sealed, Keys(send=second, receive=first)


def _public(key: bytes) -> X25519PublicKey:
    try:
        return X25519PublicKey.from_public_bytes(key)
    except ValueError:
        raise RefusedError("it is too short") from None


def _exchange(own: X25519PrivateKey, theirs: X25519PublicKey) -> bytes:
    try:
        return own.exchange(theirs)
    except ValueError:
        raise RefusedError("its key gives none in common") from None


# Messages


def initiation(index: int, noise: bytes) -> bytes:
    return struct.pack("<II", INITIATION, index) + noise


def response(index: int, to: int, noise: bytes) -> bytes:
    return struct.pack("<III", RESPONSE, index, to) + noise


def with_macs(own: Identity, message: bytes, cookie: bytes | None) -> bytes:
    """Add both proofs that it is meant for this peer, the second one with the cookie that it gave, if it did."""
    first = message + blake2s(message, key=own.mac_to_peer, digest_size=MAC).digest()
    return first + (blake2s(first, key=cookie, digest_size=MAC).digest() if cookie else bytes(MAC))


def mac1_of(message: bytes) -> bytes:
    return message[-2 * MAC : -MAC]


def is_meant(own: Identity, message: bytes) -> bool:
    """Tell whether a handshake's message was made by somebody who knows whom it is for."""
    expected = blake2s(message[: -2 * MAC], key=own.mac_from_peer, digest_size=MAC).digest()
    return hmac.compare_digest(expected, mac1_of(message))


def cookie_in(own: Identity, message: bytes, mac1: bytes) -> bytes:
    """Open a cookie reply to the message that had this `mac1`. Raises RefusedError."""
    nonce, sealed = message[8:32], message[32:]
    key = ChaCha20Poly1305(hchacha20(own.cookie_from_peer, nonce[:16]))
    try:
        return key.decrypt(bytes(4) + nonce[16:], sealed, mac1)
    except InvalidTag:
        raise RefusedError("it answers another message") from None


def cookie_reply(own: Identity, to: int, mac1: bytes, cookie: bytes) -> bytes:
    """Give what a peer under load answers."""
    nonce = os.urandom(24)
    key = ChaCha20Poly1305(hchacha20(blake2s(b"cookie--" + own.public).digest(), nonce[:16]))
    return struct.pack("<II", COOKIE, to) + nonce + key.encrypt(bytes(4) + nonce[16:], cookie, mac1)


def transport(keys: Keys, to: int, counter: int, packet: bytes) -> bytes:
    """Seal an IP packet, filled up to a multiple of 16 bytes as WireGuard does; an empty one keeps alive."""
    filled = packet + bytes(-len(packet) % 16)
    sealed = keys.send.encrypt(struct.pack("<IQ", 0, counter), filled, None)
    return struct.pack("<IIQ", TRANSPORT, to, counter) + sealed


def opened(keys: Keys, message: bytes) -> bytes:
    """Give what `transport` sealed, filling included. Raises RefusedError."""
    try:
        return keys.receive.decrypt(bytes(4) + message[8:HEADER_BYTES], message[HEADER_BYTES:], None)
    except InvalidTag:
        raise RefusedError("it was sealed with other keys") from None


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Give XChaCha20's key for the first 16 bytes of a nonce: ChaCha20's block, without what is added at its end."""
    block = Cipher(ChaCha20(key, nonce), None).encryptor().update(bytes(64))
    words = struct.unpack("<16I", block)
    added = struct.unpack("<8I", _CONSTANTS + nonce)
    kept = (*words[:4], *words[12:])
    return struct.pack("<8I", *((word - more) & 0xFFFFFFFF for word, more in zip(kept, added, strict=True)))
