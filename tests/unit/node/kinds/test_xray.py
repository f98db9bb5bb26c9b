from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chain.node import kinds
from chain.node.kinds.xray import config
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris:
    kind: xray
    server: paris.provider.example
    protocol: shadowsocks
    cipher: aes-256-gcm
"""


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", None),
        (b"", None),
    ],
)
def test_a_connection_goes_by_xrays_own_door(
    built: Callable[[str], Topology], monkeypatch: pytest.MonkeyPatch, said: bytes, heard: bytes | None
) -> None:
    kind = kinds.create(built(TEXT).exits[0].settings, {"xray_password": Secret("word")})
    asked: list[bytes] = []

    async def door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(said)
        writer.close()

    async def scene() -> bytes:
        async with await asyncio.start_server(door, config.LOOPBACK) as server:
            monkeypatch.setattr(config, "DOOR_PORT", server.sockets[0].getsockname()[1])
            reader, writer = await kind.connect("192.0.2.7", 53)
            answer = await reader.read()
            writer.close()
            return answer

    if heard is None:
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(scene())
    else:
        assert asyncio.run(scene()) == heard
    assert asked == [b"CONNECT 192.0.2.7:53 HTTP/1.1\r\n\r\n"]
