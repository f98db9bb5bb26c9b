"""A client of the crowd and a server, which is one too, at a clock of the test's."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field

import noise
import peer
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

PACKET = b"p" * 40
FILLED = PACKET + bytes(8)


def identities() -> tuple[noise.Identity, noise.Identity]:
    private = os.urandom(32), os.urandom(32)
    public = [X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw() for key in private]
    preshared = os.urandom(32)
    return noise.Identity.of(private[0], public[1], preshared), noise.Identity.of(private[1], public[0], preshared)


@dataclass
class Pair:
    """Two peers and the way between them, on which nothing takes time."""

    own: tuple[noise.Identity, noise.Identity] = field(default_factory=identities)
    now: float = 0.0
    keepalive: float = 1e9
    arrived: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client, self.server = self.made(0), self.made(1)

    def made(self, side: int) -> peer.Peer:
        chance = random.Random(side)  # noqa: S311 - jitter, not a secret
        return peer.Peer(self.own[side], keepalive=self.keepalive, chance=chance, clock=lambda: int(self.now * 1e9))

    def carry(self, messages: list[bytes], to: str) -> None:
        """Carry messages there, and what they are answered with back."""
        for message in messages:
            packets, replies = getattr(self, to).receive(self.now, message)
            self.arrived += [(to, packet) for packet in packets]
            self.carry(replies, "client" if to == "server" else "server")

    def wait(self, who: str) -> list[bytes]:
        """Wait until somebody has something to do; give what it sends."""
        self.now = getattr(self, who).wake
        sent: list[bytes] = getattr(self, who).tick(self.now)
        return sent


@pytest.fixture
def pair() -> Pair:
    """Both, with a session that the client began."""
    made = Pair()
    made.carry(made.client.send(made.now, PACKET), "server")
    assert made.arrived == [("server", FILLED)]
    made.arrived.clear()
    return made


def test_the_first_packet_waits_for_the_session(pair: Pair) -> None:
    assert (pair.client.begun, pair.server.answered) == (1, 1)
    assert pair.client.session is not None
    assert pair.server.session is not None
    assert (pair.client.session.initiator, pair.server.session.initiator) == (True, False)
    pair.carry(pair.server.send(pair.now, PACKET), "client")
    assert pair.arrived == [("client", FILLED)]
    assert pair.client.begun == 1


def test_a_handshake_is_tried_every_five_seconds_for_a_minute_and_a_half() -> None:
    pair = Pair()
    assert len(pair.client.send(0.0, PACKET)) == 1
    assert pair.client.send(4.0, PACKET) == []
    times = []
    while pair.client.wake < float("inf"):
        before = pair.now
        sent = pair.wait("client")
        assert 5.0 <= pair.now - before <= 5.34
        times += [pair.now] if sent else []
    assert len(times) == 17
    assert 90.0 <= pair.now <= 95.4


def test_who_hears_nothing_for_fifteen_seconds_begins_anew(pair: Pair) -> None:
    pair.now = 3.0
    assert len(pair.client.send(pair.now, PACKET)) == 1  # which nobody gets
    before = pair.client.begun
    again = pair.wait("client")
    assert 15.0 <= pair.now <= 15.4  # since the very first, which was not answered either
    assert (pair.client.begun, pair.client.silences) == (before + 1, 1)
    pair.carry(again, "server")
    pair.carry(pair.client.send(pair.now, PACKET), "server")
    assert pair.arrived[-1] == ("server", FILLED)


def test_who_is_heard_is_not_called_silent(pair: Pair) -> None:
    pair.now = 1.0
    pair.carry(pair.server.send(pair.now, PACKET), "client")
    (kept,) = pair.wait("client")
    assert pair.now == 11.0  # what came is acknowledged by an empty packet
    assert len(kept) == 32
    pair.carry([kept], "server")
    assert pair.arrived == [("client", FILLED)]
    assert pair.client.silences == 0


def test_a_session_is_renewed_after_two_minutes_by_who_began_it(pair: Pair) -> None:
    pair.now = 119.0
    assert len(pair.client.send(pair.now, PACKET)) == 1
    pair.now = 121.0
    assert len(pair.server.send(pair.now, PACKET)) == 1
    sent = pair.client.send(pair.now, PACKET)
    assert len(sent) == 2
    pair.carry(sent, "server")
    assert pair.client.session is not None
    assert pair.client.session.since == 121.0
    pair.now = 121.0 + 180.0
    pair.carry(pair.client.send(pair.now, PACKET), "server")  # too old: it waits for a new one
    assert pair.client.session.since == pair.now
    assert [to for to, _ in pair.arrived] == ["server", "server"]


def test_a_server_that_lost_its_sessions_may_begin(pair: Pair) -> None:
    pair.server, pair.now = pair.made(1), 7.0
    lost = pair.client.send(pair.now, PACKET)
    with pytest.raises(noise.RefusedError, match="no session"):
        pair.carry(lost, "server")
    pair.carry(pair.server.send(pair.now, PACKET), "client")
    assert pair.arrived == [("client", FILLED)]
    assert pair.client.session is not None
    assert (pair.client.session.since, pair.client.session.initiator) == (7.0, False)
    pair.carry(pair.client.send(pair.now, PACKET), "server")
    assert pair.arrived[-1] == ("server", FILLED)
    assert pair.client.begun == 1


def test_an_old_handshake_is_refused(pair: Pair) -> None:
    pair.server, pair.now = pair.made(1), 7.0
    first = pair.server.send(pair.now, PACKET)
    pair.carry(first, "client")
    with pytest.raises(noise.RefusedError, match="old"):
        pair.carry(first, "client")


def test_a_cookie_goes_out_with_the_next_attempt(pair: Pair) -> None:
    pair = Pair()
    (first,) = pair.client.send(0.0, PACKET)
    reply = noise.cookie_reply(pair.own[1], int.from_bytes(first[4:8], "little"), noise.mac1_of(first), b"c" * 16)
    assert pair.client.receive(0.1, reply) == ([], [])
    with pytest.raises(noise.RefusedError, match="none of our messages"):
        pair.client.receive(0.1, reply[:4] + b"\0\0\0\0" + reply[8:])
    (second,) = pair.wait("client")
    assert pair.now >= 5.0
    assert (first[-16:], pair.client.cookies) == (bytes(16), 1)
    assert second[-16:] != bytes(16)
    pair.carry([second], "server")
    assert pair.arrived == [("server", FILLED)]


def test_a_quiet_client_keeps_its_way_open() -> None:
    pair = Pair(keepalive=25.0)
    pair.carry(pair.client.send(0.0, PACKET), "server")
    pair.carry(pair.server.send(0.0, PACKET), "client")
    assert [len(each) for each in pair.wait("client")] == [32]
    assert pair.now == 10.0
    assert [len(each) for each in pair.wait("client")] == [32]
    assert pair.now == 35.0


@pytest.mark.parametrize("message", [b"", b"\4", b"\1\0\0\0" + bytes(12), bytes(148), b"\2\0\0\0" + bytes(88)])
def test_what_is_no_message_is_refused(pair: Pair, message: bytes) -> None:
    with pytest.raises(noise.RefusedError):
        pair.client.receive(0.0, message)
