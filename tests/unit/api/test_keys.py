from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.api import keys
from chain.secret import Secret


def base64_of(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


@pytest.mark.parametrize(
    ("private", "public"),
    [
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ),
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ],
    ids=["Alice", "Bob"],
)
def test_the_vectors_of_rfc_7748(private: str, public: str) -> None:
    assert keys.public_key(Secret(base64_of(private))) == base64_of(public)


def test_new_keys_are_32_bytes_and_never_the_same() -> None:
    made = [keys.new_private_key().reveal() for _ in range(3)] + [keys.new_preshared_key().reveal() for _ in range(3)]
    assert len(set(made)) == 6
    assert {len(base64.b64decode(key, validate=True)) for key in made} == {keys.KEY_BYTES}


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "A" * 44, base64_of("00" * 33)])
def test_what_is_no_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"not base64|bytes, a key has 32") as refused:
        keys.public_key(Secret(text))
    assert not text or text not in str(refused.value)


@given(st.binary(min_size=32, max_size=32))
def test_any_32_bytes_are_a_private_key(raw: bytes) -> None:
    public = keys.public_key(Secret(base64.b64encode(raw).decode()))
    assert len(base64.b64decode(public, validate=True)) == 32
