"""The crowd's Noise against published vectors: those of cacophony, which Noise's implementations share, and RFC's."""

from __future__ import annotations

import os
from hashlib import blake2s

import noise
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

# Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s
PROLOGUE = bytes.fromhex("4a6f686e2047616c74")
PRESHARED = bytes.fromhex("54686973206973206d7920417573747269616e20706572737065637469766521")
INITIATOR = bytes.fromhex("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1")
INITIATORS_EPHEMERAL = bytes.fromhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a")
RESPONDER = bytes.fromhex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893")
RESPONDERS_EPHEMERAL = bytes.fromhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b")
FIRST = (
    bytes.fromhex("4c756477696720766f6e204d69736573"),
    bytes.fromhex(
        "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79"
        "44001e21de9f98ddd8e2ad57527207feb56253c9c94a9e496782ecfcb2a75fbcaf1b52948cc48daefe660c62119ab500"
        "0980c84831215f2441eba616548e832985464cf17e51ee93109008399a21f7e13f"
    ),
)
SECOND = (
    bytes.fromhex("4d757272617920526f746862617264"),
    bytes.fromhex(
        "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843"
        "cb765f2caef0751b8f007572dab0322217755c0632f365717edbf34d33e87a"
    ),
)
# What comes after it, in turn, with the nonces 0 and 0.
FURTHER = (
    (bytes.fromhex("462e20412e20486179656b"), bytes.fromhex("8153ca9833bc3c1b91a7e66e5f4d4f5b59bf9e64c2f20d15f0bba7")),
    (bytes.fromhex("4361726c204d656e676572"), bytes.fromhex("07af0c9c86e1b4e80f36b04ff7688d51141af3debd0332f0a705ef")),
)
# H(H(construction) || identifier), as it stands in other implementations of WireGuard.
IDENTIFIER_HASH = bytes.fromhex("2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3")


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


@pytest.fixture
def both() -> tuple[noise.Identity, noise.Identity]:
    return (
        noise.Identity.of(INITIATOR, public(RESPONDER), PRESHARED),
        noise.Identity.of(RESPONDER, public(INITIATOR), PRESHARED),
    )


def test_the_handshake_is_the_published_one(both: tuple[noise.Identity, noise.Identity]) -> None:
    one = noise.Initiator(both[0], X25519PrivateKey.from_private_bytes(INITIATORS_EPHEMERAL), PROLOGUE)
    other = noise.Responder(both[1], X25519PrivateKey.from_private_bytes(RESPONDERS_EPHEMERAL), PROLOGUE)
    payload, message = FIRST
    assert one.begin(payload) == message
    assert other.read(message) == payload
    payload, message = SECOND
    answer, others_keys = other.answer(payload)
    assert answer == message
    found, keys = one.finish(message)
    assert found == payload
    (there, sealed_there), (back, sealed_back) = FURTHER
    assert keys.send.encrypt(bytes(12), there, None) == sealed_there
    assert others_keys.receive.decrypt(bytes(12), sealed_there, None) == there
    assert others_keys.send.encrypt(bytes(12), back, None) == sealed_back
    assert keys.receive.decrypt(bytes(12), sealed_back, None) == back


def test_the_transcript_begins_as_wireguards() -> None:
    key = bytes(range(32))
    assert noise.Transcript(key, noise.PROLOGUE)._hash == blake2s(IDENTIFIER_HASH + key).digest()


def test_hchacha20_is_the_published_one() -> None:
    # draft-irtf-cfrg-xchacha-03, 2.2.1
    found = noise.hchacha20(bytes(range(32)), bytes.fromhex("000000090000004a0000000031415927"))
    assert found == bytes.fromhex("82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc")


def test_others_are_refused(both: tuple[noise.Identity, noise.Identity]) -> None:
    stranger = noise.Identity.of(os.urandom(32), public(RESPONDER), PRESHARED)
    message = noise.Initiator(stranger).begin(bytes(12))
    with pytest.raises(noise.RefusedError, match="somebody else's"):
        noise.Responder(both[1]).read(message)
    altered = noise.Initiator(both[0]).begin(bytes(12))[:-1] + b"?"
    with pytest.raises(noise.RefusedError, match="other keys"):
        noise.Responder(both[1]).read(altered)
    with pytest.raises(noise.RefusedError, match="none in common"):
        noise.Responder(both[1]).read(bytes(108))
    with pytest.raises(noise.RefusedError, match="too short"):
        noise.Responder(both[1]).read(b"?")
    without = noise.Identity.of(INITIATOR, public(RESPONDER))
    one, other = noise.Initiator(without), noise.Responder(both[1])
    other.read(one.begin(bytes(12)))
    with pytest.raises(noise.RefusedError, match="other keys"):
        one.finish(other.answer()[0])


def test_a_cookie_is_for_one_message_and_proves_the_next(both: tuple[noise.Identity, noise.Identity]) -> None:
    one, other = both
    message = noise.with_macs(one, noise.initiation(7, noise.Initiator(one).begin(bytes(12))), None)
    assert len(message) == noise.INITIATION_BYTES
    assert noise.is_meant(other, message)
    assert not noise.is_meant(one, message)
    assert message.endswith(bytes(16))
    cookie = os.urandom(16)
    reply = noise.cookie_reply(other, 7, noise.mac1_of(message), cookie)
    assert len(reply) == noise.COOKIE_BYTES
    assert noise.cookie_in(one, reply, noise.mac1_of(message)) == cookie
    with pytest.raises(noise.RefusedError, match="another message"):
        noise.cookie_in(one, reply, bytes(16))
    again = noise.with_macs(one, message[:-32], cookie)
    assert again[:-16] == message[:-16]
    assert again[-16:] == blake2s(again[:-16], key=cookie, digest_size=16).digest()
