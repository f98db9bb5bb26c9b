"""Names of tunnel servers → IPv4 addresses, asked of the bootstrap resolvers only.

Docker's own resolver is never used: depending on the host's it leaks the name through the host or can't be reached
from behind the lock. The question carries the tunnel's mark, which alone passes the lock.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import struct

from chain.contract import MARK_TUNNEL

PORT = 53
TYPE_A, TYPE_TXT, CLASS_IN, CLASS_CHAOS = 1, 16, 1, 3
_POINTER = 0xC0  # the two upper bits of a length: the rest of the name stands elsewhere
_ADDRESS_BYTES = 4
_ATTEMPT_SECONDS = 2.0


class ResolveError(RuntimeError):
    """No bootstrap resolver gave an address; the text is what became of each."""


async def resolve(name: str, resolvers: tuple[str, ...]) -> str:
    """Give an address for `name`, which may be one already. Raises ResolveError."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    reasons = []
    for resolver in resolvers:
        try:
            addresses = await asyncio.wait_for(_ask(name, resolver), _ATTEMPT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            reasons.append(f"{resolver}: {str(error) or 'no answer'}")
            continue
        if addresses:
            return addresses[0]
        reasons.append(f"{resolver}: no such name")
    raise ResolveError("; ".join(reasons))


async def _ask(name: str, resolver: str) -> list[str]:
    loop = asyncio.get_running_loop()
    identity = secrets.randbits(16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_TUNNEL)
        await loop.sock_connect(channel, (resolver, PORT))
        await loop.sock_sendall(channel, question(name, identity))
        while True:
            answer = await loop.sock_recv(channel, 4096)
            if answer[:2] == struct.pack("!H", identity):
                return addresses_in(answer)


def question(name: str, identity: int, kind: int = TYPE_A, class_: int = CLASS_IN) -> bytes:
    """Build a recursive query, for A records if not told otherwise (RFC 1035, section 4).

    Raises ValueError when `name` is none.
    """
    encoded = [label.encode("idna") for label in name.rstrip(".").split(".")]
    if not all(encoded):
        raise ValueError("not a host name")
    labels = b"".join(bytes([len(label)]) + label for label in encoded)
    return struct.pack("!HHHHHH", identity, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, class_)


def addresses_in(answer: bytes) -> list[str]:
    """Give the A records of an answer; raises ValueError when it is malformed."""
    return [socket.inet_ntoa(data) for data in _records(answer, TYPE_A, CLASS_IN) if len(data) == _ADDRESS_BYTES]


def texts_in(answer: bytes, class_: int = CLASS_IN) -> list[str]:
    """Give the TXT records of an answer, each one's parts joined; raises ValueError when it is malformed."""
    return [_text(data).decode(errors="replace") for data in _records(answer, TYPE_TXT, class_)]


def _text(data: bytes) -> bytes:
    parts, at = [], 0
    while at < len(data):
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(parts)


def _records(answer: bytes, kind: int, class_: int) -> list[bytes]:
    """Give the data of an answer's records of one sort; raises ValueError when it is malformed."""
    try:
        questions, records = struct.unpack_from("!HH", answer, 4)
        at = 12
        for _ in range(questions):
            at = _skip_name(answer, at) + 4
        found = []
        for _ in range(records):
            at = _skip_name(answer, at)
            *sort, _, length = struct.unpack_from("!HHIH", answer, at)
            (data,) = struct.unpack_from(f"{length}s", answer, at + 10)
            if sort == [kind, class_]:
                found.append(data)
            at += 10 + length
    except (struct.error, IndexError):
        raise ValueError("a malformed answer") from None
    return found


def _skip_name(message: bytes, at: int) -> int:
    while length := message[at]:
        if length & _POINTER == _POINTER:
            return at + 2
        at += 1 + length
    return at + 1
