from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.imports.encoding import bytes_from_base64, from_base64, from_percent


@given(st.binary(min_size=1, max_size=80), st.booleans(), st.booleans(), st.integers(min_value=1, max_value=40))
def test_base64_of_each_dialect_is_read(raw: bytes, url: bool, padded: bool, width: int) -> None:  # noqa: FBT001 - drawn
    text = (base64.urlsafe_b64encode if url else base64.b64encode)(raw).decode()
    text = text if padded else text.rstrip("=")
    lines = "\r\n".join(text[at : at + width] for at in range(0, len(text), width))
    assert bytes_from_base64(lines) == raw


@pytest.mark.parametrize("text", ["", " \n", "a", "abcde", "abc=d", "ab===", "a b!", "abcd\u00a0", "\u0661\u0662"])
def test_what_is_no_base64_is_not_read(text: str) -> None:
    assert bytes_from_base64(text) is None
    assert from_base64(text) is None


def test_bytes_that_are_no_text_are_none() -> None:
    assert bytes_from_base64("//8=") == b"\xff\xff"
    assert from_base64("//8=") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a%2Fb", "a/b"),
        ("%c3%B6", "ö"),
        ("a+b", "a+b"),
        ("ö %20", "ö  "),
        ("%", None),
        ("%2", None),
        ("%zz", None),
        ("%+1", None),
        ("%ff", None),
    ],
)
def test_percent_signs_are_read_strictly(text: str, found: str | None) -> None:
    assert from_percent(text) == found
