"""A WireGuard client: its sessions, and when it begins new ones. Time and datagrams in, datagrams out; no network.

The rules and their names are those of WireGuard's paper, section 6. There is no window against replays: nobody replays
packets here.
"""

from __future__ import annotations

import math
import random
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import noise

if TYPE_CHECKING:
    from collections.abc import Callable

REKEY_AFTER, REJECT_AFTER = 120.0, 180.0  # seconds that a session has been there
REKEY_TIMEOUT, REKEY_ATTEMPT = 5.0, 90.0  # between two attempts, and to their end
KEEPALIVE_TIMEOUT = 10.0
JITTER = 1 / 3
COOKIE_LIFE = 120.0
MOST_STAGED = 128  # packets that wait for a session
TAI64 = (1 << 62) + 10


@dataclass
class Session:
    keys: noise.Keys
    own: int  # our index of it
    theirs: int
    since: float
    initiator: bool  # we began
    counter: int = 0


class Peer:
    """One client of one server. What it sends stands in the lists that are returned."""

    def __init__(
        self,
        own: noise.Identity,
        *,
        keepalive: float = math.inf,
        chance: random.Random | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`keepalive`: after so many seconds without a packet one is sent; `clock` stamps handshakes."""
        self._own = own
        self._keepalive = keepalive
        self._chance = chance or random.Random()  # noqa: S311 - jitter, not a secret
        self._clock = clock
        self._stamp = bytes(noise.TIMESTAMP)  # the highest that came
        self._staged: deque[bytes] = deque(maxlen=MOST_STAGED)
        self._pending: tuple[int, noise.Initiator] | None = None
        self._previous: Session | None = None
        self._current: Session | None = None
        self._next: Session | None = None  # we answered, and it has not been used yet
        self._mac1: dict[int, bytes] = {}  # of the last handshake's messages, by our index
        self._cookie, self._cookie_until = b"", -math.inf
        # When to do what, unless something happens before.
        self._retry = self._give_up = self._silent = self._passive = self._persistent = math.inf
        # What happened so far.
        self.begun = self.answered = self.cookies = self.silences = 0

    @property
    def session(self) -> Session | None:
        """Give the session that what is sent now belongs to."""
        return self._current

    @property
    def wake(self) -> float:
        """Tell when `tick` has to be called."""
        return min(self._retry, self._silent, self._passive, self._persistent)

    def send(self, now: float, packet: bytes) -> list[bytes]:
        """Send an IP packet, as soon as there is a session."""
        self._staged.append(packet)
        return self._flush(now)

    def tick(self, now: float) -> list[bytes]:
        """Do what is due."""
        out: list[bytes] = []
        if now >= self._retry:
            if now >= self._give_up:
                self._pending, self._retry = None, math.inf
                self._staged.clear()
            else:
                out += self._initiate(now)
        if now >= self._silent:
            self._silent = math.inf
            self.silences += 1
            out += self._begin(now)
        if now >= min(self._passive, self._persistent):
            self._passive = self._persistent = math.inf
            out += self._keep_alive(now)
        return out

    def receive(self, now: float, message: bytes) -> tuple[list[bytes], list[bytes]]:
        """Take a datagram: give the IP packet in it, if one is, and what is sent. Raises noise.RefusedError."""
        kind = struct.unpack_from("<I", message)[0] if len(message) >= noise.HEADER_BYTES else 0
        if kind == noise.TRANSPORT:
            return self._transport(now, message)
        if kind == noise.INITIATION and len(message) == noise.INITIATION_BYTES:
            return [], self._answer(now, message)
        if kind == noise.RESPONSE and len(message) == noise.RESPONSE_BYTES:
            return [], self._finish(now, message)
        if kind == noise.COOKIE and len(message) == noise.COOKIE_BYTES:
            mac1 = self._mac1.get(struct.unpack_from("<I", message, 4)[0])
            if mac1 is None:
                raise noise.RefusedError("a cookie for none of our messages")
            self._cookie, self._cookie_until = noise.cookie_in(self._own, message, mac1), now + COOKIE_LIFE
            self.cookies += 1
            return [], []  # what it was asked for goes out with the next message, at that one's time
        raise noise.RefusedError("no message of WireGuard's")

    # Handshakes

    def _begin(self, now: float) -> list[bytes]:
        """Begin a handshake, unless one was begun a moment ago."""
        if self._retry < math.inf:
            return []
        self._give_up = now + REKEY_ATTEMPT
        return self._initiate(now)

    def _initiate(self, now: float) -> list[bytes]:
        seconds, nanoseconds = divmod(self._clock(), 10**9)
        index, handshake = self._new_index(), noise.Initiator(self._own)
        self._pending = index, handshake
        self._retry = now + REKEY_TIMEOUT + self._jitter()
        self.begun += 1
        said = handshake.begin(struct.pack(">QI", TAI64 + seconds, nanoseconds))
        return [self._proven(now, index, noise.initiation(index, said))]

    def _answer(self, now: float, message: bytes) -> list[bytes]:
        if not noise.is_meant(self._own, message):
            raise noise.RefusedError("a handshake for somebody else")
        handshake = noise.Responder(self._own)
        stamp = handshake.read(message[8 : -2 * noise.MAC])
        if stamp <= self._stamp:
            raise noise.RefusedError("an old handshake")
        self._stamp = stamp
        said, keys = handshake.answer()
        index, theirs = self._new_index(), struct.unpack_from("<I", message, 4)[0]
        self._next = Session(keys, index, theirs, now, initiator=False)
        self._pending = None  # of two at a time the later one counts
        self.answered += 1
        self._heard()
        return [self._proven(now, index, noise.response(index, theirs, said))]

    def _finish(self, now: float, message: bytes) -> list[bytes]:
        theirs, index = struct.unpack_from("<II", message, 4)
        if self._pending is None or self._pending[0] != index or not noise.is_meant(self._own, message):
            raise noise.RefusedError("an answer to nothing")
        handshake, self._pending = self._pending[1], None
        _, keys = handshake.finish(message[12 : -2 * noise.MAC])
        self._previous, self._next = self._current, None
        self._current = Session(keys, index, theirs, now, initiator=True)
        self._complete()
        # The other side may use it only after a packet of ours.
        return self._flush(now) if self._staged else self._keep_alive(now)

    def _complete(self) -> None:
        self._retry = self._give_up = math.inf
        self._heard()

    def _proven(self, now: float, index: int, message: bytes) -> bytes:
        cookie = self._cookie if now < self._cookie_until else None
        proven = noise.with_macs(self._own, message, cookie)
        self._mac1 = {index: noise.mac1_of(proven)}
        self._passive = math.inf
        return proven

    def _new_index(self) -> int:
        return self._chance.getrandbits(32)

    def _jitter(self) -> float:
        return self._chance.uniform(0, JITTER)

    # Packets

    def _flush(self, now: float) -> list[bytes]:
        """Send what is staged, or begin a handshake for it."""
        session = self._current
        if session is None or now - session.since >= REJECT_AFTER:
            return self._begin(now)
        out = [self._sealed(now, session, packet) for packet in self._staged]
        self._staged.clear()
        self._silent = min(self._silent, now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + self._jitter())
        if session.initiator and now - session.since >= REKEY_AFTER:
            out += self._begin(now)
        return out

    def _keep_alive(self, now: float) -> list[bytes]:
        if self._current is None or now - self._current.since >= REJECT_AFTER:
            return self._begin(now)
        return [self._sealed(now, self._current, b"")]

    def _sealed(self, now: float, session: Session, packet: bytes) -> bytes:
        self._passive, self._persistent = math.inf, now + self._keepalive
        session.counter += 1
        return noise.transport(session.keys, session.theirs, session.counter - 1, packet)

    def _transport(self, now: float, message: bytes) -> tuple[list[bytes], list[bytes]]:
        index = struct.unpack_from("<I", message, 4)[0]
        known = (each for each in (self._current, self._next, self._previous) if each and each.own == index)
        session = next(known, None)
        if session is None or now - session.since >= REJECT_AFTER:
            raise noise.RefusedError("a packet of no session")
        packet = noise.opened(session.keys, message)
        out: list[bytes] = []
        self._heard()
        if session is self._next:
            self._previous, self._current, self._next = self._current, session, None
            self._complete()
            out = self._flush(now) if self._staged else []
        last_call = REJECT_AFTER - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
        if session is self._current and session.initiator and now - session.since >= last_call:
            out += self._begin(now)
        self._persistent = now + self._keepalive
        if packet and not out:
            self._passive = min(self._passive, now + KEEPALIVE_TIMEOUT)
        return [packet] if packet else [], out

    def _heard(self) -> None:
        self._silent = math.inf
