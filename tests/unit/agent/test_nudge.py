from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from chain.agent.netfilter import Flow
from chain.agent.nudge import packet

ADDRESSES = st.binary(min_size=4, max_size=4)
PORTS = st.integers(min_value=1, max_value=65535)


@given(ADDRESSES, PORTS, ADDRESSES, PORTS)
def test_it_is_an_acknowledgement_of_the_far_end(source: bytes, own: int, destination: bytes, port: int) -> None:
    made = packet(Flow(source, own, destination, port))
    assert (made[12:16], made[16:20], made[9]) == (destination, source, socket.IPPROTO_TCP)
    segment = made[20:]
    assert struct.unpack("!HH", segment[:4]) == (port, own)
    assert segment[13] == 0x10
    # The one's complement sum over a segment with its right checksum has all bits set (RFC 1071).
    total = sum(struct.unpack("!16H", destination + source + struct.pack("!HH", 6, len(segment)) + segment))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    assert total == 0xFFFF
