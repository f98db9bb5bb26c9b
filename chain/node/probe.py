"""Ask through the tunnel whether anybody is there, and how large a packet may be: ICMP echo. And why nobody is.

It needs no capability beyond NET_ADMIN's mark: datagram sockets for ICMP are everybody's, raw ones are not.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chain.contract import MARK_PROBE, MARK_TUNNEL
from chain.node.kinds import causes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chain.node.kinds.causes import Diagnosis

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_WORD = b"chain"
_HEADERS = 20 + 8  # IPv4 and ICMP
# Linux's own names for these, which Python's socket module does not have.
_IP_MTU_DISCOVER, _PMTUDISC_PROBE, _IP_RECVERR = 10, 3, 11
_EXTENDED_ERROR = struct.Struct("=IBBBBII")  # and behind it the address of whoever sent the ICMP error
_OBJECTION_SECONDS = 1.0
_OWN_ERRORS = (errno.ENETUNREACH, errno.EPERM, errno.EACCES, errno.EADDRNOTAVAIL)  # which nobody else has sent
_REFUSAL_SECONDS = 3.5  # time for a first packet that gets lost, and for the second to be answered

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
STREAM_BUFFER = 1 << 20  # bytes that a stream may hold before whoever reads it has taken them
SMALLEST = 576  # bytes: what chain.yaml takes for an `mtu`
TRIES = 3


async def ping(target: str, interface: str, sequence: int, timeout: float, size: int = 0) -> float | None:  # noqa: ASYNC109 - the caller's budget
    """Send one echo request through `interface`; give the round-trip time in seconds, or None when none came back.

    Without an interface it goes where probes are routed.

    With a size it is an IP packet of so many bytes, which nobody on the way may cut in pieces.
    """
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as channel:
            channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_PROBE)
            if interface:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            if size:  # whatever the kernel believes of the way's MTU
                channel.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
            started = time.monotonic()
            # The kernel fills in identifier and checksum of such a socket, and gives it its own replies only.
            packet = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, 0, sequence & 0xFFFF) + _WORD
            packet += bytes(max(0, size - _HEADERS - len(_WORD)))
            await loop.sock_sendto(channel, packet, (target, 0))
            async with asyncio.timeout(timeout):
                while True:
                    answer = await loop.sock_recv(channel, 65535)
                    if answer[0] == _ECHO_REPLY and answer[6:8] == packet[6:8]:
                        return time.monotonic() - started
    except (OSError, TimeoutError):
        return None


async def connect(address: str, port: int, interface: str) -> Stream:
    """Open a TCP connection as `ping` sends: through `interface`, or without one where probes are routed.

    Raises OSError.
    """
    loop = asyncio.get_running_loop()
    channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_PROBE)
        if interface:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        await loop.sock_connect(channel, (address, port))
        return await asyncio.open_connection(sock=channel, limit=STREAM_BUFFER)
    except BaseException:
        channel.close()
        raise


def mtu_of(interface: str) -> int:
    """Give an interface's MTU as it stands: a PPP server may allow less than it was asked for. Raises OSError."""
    return int(Path(f"/sys/class/net/{interface}/mtu").read_text())


async def largest(full: int, passes: Callable[[int], Awaitable[bool]]) -> int | None:
    """Give the size of the largest packet that passes, if it is smaller than `full`.

    None: those pass, or it can't be told. `passes` asks with one packet of that size; a lost one is tried again.
    """

    async def passing(size: int) -> bool:
        for _ in range(TRIES):
            if await passes(size):
                return True
        return False

    if full <= SMALLEST or await passing(full) or not await passing(SMALLEST):
        return None
    low, high = SMALLEST, full  # passes, does not
    while high - low > 1:
        middle = (low + high) // 2
        if await passing(middle):
            low = middle
        else:
            high = middle
    # What was lost by the way only, while it was stalled, is no question of size.
    return None if await passing(full) or not await passing(low) else low


async def objection(server: str, port: int) -> Diagnosis | None:
    """Send the server an empty datagram; say who answers that it can't be delivered, if somebody does.

    The tunnels' own programs do not see such answers: their sockets belong to no one server.
    """
    if ":" in server:  # neither is an exit's server asked for by IPv6, nor would the message be of that form
        return None
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_TUNNEL)
            channel.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            channel.connect((server, port))
            try:
                async with asyncio.timeout(_OBJECTION_SECONDS):
                    await loop.sock_sendall(channel, b"")
                    await loop.sock_recv(channel, 1)
            except OSError as error:
                if not isinstance(error, TimeoutError):
                    return causes.UNREACHABLE.found(
                        sender=_sender(channel), word=_word(error), protocol="UDP", port=port
                    )
    except OSError as error:
        return causes.NO_WAY.found(error=_word(error))
    return None


async def refusal(server: str, port: int, silence: Diagnosis) -> Diagnosis | None:
    """Open a TCP connection with the server and close it; say why that fails, if it does: `silence`, if by nothing."""
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as channel:
            channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_TUNNEL)
            try:
                async with asyncio.timeout(_REFUSAL_SECONDS):
                    await loop.sock_connect(channel, (server, port))
            except TimeoutError:
                return silence
            except OSError as error:
                if error.errno not in _OWN_ERRORS:
                    return causes.UNREACHABLE.found(sender="somebody", word=_word(error), protocol="TCP", port=port)
                raise
    except OSError as error:
        return causes.NO_WAY.found(error=_word(error))
    return None


def _word(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO)


def _sender(channel: socket.socket) -> str:
    """Read from a socket's errors who sent the last one."""
    try:
        _, ancillary, _, _ = channel.recvmsg(1, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return "somebody"
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR) and len(data) >= _EXTENDED_ERROR.size + 8:
            return socket.inet_ntoa(data[_EXTENDED_ERROR.size + 4 : _EXTENDED_ERROR.size + 8])
    return "somebody"
