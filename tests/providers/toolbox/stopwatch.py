"""A client that notices every gap: in one UDP stream that goes on and on, in new flows, and in idle connections.

Arguments: the internet's address, packets a second, idle TCP connections, new flows a second, token.
It answers a line on its standard input with a line of JSON of what happened since the line before: gaps of the stream
and of the new flows, resets, and the median of what answers took. The line `anew` has it begin the stream and the idle
connections anew, so that they go the way of what is new.
Times are those of the kernel's monotonic clock, in milliseconds, and the same in all containers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import select
import socket
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

HOST, RATE, IDLE, FLOWS, TOKEN = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
ECHO_PORT = 7
FLOW_LIFE = 3.0  # seconds that one waits for its answer
OVERTAKEN_MS = 20.0  # that an answer may take longer than the one that overtook it
# Of streams, each its own, also of several runs: while a flow is remembered, what has its port goes its way.
STREAM_PORTS = range(20000, 30000)


def clock() -> float:
    return time.monotonic() * 1e3


@dataclass
class Gap:
    sent: dict[int, float]  # what was not answered, and when it was sent
    until: float
    took: float  # the answer that ended it

    def told(self) -> dict[str, float]:
        return {"from": min(self.sent.values()), "until": self.until, "lost": len(self.sent)}


@dataclass
class Series:
    """Numbered packets, and which of them were answered: what was not, between two that were, is a gap.

    What a later one has just overtaken is answered all the same: new flows that begin together go their own ways.
    """

    sent: dict[int, float] = field(default_factory=dict)  # not answered yet, and when
    last: int = -1  # the last number that was answered
    answered_at: float = 0.0  # when that one was sent
    count: int = 0
    told_of: int = 0
    answers: int = 0
    late: int = 0  # answered after a later one
    took: list[float] = field(default_factory=list)  # milliseconds until the answer
    gaps: list[Gap] = field(default_factory=list)

    def ask(self) -> int:
        self.sent[self.count] = clock()
        self.count += 1
        return self.count - 1

    def answer(self, number: int) -> None:
        began = self.sent.pop(number, None)
        if began is None:
            return
        self.answers += 1
        self.took.append(clock() - began)
        if number < self.last:
            self.late += 1
            for gap in self.gaps:
                if clock() - began <= gap.took + OVERTAKEN_MS:
                    gap.sent.pop(number, None)
            return
        if missing := {each: self.sent[each] for each in range(self.last + 1, number) if each in self.sent}:
            self.gaps.append(Gap(missing, clock(), clock() - began))
        self.last, self.answered_at = number, began

    def forget(self) -> None:
        """Forget what will not be answered any more."""
        limit = clock() - FLOW_LIFE * 1e3
        for number in [each for each, at in self.sent.items() if at < limit and each < self.last]:
            del self.sent[number]

    def told(self) -> dict[str, Any]:
        found = {
            "sent": self.count - self.told_of,
            "answered": self.answers,
            "late": self.late,
            "gaps": [gap.told() for gap in self.gaps if gap.sent],
            "median_ms": statistics.median(self.took) if self.took else None,
            "answered_at": self.answered_at,  # when the last one that was answered had been sent
        }
        self.told_of, self.answers, self.late, self.gaps, self.took = self.count, 0, 0, [], []
        return found


class Stopwatch:
    def __init__(self) -> None:
        self.stream, self.flows = Series(), Series()
        self.resets: list[dict[str, float]] = []
        self._poll = select.epoll()
        self._ports = itertools.islice(itertools.cycle(STREAM_PORTS), int(time.monotonic()) % len(STREAM_PORTS), None)
        self._channel = self._new_channel()
        self._open: dict[int, tuple[int, float, socket.socket]] = {}  # new flows, until they are answered or old
        self._connecting: dict[int, socket.socket] = {}
        self._idle: dict[int, tuple[float, socket.socket]] = {}
        self._poll.register(sys.stdin, select.EPOLLIN)

    def _new_channel(self) -> socket.socket:
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        channel.setblocking(False)  # noqa: FBT003 - the socket module's signature
        channel.bind(("", next(self._ports)))
        channel.connect((HOST, ECHO_PORT))
        self._poll.register(channel, select.EPOLLIN)
        return channel

    def _begin_anew(self) -> None:
        self._channel.close()
        for connection in (*self._connecting.values(), *(each for _, each in self._idle.values())):
            connection.close()
        self._connecting, self._idle = {}, {}
        self._channel, self.stream = self._new_channel(), Series()

    def run(self) -> None:
        """Go on until standard input ends."""
        next_stream = next_flow = next_idle = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_stream:
                with contextlib.suppress(OSError):  # refused, or no buffer left: no answer either
                    self._channel.send(f"{TOKEN} {self.stream.ask()} ".encode())
                next_stream = max(next_stream + 1 / RATE, now - 0.05)
            if now >= next_flow:
                self._begin_flow(now)
                next_flow = max(next_flow + 1 / FLOWS, now - 0.05)
            if len(self._idle) + len(self._connecting) < IDLE and now >= next_idle:
                self._connect()
                next_idle = now + 0.005
            for number, _ in self._poll.poll(max(0.0, min(next_stream, next_flow) - time.monotonic())):
                if number == sys.stdin.fileno():
                    line = sys.stdin.readline()
                    if not line:
                        return
                    if line == "anew\n":
                        self._begin_anew()
                    print(json.dumps(self._told()), flush=True)
                    break  # what else was heard may be of sockets that are closed by now; it is heard again
                self._hear(number)

    def _begin_flow(self, now: float) -> None:
        number, flow = self.flows.ask(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        flow.setblocking(False)  # noqa: FBT003 - likewise
        with contextlib.suppress(OSError):
            flow.connect((HOST, ECHO_PORT))
            flow.send(f"{TOKEN} {number} ".encode())
        self._poll.register(flow, select.EPOLLIN)
        self._open[flow.fileno()] = number, now, flow
        for place, (_, began, old) in list(self._open.items()):
            if began > now - FLOW_LIFE:
                break  # they stand in order
            del self._open[place]
            old.close()
        self.stream.forget()
        self.flows.forget()

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)  # noqa: FBT003 - likewise
        connection.connect_ex((HOST, ECHO_PORT))
        self._connecting[connection.fileno()] = connection
        self._poll.register(connection, select.EPOLLOUT)

    def _hear(self, number: int) -> None:
        if number == self._channel.fileno():
            with contextlib.suppress(OSError):
                while True:
                    # The answer holds our own packet.
                    self.stream.answer(int(self._channel.recv(2048).split(b" ")[1]))
        elif number in self._open:
            of, _, flow = self._open.pop(number)
            with contextlib.suppress(OSError):
                flow.recv(2048)
                self.flows.answer(of)
            flow.close()
        elif number in self._connecting:
            connection = self._connecting.pop(number)
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                connection.close()
            else:
                self._idle[number] = clock(), connection
                self._poll.modify(connection, select.EPOLLIN)
        elif number in self._idle:  # nothing is ever sent to these: this is their end
            opened, connection = self._idle.pop(number)
            connection.close()
            self.resets.append({"opened": opened, "reset": clock()})

    def _told(self) -> dict[str, Any]:
        resets, self.resets = self.resets, []
        return {
            "now": clock(),
            "epoch": time.time() * 1e3 - clock(),  # what is added to these times gives those of the calendar
            "stream": self.stream.told(),
            "flows": self.flows.told(),
            "idle": len(self._idle),
            "resets": resets,
        }


# Flows without an answer are held for seconds, and many a shell allows 1024 files.
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
stopwatch = Stopwatch()
print("ready", flush=True)
stopwatch.run()
