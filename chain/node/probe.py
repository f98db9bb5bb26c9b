"""Ask through the tunnel whether anybody is there: ICMP echo, which needs no capability beyond NET_ADMIN's mark."""

from __future__ import annotations

import asyncio
import socket
import struct
import time

from chain.contract import MARK_PROBE

_ECHO_REQUEST, _ECHO_REPLY = 8, 0


async def ping(target: str, interface: str, sequence: int, timeout: float) -> float | None:  # noqa: ASYNC109 - the caller's budget
    """Send one echo request through `interface`; give the round-trip time in seconds, or None when none came back."""
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as channel:
            channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_PROBE)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            started = time.monotonic()
            # The kernel fills in identifier and checksum of such a socket, and gives it its own replies only.
            packet = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, 0, sequence & 0xFFFF) + b"chain"
            await loop.sock_sendto(channel, packet, (target, 0))
            async with asyncio.timeout(timeout):
                while True:
                    answer = await loop.sock_recv(channel, 2048)
                    if answer[0] == _ECHO_REPLY and answer[6:8] == packet[6:8]:
                        return time.monotonic() - started
    except (OSError, TimeoutError):
        return None
