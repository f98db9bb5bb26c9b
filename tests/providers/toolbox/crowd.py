"""Many WireGuard clients in one process, each with a key pair, an address and a socket of its own.

Standard input: a line of JSON with the settings, as `Settings` has them; then a word a line, each answered by a line of
JSON. `count`: how many have been answered, and are back. `look`: that, and how each client is. `mark`: from now on
`back` tells when a client was first answered in a session that is newer than this. `rest`: ask nothing new until all
answers are there, then as `look`, and go on.
Each client asks the internet every so often which address it is seen under, and at once when it has a new session.
Times are those of the kernel's monotonic clock, in milliseconds.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import ipaddress
import json
import math
import resource
import select
import socket
import struct
import sys
import time
from typing import Any, TypedDict

import noise
import peer

ECHO_PORT = 7
FIRST_PORT = 1024  # that the clients send from
EAGER = 0.25  # seconds between two questions, until the first is answered in a session
LATE = 2.0  # seconds after which an answer will not come any more
UDP, IP_HEADER, UDP_HEADER = 17, 20, 8


class Settings(TypedDict):
    server: str  # its public key
    endpoint: tuple[str, int]
    host: str  # whom all ask
    flows: int  # of each client, used in turn
    interval: float  # seconds between two questions of a client
    begin_within: float  # seconds, over which their first ones are spread
    keepalive: float
    clients: list[dict[str, str]]  # name, private_key, preshared_key, address, source


def packet(source: bytes, target: bytes, port: int, data: bytes) -> bytes:
    """Give an IPv4 packet with a datagram in it, which needs no checksum."""
    size = IP_HEADER + UDP_HEADER + len(data)
    head = struct.pack("!BBHIBBH4s4s", 0x45, 0, size, 0, 64, UDP, 0, source, target)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checked = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    return checked + struct.pack("!HHHH", port, ECHO_PORT, UDP_HEADER + len(data), 0) + data


def data_of(packet: bytes, source: bytes) -> bytes:
    """Give what the echo at `source` sent; nothing, of other packets."""
    if len(packet) < IP_HEADER + UDP_HEADER or packet[0] != 0x45 or packet[9] != UDP or packet[12:16] != source:
        return b""
    port, _, length = struct.unpack_from("!HHH", packet, IP_HEADER)
    return packet[IP_HEADER + UDP_HEADER : IP_HEADER + length] if port == ECHO_PORT else b""


class Client:
    def __init__(self, settings: Settings, own: dict[str, str], begin: float) -> None:
        private, preshared, server = (
            base64.b64decode(text) for text in (own["private_key"], own["preshared_key"], settings["server"])
        )
        self.name = own["name"]
        self.peer = peer.Peer(noise.Identity.of(private, server, preshared), keepalive=settings["keepalive"])
        self.channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self.channel.bind((own["source"], 0))
        self._endpoint: tuple[str, int] = (settings["endpoint"][0], settings["endpoint"][1])
        self._address, self._host = ipaddress.ip_address(own["address"]).packed, socket.inet_aton(settings["host"])
        self._flows = settings["flows"]
        self.interval, self._next, self._eager = settings["interval"], begin, False
        self._session: peer.Session | None = None
        self._count = self.answered = 0
        self._last = -1
        self._asked: dict[int, float] = {}
        self._ways: list[tuple[str, float]] = []  # addresses outside, each with the time of the first answer there
        self._mark = math.inf
        self.back: dict[str, Any] | None = None
        self._moved = 0  # times that the server's packets came from elsewhere than ours had gone to

    @property
    def due(self) -> float:
        return min(self._next, self.peer.wake)

    @property
    def waiting(self) -> bool:
        """Tell whether an answer may still come."""
        limit = time.monotonic() - LATE
        return any(asked > limit for asked in self._asked.values())

    def act(self, now: float) -> None:
        """Do what is due."""
        self._send(self.peer.tick(now))
        if now >= self._next:
            self._ask(now)

    def hear(self, now: float) -> None:
        """Take a datagram."""
        try:
            message, source = self.channel.recvfrom(2048)
            packets, replies = self.peer.receive(now, message)
        except (OSError, noise.RefusedError):  # refused by somebody on the way, or of a session that has ended
            return
        if source != self._endpoint:
            self._endpoint = source
            self._moved += 1
        self._send(replies)
        for each in packets:
            self._take(now, data_of(each, self._host))
        if self.peer.session is not self._session:
            self._session, self._eager = self.peer.session, True
            self._ask(now)

    def mark(self, now: float) -> None:
        self._mark, self.back = now, None

    def rest(self, until: float = math.inf) -> None:
        """Ask nothing more, or nothing until then."""
        self._next, self._eager = until, False

    def told(self) -> dict[str, Any]:
        seen = self.peer
        return {
            "endpoint": ":".join(map(str, self.channel.getsockname())),
            "sent": self._count,
            "answered": self.answered,
            "ways": [[address, round(at * 1e3, 1)] for address, at in self._ways],
            "back": self.back,
            "begun": seen.begun,
            "called": seen.answered,
            "cookies": seen.cookies,
            "silences": seen.silences,
            "moved": self._moved,
        }

    def _ask(self, now: float) -> None:
        if self._next == math.inf:
            return
        number = self._count
        self._count, self._asked[number] = number + 1, now
        port = FIRST_PORT + number % self._flows
        self._send(self.peer.send(now, packet(self._address, self._host, port, b"%d" % number)))
        self._next = now + (EAGER if self._eager else self.interval)

    def _take(self, now: float, data: bytes) -> None:
        number, _, seen = data.partition(b" seen ")
        if not seen or (asked := self._asked.pop(int(number), None)) is None:
            return
        self.answered += 1
        if int(number) > self._last:
            self._last = int(number)
            if not self._ways or self._ways[-1][0] != seen.decode():
                self._ways.append((seen.decode(), now))
        session = self._session
        if session is None or asked < session.since:
            return
        if self._eager:
            self._eager, self._next = False, min(asked + self.interval, self._next + self.interval)
        if self.back is None and session.since >= self._mark:
            self.back = {
                "at": round(now * 1e3, 1),
                "session": round(session.since * 1e3, 1),
                "called": not session.initiator,
            }

    def _send(self, messages: list[bytes]) -> None:
        for message in messages:
            with contextlib.suppress(OSError):  # nobody listens, or there is no room: not answered either
                self.channel.sendto(message, self._endpoint)


class Crowd:
    def __init__(self, settings: Settings) -> None:
        begin, count = time.monotonic(), len(settings["clients"])
        pause = settings["begin_within"] / count
        self._clients = [
            Client(settings, own, begin + number * pause) for number, own in enumerate(settings["clients"])
        ]
        self._by_socket = {client.channel.fileno(): number for number, client in enumerate(self._clients)}
        self._poll = select.epoll()
        for number in (*self._by_socket, sys.stdin.fileno()):
            self._poll.register(number, select.EPOLLIN)
        self._planned = [math.inf] * count
        self._plan: list[tuple[float, int]] = []
        for number in range(count):
            self._replan(number)

    def run(self) -> None:
        """Go on until standard input ends."""
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Do what is due, then wait for what comes first; tell whether to go on."""
        now = time.monotonic()
        while self._plan and self._plan[0][0] <= now:
            at, number = heapq.heappop(self._plan)
            if at == self._planned[number]:  # else it was planned anew meanwhile
                self._planned[number] = math.inf
                if self._clients[number].due <= now:
                    self._clients[number].act(now)
                self._replan(number)
        wait = max(0.0, self._plan[0][0] - time.monotonic()) if self._plan else 1.0
        for channel, _ in self._poll.poll(wait):
            if channel == sys.stdin.fileno():
                if not self._obey(sys.stdin.readline().strip()):
                    return False
            else:
                number = self._by_socket[channel]
                self._clients[number].hear(time.monotonic())
                self._replan(number)
        return True

    def _replan(self, number: int) -> None:
        """Plan a client's next act, if it is sooner than what is planned; what turns out to be later is seen then."""
        due = self._clients[number].due
        if due < self._planned[number]:
            self._planned[number] = due
            heapq.heappush(self._plan, (due, number))

    def _obey(self, word: str) -> bool:
        now = time.monotonic()
        if word == "mark":
            for client in self._clients:
                client.mark(now)
        elif word == "rest":
            for client in self._clients:
                client.rest()
            while any(client.waiting for client in self._clients) and self._turn():
                pass
        elif word not in ("count", "look"):
            return False
        found: dict[str, Any] = {
            "now": round(now * 1e3, 1),
            "epoch": time.time() * 1e3 - time.monotonic() * 1e3,  # added to these times it gives those of the calendar
            "processor_ms": round(time.process_time() * 1e3, 1),
            "answered": sum(client.answered > 0 for client in self._clients),
            "back": sum(client.back is not None for client in self._clients),
        }
        if word in ("look", "rest"):
            found["clients"] = {client.name: client.told() for client in self._clients}
        if word == "rest":
            self._go_on()
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        return True

    def _go_on(self) -> None:
        """Have all clients ask again, one after the other."""
        for number, client in enumerate(self._clients):
            client.rest(time.monotonic() + client.interval * number / len(self._clients))
            self._replan(number)


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    crowd = Crowd(json.loads(sys.stdin.readline()))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    crowd.run()


if __name__ == "__main__":
    main()
