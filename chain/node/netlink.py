"""Per-interface IPv4 settings over rtnetlink: works where /proc/sys is read-only, with NET_ADMIN alone."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_RTM_SETLINK, _NLM_F_REQUEST, _NLM_F_ACK, _NLMSG_ERROR = 19, 1, 4, 2
_IFLA_AF_SPEC, _IFLA_INET_CONF, _NESTED = 26, 1, 0x8000
_RTM_NEWLINK, _RTM_DELLINK, _GROUP_LINK, _IFF_LOWER_UP = 16, 17, 1, 0x10000
_FORWARDING, _ACCEPT_REDIRECTS, _SEND_REDIRECTS, _RP_FILTER = 1, 4, 6, 8  # IPV4_DEVCONF_*


def set_forwarding(interface: str, *, on: bool) -> None:
    """Switch IPv4 forwarding of packets that come in by this interface. Raises OSError."""
    _set(interface, {_FORWARDING: int(on)})


def set_lenient(interface: str) -> None:
    """Stop reverse-path checks, which inherited values may ask for, and redirects. Raises OSError."""
    _set(interface, {_RP_FILTER: 0, _ACCEPT_REDIRECTS: 0, _SEND_REDIRECTS: 0})


class Carrier:
    """Whether an interface has somebody at its other end. `changed` is called whenever that becomes another."""

    def __init__(self, interface: str, changed: Callable[[], None]) -> None:
        """Raise OSError if there is no such interface."""
        self._index = socket.if_nametoindex(interface)
        self._changed = changed
        self._channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._channel.bind((0, _GROUP_LINK))
        # Only now, so that no change goes unheard between the two.
        with open(f"/sys/class/net/{interface}/carrier", encoding="ascii") as file:  # noqa: PTH123 - stdlib-small
            self.there = file.read().strip() == "1"
        asyncio.get_running_loop().add_reader(self._channel, self._read)

    def _read(self) -> None:
        try:
            data = self._channel.recv(65536)
        except OSError:  # more than the kernel keeps for us: the next one tells
            return
        at, before = 0, self.there
        while at + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind in (_RTM_NEWLINK, _RTM_DELLINK):
                index, flags = struct.unpack_from("=iI", data, at + 20)
                if index == self._index:
                    self.there = kind == _RTM_NEWLINK and bool(flags & _IFF_LOWER_UP)
            at += (max(length, 16) + 3) & ~3
        if self.there != before:
            self._changed()


def _set(interface: str, values: dict[int, int]) -> None:
    conf = b"".join(_attribute(key, struct.pack("=I", value)) for key, value in values.items())
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(interface), 0, 0)
    body += _attribute(
        _IFLA_AF_SPEC | _NESTED,
        _attribute(socket.AF_INET | _NESTED, _attribute(_IFLA_INET_CONF | _NESTED, conf)),
    )
    header = struct.pack("=IHHII", 16 + len(body), _RTM_SETLINK, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as channel:
        channel.send(header + body)
        answer = channel.recv(4096)
    kind = struct.unpack_from("=H", answer, 4)[0]
    code = struct.unpack_from("=i", answer, 16)[0] if kind == _NLMSG_ERROR else 0
    if code:
        raise OSError(-code, f"{interface}: {os.strerror(-code)}")


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)
