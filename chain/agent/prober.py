"""The agent's own questions through the exits, on the whole way that clients' packets take.

They are pings, or questions for names where a tunnel carries no pings. A question's number comes back with its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_WORD = b"chain"
DNS_PORT = 53
# Who answers for the root: every resolver knows.
_QUESTION = struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack("!HH", 2, 1)
_DNS_HEADER, _IS_ANSWER = 12, 0x80
_MANY = 64  # answers that are taken in one go
_LONGEST = 1500


class Prober:
    """One exit's questions of one kind. `answered(number, at)` is told of each answer, on the monotonic clock."""

    def __init__(self, source: str, mark: int, *, names: bool, answered: Callable[[int, float], None]) -> None:
        """`source`: the address to ask from, so that the exit takes it for a client's. `mark`: the exit's."""
        self._names = names
        self._answered = answered
        protocol = socket.IPPROTO_UDP if names else socket.IPPROTO_ICMP
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, protocol)
        self._socket.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        self._socket.bind((source, 0))
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def ask(self, target: str, number: int) -> None:
        """Send one question; one that can't be sent has no answer, like one that gets lost."""
        if self._names:
            packet = struct.pack("!H", number) + _QUESTION
        else:  # the kernel fills in identifier and checksum of such a socket, and gives it its own answers only
            packet = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, 0, number) + _WORD
        with contextlib.suppress(OSError):
            self._socket.sendto(packet, (target, DNS_PORT if self._names else 0))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_MANY):
            try:
                answer = self._socket.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error is no answer from beyond
            now = time.monotonic()
            if self._names:
                if len(answer) >= _DNS_HEADER and answer[2] & _IS_ANSWER:
                    self._answered(int.from_bytes(answer[:2]), now)
            elif answer[0] == _ECHO_REPLY:
                self._answered(int.from_bytes(answer[6:8]), now)
