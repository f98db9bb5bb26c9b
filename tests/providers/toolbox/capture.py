"""Look for a token in every packet on every interface of the engine's host, from its own network namespace.

`capture.py TOKEN FILE`: prints `ready` once it sees everything; on SIGTERM writes one JSON object to FILE: packets
looked at, packets that there was no room or no time to look at, and per bridge (or interface outside any bridge) how
often the token was seen, with some of those packets. Which bridges may show it in clear is the reader's business.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 263, 6, 33
RECEIVE_BUFFER = 64 << 20
SNAP = 2048  # whole packets: an ICMP error quotes its packet after 28 bytes of headers
API_PORT = 2375
SAMPLES = 5
LINGER = 0.5  # seconds that packets still on their way are waited for
DRAIN = 20.0  # seconds for what the kernel has kept until then
GONE = "an interface that is gone"


class Interfaces:
    """Interface → its bridge, or itself. Looked up at first sight, since a container's interfaces come and go."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def place(self, name: str) -> str:
        if name not in self._known:
            try:
                self._known[name] = Path("/sys/class/net", name, "master").readlink().name
            except OSError:
                self._known[name] = name
        return self._known[name]


def is_engine_call(packet: bytes) -> bool:
    """Tell the engine's API from traffic: it carries tests' commands, tokens among them, where it is reached by TCP."""
    if packet[12:14] != b"\x08\x00" or packet[23] != socket.IPPROTO_TCP:
        return False
    start = 14 + (packet[14] & 15) * 4
    return API_PORT in struct.unpack_from("!HH", packet, start)


class Arrivals:
    """All packets, with their interface and kind, until a while after the order to stop."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._stopping: list[int] = []
        self._looked_at, self._in_time = 0, True
        signal.signal(signal.SIGTERM, lambda number, _: self._stopping.append(number))
        channel.settimeout(0.2)

    def __iter__(self) -> Iterator[tuple[bytes, str, int]]:
        end = 0.0
        while self._in_time:
            try:
                packet, (name, _, kind, _, _) = self._channel.recvfrom(SNAP)
            except BlockingIOError:
                return  # all that was kept has been looked at
            except OSError:  # nothing came, or an interface went away while it was read
                packet = b""
            if packet:
                self._looked_at += 1
                yield packet, name, kind
            if self._stopping:
                now = time.monotonic()
                end = end or now + LINGER
                self._in_time = now < end + DRAIN
                if now > end and self._channel.gettimeout():
                    self._channel.setblocking(False)  # noqa: FBT003 - the socket module's signature

    def counts(self) -> dict[str, int]:
        """Give how many packets were looked at, and how many were not."""
        arrived, dropped = struct.unpack("II", self._channel.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        return {"packets": self._looked_at, "dropped": dropped if self._in_time else arrived - self._looked_at}


def main() -> None:
    token, output = sys.argv[1].encode(), Path(sys.argv[2])
    channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    channel.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    arrivals, interfaces = Arrivals(channel), Interfaces()
    seen: dict[str, int] = {}
    samples: dict[str, list[str]] = {}
    output.with_suffix(".pid").write_text(str(os.getpid()))
    print("ready", flush=True)
    for packet, name, kind in arrivals:
        if token not in packet or is_engine_call(packet):
            continue
        place = interfaces.place(name) if name else GONE
        seen[place] = seen.get(place, 0) + 1
        if len(samples.setdefault(place, [])) < SAMPLES:
            samples[place].append(f"{time.time():.3f} {name} type {kind} {packet[:48].hex()}")
    report = arrivals.counts() | {"seen": seen, "samples": samples}
    temporary = output.with_suffix(".part")
    temporary.write_text(json.dumps(report))
    temporary.replace(output)


if __name__ == "__main__":
    main()
