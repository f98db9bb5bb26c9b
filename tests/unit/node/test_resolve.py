from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.node.resolve import CLASS_CHAOS, TYPE_TXT, ResolveError, addresses_in, question, resolve, texts_in

LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True).filter(lambda text: text[2:4] != "--")
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
ADDRESS = st.integers(min_value=0, max_value=2**32 - 1).map(lambda n: socket.inet_ntoa(n.to_bytes(4)))

POINTER = b"\xc0\x0c"
A, CNAME, AAAA = 1, 5, 28
TEXTS = st.lists(st.binary(max_size=255), max_size=4)


def record(kind: int, data: bytes, name: bytes = POINTER, class_: int = 1) -> bytes:
    return name + struct.pack("!HHIH", kind, class_, 300, len(data)) + data


def answer(name: str, records: list[bytes]) -> bytes:
    asked = question(name, 7)
    return asked[:2] + struct.pack("!HHHHH", 0x8180, 1, len(records), 0, 0) + asked[12:] + b"".join(records)


def test_a_question_is_what_rfc_1035_says() -> None:
    assert question("vpn.example.org.", 0x1234) == (
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"  # recursion wanted, one question
        b"\x03vpn\x07example\x03org\x00\x00\x01\x00\x01"
    )


def test_a_name_beyond_ascii_is_encoded_and_its_length_is_that_of_the_encoded_form() -> None:
    assert b"\x0exn--mnchen-3ya\x02de\x00" in question("münchen.de", 1)


@pytest.mark.parametrize("name", ["", ".", "a..b", ".a", "a" * 64, "b." + "ü" * 63])
def test_what_is_no_name_is_never_asked(name: str) -> None:
    with pytest.raises(ValueError, match=r"not a host name|label|too long"):
        question(name, 1)


@given(NAME, st.lists(ADDRESS, max_size=5))
def test_addresses_come_out_as_they_went_in(name: str, addresses: list[str]) -> None:
    records = [record(A, socket.inet_aton(address)) for address in addresses]
    assert addresses_in(answer(name, records)) == addresses


def test_other_records_are_passed_over() -> None:
    records = [
        record(CNAME, b"\x04vpn2" + POINTER),
        record(AAAA, bytes(16)),
        record(A, socket.inet_aton("203.0.113.7"), name=b"\x04vpn2\xc0\x10"),
        record(A, socket.inet_aton("203.0.113.8"), name=b"\x00"),
        record(A, b"\x01\x02"),  # no address has two bytes
    ]
    assert addresses_in(answer("vpn.example.org", records)) == ["203.0.113.7", "203.0.113.8"]


def test_another_sort_of_record_can_be_asked_for() -> None:
    assert question("a", 7, TYPE_TXT, CLASS_CHAOS)[-4:] == b"\x00\x10\x00\x03"


@given(NAME, st.lists(TEXTS, max_size=3))
def test_texts_come_out_with_their_parts_joined(name: str, texts: list[list[bytes]]) -> None:
    datas = [b"".join(bytes([len(part)]) + part for part in parts) for parts in texts]
    found = texts_in(answer(name, [record(TYPE_TXT, data) for data in datas]))
    assert found == [b"".join(parts).decode(errors="replace") for parts in texts]


def test_texts_of_another_class_and_cut_ones_are_no_error() -> None:
    records = [record(TYPE_TXT, b"\x01a"), record(TYPE_TXT, b"\x09bc", class_=CLASS_CHAOS)]
    assert texts_in(answer("a", records), CLASS_CHAOS) == ["bc"]
    assert texts_in(answer("a", records)) == ["a"]


@given(NAME, st.lists(ADDRESS, min_size=1, max_size=3), st.data())
def test_a_cut_answer_is_malformed(name: str, addresses: list[str], data: st.DataObject) -> None:
    whole = answer(name, [record(A, socket.inet_aton(address)) for address in addresses])
    cut = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))
    with pytest.raises(ValueError, match="a malformed answer"):
        addresses_in(whole[:cut])


@given(st.binary(max_size=200))
def test_garbage_gives_addresses_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(socket.inet_aton(address) for address in addresses_in(data))
    with contextlib.suppress(ValueError):
        assert all(isinstance(text, str) for text in texts_in(data))


def test_a_pointer_that_leads_to_itself_is_not_followed() -> None:
    assert addresses_in(answer("a", [record(A, bytes(4), name=POINTER)])) == ["0.0.0.0"]


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::1"])
def test_an_address_is_nothing_to_ask_about(address: str) -> None:
    assert asyncio.run(resolve(address, ())) == address


def test_what_became_of_each_resolver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(_: str, resolver: str) -> list[str]:
        if resolver == "192.0.2.1":
            raise TimeoutError
        if resolver == "192.0.2.2":
            raise ConnectionRefusedError(111, "Connection refused")
        return []

    monkeypatch.setattr("chain.node.resolve._ask", ask)
    with pytest.raises(ResolveError) as failed:
        asyncio.run(resolve("vpn.example.org", ("192.0.2.1", "192.0.2.2", "192.0.2.3")))
    assert str(failed.value) == (
        "192.0.2.1: no answer; 192.0.2.2: [Errno 111] Connection refused; 192.0.2.3: no such name"
    )


def test_without_resolvers_a_name_can_not_be_resolved() -> None:
    with pytest.raises(ResolveError):
        asyncio.run(resolve("vpn.example.org", ()))
