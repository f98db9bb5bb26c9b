"""What the kernel's netfilter knows, asked over netlink by hand.

A library for all of netlink takes a third of a millisecond for each connection, and thousands have to be ended at once;
and it takes as much memory as all else in the agent.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from chain.node.lock import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/netlink.h, nfnetlink.h, nf_tables.h, nfnetlink_conntrack.h: names that Python's socket module does not have.
_NETLINK_NETFILTER = 12
_REQUEST, _DUMP = 0x1, 0x300
_DONE, _ERROR = 3, 2
_CONNTRACK, _GET_CONNTRACK = 1, 1
_NFTABLES, _GET_OBJECT = 10, 19
_FAMILY_INET = 1
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA, _COUNTER = 1, 2, 3, 4, 1
_COUNTER_PACKETS = 2
_TUPLE_ORIGINAL, _MARK, _MARK_MASK, _FILTER = 1, 8, 21, 25
_FILTER_ORIGINAL, _BY_PROTOCOL = 1, 1 << 3
_TUPLE_ADDRESSES, _TUPLE_PROTOCOL = 1, 2
_STATE, _TCP, _TCP_STATE = 4, 1, 1
_OVER = 7, 8  # linux/netfilter/nf_conntrack_tcp.h: TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE
_SOURCE, _DESTINATION = 1, 2
_PROTOCOL, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_NESTED = 0x8000
_KIND = 0x3FFF  # of an attribute's type; the rest says that it is nested, or in network order

_HEADER = struct.Struct("=IHHII")
_GENERAL = struct.Struct("!BBH")
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER = 1 << 16
PATIENCE = 5  # seconds


class Flow(NamedTuple):  # thousands are made at once
    """A TCP connection, from whom and to whom it was opened. IPv4."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int


class Netfilter:
    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        # It answers at once; a message that is lost is not to stop everything.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", PATIENCE, 0))
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def counters(self) -> dict[str, int]:
        """Give the packets counted by each of the lock's named counters. Raises OSError."""
        wanted = _attribute(_OBJECT_TABLE, TABLE.partition(" ")[2].encode() + b"\0")
        wanted += _attribute(_OBJECT_TYPE, struct.pack("!I", _COUNTER))
        found = {}
        for message in self._dump(_NFTABLES, _GET_OBJECT, _FAMILY_INET, wanted):
            fields = _attributes(message)
            name = fields[_OBJECT_NAME].rstrip(b"\0").decode()
            found[name] = int.from_bytes(_attributes(fields[_OBJECT_DATA])[_COUNTER_PACKETS])
        return found

    def tcp_flows(self, mark: int) -> Iterator[Flow]:
        """Give the TCP connections that carry this mark and are not over, as the kernel lists them. Raises OSError.

        Nothing else may be asked meanwhile.
        """
        wanted = _attribute(_MARK, struct.pack("!I", mark)) + _attribute(_MARK_MASK, b"\xff" * 4) + _ONLY_TCP
        for message in self._dump(_CONNTRACK, _GET_CONNTRACK, socket.AF_INET, wanted):
            fields = _attributes(message, until=_STATE)
            tuples = _attributes(fields[_TUPLE_ORIGINAL])
            ports = _attributes(tuples[_TUPLE_PROTOCOL])
            if ports[_PROTOCOL][0] != socket.IPPROTO_TCP:
                continue  # from a kernel before 5.8, which does not know that filter
            if _state(fields) in _OVER:
                continue  # a nudge would only have the kernel remember it for longer
            addresses = _attributes(tuples[_TUPLE_ADDRESSES])
            yield Flow(
                addresses[_SOURCE],
                int.from_bytes(ports[_SOURCE_PORT]),
                addresses[_DESTINATION],
                int.from_bytes(ports[_DESTINATION_PORT]),
            )

    def _dump(self, subsystem: int, kind: int, family: int, wanted: bytes) -> Iterator[bytes]:
        """Give the attributes of each message of the answer."""
        self._sequence += 1
        body = _GENERAL.pack(family, 0, 0) + wanted
        self._socket.send(
            _HEADER.pack(_HEADER.size + len(body), subsystem << 8 | kind, _REQUEST | _DUMP, self._sequence, 0) + body
        )
        while True:
            data, at = self._socket.recv(_BUFFER), 0
            while at < len(data):
                length, what, _, sequence, _ = _HEADER.unpack_from(data, at)
                begin, end = at + _HEADER.size, at + length
                at += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # the end of an answer that was given up
                if what == _DONE:
                    return
                if what == _ERROR:
                    (code,) = struct.unpack_from("=i", data, begin)
                    raise OSError(-code, "netfilter")
                yield data[begin + _GENERAL.size : end]


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


# Thousands of UDP's flows, most of them over, would take the time of what has to be ended now.
_ONLY_TCP = _attribute(
    _TUPLE_ORIGINAL, _attribute(_TUPLE_PROTOCOL, _attribute(_PROTOCOL, bytes([socket.IPPROTO_TCP])))
) + _attribute(_FILTER | _NESTED, _attribute(_FILTER_ORIGINAL, struct.pack("=I", _BY_PROTOCOL)))


def _state(fields: dict[int, bytes]) -> int:
    """Give the state of a listed TCP connection; 0 where the kernel does not say it."""
    tcp = _attributes(fields.get(_STATE, b"")).get(_TCP, b"")
    return (_attributes(tcp).get(_TCP_STATE) or b"\0")[0]


def _attributes(data: bytes, until: int | None = None) -> dict[int, bytes]:
    """Give the attributes, up to that one: what nobody asks for takes as long to read as the rest."""
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        kind &= _KIND
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        if kind == until:
            break
        at += (length + 3) & ~3
    return found
