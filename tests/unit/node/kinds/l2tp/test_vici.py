from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.node.kinds.l2tp import vici
from chain.node.kinds.l2tp.vici import Channel, ViciError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

# The example of strongSwan's own description of the protocol.
MESSAGE: dict[str, Any] = {
    "key1": "value1",
    "section1": {"sub-section": {"key2": "value2"}, "list1": ["item1", "item2"]},
}
ENCODED = (
    b"\x03\x04key1\x00\x06value1"
    b"\x01\x08section1"
    b"\x01\x0bsub-section"
    b"\x03\x04key2\x00\x06value2"
    b"\x02"
    b"\x04\x05list1"
    b"\x05\x00\x05item1"
    b"\x05\x00\x05item2"
    b"\x06"
    b"\x02"
)

names = st.text(st.characters(codec="ascii"), min_size=1, max_size=40)
messages = st.recursive(
    st.dictionaries(names, st.text(max_size=40) | st.lists(st.text(max_size=40), max_size=4), max_size=4),
    lambda inner: st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def test_messages_look_as_strongswan_describes_them() -> None:
    assert vici.encode(MESSAGE) == ENCODED
    assert vici.decode(ENCODED) == MESSAGE


@given(messages)
def test_what_is_written_is_read_again(message: dict[str, Any]) -> None:
    assert vici.decode(vici.encode(message)) == message


@given(messages, st.data())
def test_a_message_that_breaks_off_is_a_shorter_one_or_an_error(message: dict[str, Any], data: st.DataObject) -> None:
    encoded = vici.encode(message)
    end = data.draw(st.integers(0, len(encoded)))
    with contextlib.suppress(ValueError):
        vici.decode(encoded[:end])


@pytest.mark.parametrize("data", [b"\x07\x01a", b"\x03\x04ab", b"\x03\x01a\x00\x05ab", b"\x04\x01a\x05", b"\x02\x02"])
def test_a_malformed_message_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="VICI"):
        vici.decode(data)


def packet(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


def event(name: str, message: dict[str, Any]) -> bytes:
    return packet(bytes([7, len(name)]) + name.encode() + vici.encode(message))


def against(answers: list[bytes], use: Callable[[str], Awaitable[Any]], folder: Path) -> tuple[Any, list[bytes]]:
    """Talk to a charon that gives one answer per packet and then closes; give what came of it, and what it was sent."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            length = struct.unpack("!I", await reader.readexactly(4))[0]
            heard.append(await reader.readexactly(length))
            writer.write(answer)
            await writer.drain()
        writer.close()

    async def scene() -> Any:
        path = str(folder / "vici")
        async with await asyncio.start_unix_server(serve, path), asyncio.timeout(10):
            return await use(path)

    return asyncio.run(scene()), heard


def test_a_request_collects_its_events_until_the_answer(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    async def use(path: str) -> dict[str, Any]:
        async with await Channel.open(path) as channel:
            return await channel.call("list-sas", {"ike": "x"}, event="list-sa", on_event=seen.append)

    confirm = packet(b"\x05")
    answer = event("list-sa", {"a": "1"}) + event("list-sa", {"b": "2"}) + packet(b"\x01" + vici.encode({"c": "3"}))
    result, heard = against([confirm, answer], use, tmp_path)
    assert result == {"c": "3"}
    assert seen == [{"a": "1"}, {"b": "2"}]
    assert heard == [b"\x03\x07list-sa", b"\x00\x08list-sas" + vici.encode({"ike": "x"})]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (packet(b"\x01" + vici.encode({"success": "no", "errmsg": "no such thing"})), "no such thing"),
        (packet(b"\x01" + vici.encode({"success": "no"})), "load-conn failed"),
        (packet(b"\x02"), "does not know the command load-conn"),
        (b"", "closed its control connection"),
    ],
)
def test_a_request_that_fails_says_why(answer: bytes, text: str, tmp_path: Path) -> None:
    async def use(path: str) -> None:
        async with await Channel.open(path) as channel:
            with pytest.raises(ViciError, match=text):
                await channel.call("load-conn")

    against([answer], use, tmp_path)


def test_events_come_one_by_one_until_charon_goes(tmp_path: Path) -> None:
    async def use(path: str) -> list[Any]:
        async with await Channel.open(path) as channel:
            await channel.register(["ike-updown"])
            seen = [await channel.event(), await channel.event()]
            with pytest.raises(ViciError):
                await channel.event()
            return seen

    answer = packet(b"\x05") + event("ike-updown", {"up": "yes"}) + event("ike-updown", {})
    result, _ = against([answer], use, tmp_path)
    assert result == [("ike-updown", {"up": "yes"}), ("ike-updown", {})]


def test_no_charon(tmp_path: Path) -> None:
    with pytest.raises(ViciError, match="can't be reached"):
        asyncio.run(Channel.open(str(tmp_path / "nothing")))
