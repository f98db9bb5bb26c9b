"""strongSwan's control protocol (VICI): messages ↔ bytes, and connections to charon's socket.

By it the pre-shared key goes into charon's memory as bytes: it is written nowhere, and nothing has to be quoted.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Event = tuple[str, dict[str, Any]]

_REQUEST, _RESPONSE, _REGISTER, _CONFIRM, _EVENT = 0, 1, 3, 5, 7
_SECTION, _SECTION_END, _VALUE, _LIST, _ITEM, _LIST_END = 1, 2, 3, 4, 5, 6


class ViciError(RuntimeError):
    """charon does not answer, or refuses; the text is its own."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Write a message: values are text or bytes, lists of those, or sections."""
    parts = []
    for key, value in message.items():
        name = bytes([len(key)]) + key.encode()
        if isinstance(value, dict):
            parts.append(bytes([_SECTION]) + name + encode(value) + bytes([_SECTION_END]))
        elif isinstance(value, (list, tuple)):
            items = b"".join(bytes([_ITEM]) + _sized(item) for item in value)
            parts.append(bytes([_LIST]) + name + items + bytes([_LIST_END]))
        else:
            parts.append(bytes([_VALUE]) + name + _sized(value))
    return b"".join(parts)


def _sized(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(raw)) + raw


def decode(data: bytes) -> dict[str, Any]:
    """Read a message; values come as text. Raises ValueError when it is malformed."""
    try:
        message, end = _section(data, 0)
    except (IndexError, struct.error):
        raise ValueError("a VICI message that breaks off") from None
    if end != len(data):
        raise ValueError("a VICI message with something behind its end")
    return message


def _section(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    message: dict[str, Any] = {}
    while at < len(data):
        kind, at = data[at], at + 1
        if kind == _SECTION_END:
            break
        key, at = _text(data, at + 1, data[at])
        if kind == _SECTION:
            message[key], at = _section(data, at)
        elif kind == _VALUE:
            message[key], at = _sized_text(data, at)
        elif kind == _LIST:
            message[key] = items = []
            while data[at] == _ITEM:
                item, at = _sized_text(data, at + 1)
                items.append(item)
            at += 1
        else:
            raise ValueError(f"a VICI message with an element of kind {kind}")
    return message, at


def _sized_text(data: bytes, at: int) -> tuple[str, int]:
    return _text(data, at + 2, struct.unpack_from("!H", data, at)[0])


def _text(data: bytes, at: int, length: int) -> tuple[str, int]:
    if at + length > len(data):
        raise ValueError("a VICI message that breaks off")
    return data[at : at + length].decode(errors="replace"), at + length


class Channel:
    """One connection: either for requests, one after another, or for events. Close it, or use it by `async with`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, path: str) -> Self:
        try:
            return cls(*await asyncio.open_unix_connection(path))
        except OSError as error:
            raise ViciError(f"charon can't be reached: {error.strerror}") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._writer.close()

    async def call(
        self,
        command: str,
        message: Mapping[str, Any] | None = None,
        *,
        event: str = "",
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Ask charon for something; `event` is what it streams meanwhile. Raises ViciError when it fails."""
        if event:
            await self.register([event])
        name = command.encode()
        await self._send(bytes([_REQUEST, len(name)]) + name + encode(message or {}))
        while True:
            kind, body = await self._receive()
            if kind == _EVENT and on_event:
                on_event(_event(body)[1])
            elif kind == _RESPONSE:
                answer = decode(body)
                if answer.get("success") == "no":
                    raise ViciError(answer.get("errmsg") or f"{command} failed")
                return answer
            elif kind != _EVENT:
                raise ViciError(f"charon does not know the command {command}")

    async def register(self, events: Iterable[str]) -> None:
        """Ask for events; from the return on none is missed."""
        for event in events:
            name = event.encode()
            await self._send(bytes([_REGISTER, len(name)]) + name)
            kind, _ = await self._receive()
            if kind != _CONFIRM:
                raise ViciError(f"charon does not know the event {event}")

    async def event(self) -> Event:
        """Wait for the next event that was asked for. Raises ViciError when charon goes away."""
        while True:
            kind, body = await self._receive()
            if kind == _EVENT:
                return _event(body)

    async def _send(self, body: bytes) -> None:
        try:
            self._writer.write(struct.pack("!I", len(body)) + body)
            await self._writer.drain()
        except OSError:
            raise ViciError("charon closed its control connection") from None

    async def _receive(self) -> tuple[int, bytes]:
        try:
            length = struct.unpack("!I", await self._reader.readexactly(4))[0]
            body = await self._reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            raise ViciError("charon closed its control connection") from None
        return body[0], body[1:]


def _event(body: bytes) -> Event:
    name, at = _text(body, 1, body[0])
    return name, decode(body[at:])
