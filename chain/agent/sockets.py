"""End TCP connections of this container's own programs, over netlink, whatever state they are in.

A reset reaches only what is established, and when it next sends. One that is still being opened by a dead exit would
go on asking at ever longer intervals.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

# linux/netlink.h, sock_diag.h, inet_diag.h: names that Python's socket module does not have.
_NETLINK_SOCK_DIAG = 4
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_BY_FAMILY, _DESTROY = 20, 21
_ESTABLISHED, _SYN_SENT = 1, 2
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBxxI48s")
_IDENTITY = slice(4, 52)  # of a socket, in an answer's body
_SOURCE = slice(4, 8)  # in that
_BUFFER, _PATIENCE = 1 << 16, 5


def end(source: str) -> int:
    """End the connections that come from this IPv4 address; give their number. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _PATIENCE, 0))
        wanted = socket.inet_aton(source)
        found = [identity for identity in _all(channel) if identity[_SOURCE] == wanted]
        for identity in found:
            _ask(channel, _DESTROY, _ACK, identity)
            (code,) = struct.unpack_from("=i", channel.recv(_BUFFER), _HEADER.size)
            if code not in (0, -errno.ENOENT):  # it has ended by itself meanwhile
                raise OSError(-code, os.strerror(-code))
        return len(found)


def _all(channel: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    _ask(channel, _BY_FAMILY, _DUMP, bytes(48))
    while True:
        data, at = channel.recv(_BUFFER), 0
        while at < len(data):
            length, what, *_ = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3
            if what == _DONE:
                return found
            if what == _ERROR:
                (code,) = struct.unpack_from("=i", body)
                raise OSError(-code, os.strerror(-code))
            found.append(body[_IDENTITY])


def _ask(channel: socket.socket, kind: int, flags: int, identity: bytes) -> None:
    states = 1 << _ESTABLISHED | 1 << _SYN_SENT
    body = _QUESTION.pack(socket.AF_INET, socket.IPPROTO_TCP, states, identity)
    channel.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 0, 0) + body)
