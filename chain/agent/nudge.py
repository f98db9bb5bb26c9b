"""End the TCP connections of an exit that is dead, those too that are idle.

What a client sends on such a connection is answered by a reset. One that sends nothing is asked to: by one
acknowledgement that fits nothing, under its peer's address, to which every TCP answers with where it stands (RFC 9293,
3.10.7.4).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from chain.contract import MARK_NUDGE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chain.agent.netfilter import Flow

_ACK = 0x10
_IP = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")
_TTL = 64


def packet(flow: Flow) -> bytes:
    """Make the acknowledgement, as if from the connection's far end."""
    length = _IP.size + _TCP.size
    # The kernel fills in the IP header's checksum and identification.
    header = _IP.pack(0x45, 0, length, 0, 0, _TTL, socket.IPPROTO_TCP, 0, flow.destination, flow.source)
    fields = (flow.destination_port, flow.source_port, 0, 0, _TCP.size // 4 << 4, _ACK, 0)
    pseudo = flow.destination + flow.source + struct.pack("!HH", socket.IPPROTO_TCP, _TCP.size)
    return header + _TCP.pack(*fields, _checksum(pseudo + _TCP.pack(*fields, 0, 0)), 0)


class Nudger:
    def __init__(self) -> None:
        """Raise OSError without the capability NET_RAW."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socket.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_NUDGE)

    def nudge(self, flows: Iterable[Flow]) -> None:
        """Send one to each client."""
        for flow in flows:
            # A client that is gone, or too many at once: the others are to be told all the same.
            with contextlib.suppress(OSError):
                self._socket.sendto(packet(flow), (socket.inet_ntoa(flow.source), 0))


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
