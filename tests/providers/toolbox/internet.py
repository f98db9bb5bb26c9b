"""The internet of the test ground: says which address it saw, over TCP (80), UDP (7) and DNS (53).

Every answer to a UDP packet holds the packet itself, so that a token comes back. Argument: the own address.
"""

import asyncio
import socket
import struct
import sys

ADDRESS = sys.argv[1]


class Echo(asyncio.DatagramProtocol):
    """Sends every packet back, or, asked for a download, many."""

    def __init__(self) -> None:
        self.downloads: dict[tuple[str, int], asyncio.Task[None]] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        if data.startswith(b"download "):
            _, token, rate, seconds = data.decode().split()
            old = self.downloads.pop(peer, None)
            if old:
                old.cancel()
            self.downloads[peer] = asyncio.create_task(self.send(peer, token.encode(), float(rate), float(seconds)))
        else:
            self.transport.sendto(data + b" seen " + peer[0].encode(), peer)

    async def send(self, peer: tuple[str, int], token: bytes, rate: float, seconds: float) -> None:
        """Send what was asked for, whether anybody still listens or not."""
        for number in range(int(rate * seconds)):
            self.transport.sendto(token + b" download %d" % number, peer)
            await asyncio.sleep(1 / rate)


def dns_answer(question: bytes, peer: str) -> bytes:
    """Answer A with this host, TXT with the address that asked. Every name exists."""
    at = 12
    while question[at]:
        at += 1 + question[at]
    kind = struct.unpack_from("!H", question, at + 1)[0]
    head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if kind in (1, 16) else 0, 0, 0)
    body = question[12 : at + 5]
    if kind == 1:
        data = socket.inet_aton(ADDRESS)
    elif kind == 16:
        data = bytes([len(peer)]) + peer.encode()
    else:
        return head + body
    return head + body + b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(data)) + data


class Dns(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        print(f"dns query from {peer[0]}", flush=True)
        self.transport.sendto(dns_answer(data, peer[0]), peer)


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while (await reader.readline()).strip():
            pass
        body = writer.get_extra_info("peername")[0].encode() + b"\n"
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
    finally:
        writer.close()


async def main() -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Echo, local_addr=(ADDRESS, 7))
    await loop.create_datagram_endpoint(Dns, local_addr=(ADDRESS, 53))
    server = await asyncio.start_server(http, ADDRESS, 80)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
