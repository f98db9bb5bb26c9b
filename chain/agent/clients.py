"""Clients: as WireGuard's peers, in groups and buckets, and where they were before a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from chain.agent import aside, choice, endpoints, memory
from chain.contract import CLIENT_INTERFACE, MARK_TUNNEL, MEMORY_DIR, DesiredState, from_data
from chain.node import lock, wireguard
from chain.node.run import CommandError, run
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from chain.contract import Client

FILE = Path(MEMORY_DIR, "endpoints.json")
REMEMBER_INTERVAL = 5.0
CALL_INTERVAL, CALL_SECONDS = 2, 20.0
_AT_ONCE = 200  # clients in one line


class Placed(NamedTuple):
    """All that has to be known of a client that is in: there may be ten thousand."""

    name: str
    public_key: str
    address: str
    group: str
    mark: int  # of its bucket


class Clients:
    def __init__(self) -> None:
        self.placed: list[Placed] = []
        self.kept_out: list[str] = []
        self._proxies: tuple[str, ...] = ()  # from whose addresses Docker's own proxy hands clients over
        self._calling: asyncio.Task[None] | None = None
        self._remembered: dict[str, str] = memory.load(FILE)

    async def place(
        self,
        described: Mapping[str, Any],
        said: bytes,
        private_key: str,
        buckets: Mapping[str, int],
        load: Callable[[str], None],
    ) -> None:
        """Make these clients the interface's peers, and put them into their groups. Raises aside.WorkError.

        `described`: a state without clients; `said`: one line with them and the keys they share with the entry;
        `load`: of one transaction, in a copy of this process.
        """
        work = partial(_place, described, said, private_key, buckets, load)
        found: list[Placed] = []
        known: dict[tuple[str, int], tuple[str, int]] = {}  # so that each of them is kept but once
        async with contextlib.aclosing(aside.lines(work)) as answers:
            kept_out = json.loads(await anext(answers))
            async for line in answers:
                for name, key, address, group, mark in json.loads(line):
                    shared = known.setdefault((group, mark), (group, mark))
                    found.append(Placed(name, key, address, *shared))
                await asyncio.sleep(0)  # exits are looked at between any two lines, those too that have come already
        self.placed, self.kept_out = found, kept_out
        self._proxies = described["front"]["gateway"], described["front"]["address"]

    async def call_lost(self) -> None:
        """Start handshakes with clients that were there a moment ago, before a restart. Raises aside.WorkError."""
        if not self._remembered:
            return
        called: list[str] = json.loads(await aside.line(partial(_call, self._remembered)))
        if called:
            self._calling = asyncio.create_task(self._be_quiet(called))

    async def _be_quiet(self, called: list[str]) -> None:
        await asyncio.sleep(CALL_SECONDS)
        known = {client.public_key for client in self.placed}
        await aside.line(partial(_be_quiet, [key for key in called if key in known]))

    async def remember(self) -> None:
        """Keep on disk where clients are, for the next start. Raises aside.WorkError."""
        loaded = self._remembered
        forget = time.monotonic() + endpoints.FRESH
        while True:
            await asyncio.sleep(REMEMBER_INTERVAL)
            if not self._proxies:
                continue
            found = json.loads(await aside.line(partial(_recent, self._proxies)))
            if time.monotonic() < forget:  # those that are being called have no handshake yet
                found = loaded | found
            if found != self._remembered:
                try:
                    memory.save(FILE, dict(found))
                except OSError as error:
                    log("agent", f"where clients are can't be remembered: {error.strerror}")
                self._remembered = found


def peer(client: Client, preshared: Mapping[str, str]) -> wireguard.Peer:
    allowed = frozenset({f"{client.address}/32", f"{client.address6}/128"})
    return wireguard.Peer(client.public_key, preshared.get(client.name, ""), allowed)


def dump() -> str:
    """Give what WireGuard knows of all clients, with the interface's own line first."""
    return run("wg", "show", CLIENT_INTERFACE, "dump", secret=True)


# What a copy of this process does.


def _place(
    described: Mapping[str, Any],
    said: bytes,
    private_key: str,
    buckets: Mapping[str, int],
    load: Callable[[str], None],
) -> Iterator[bytes]:
    found = json.loads(said)
    state = from_data(DesiredState, {**described, "clients": found["clients"]})
    preshared = found["preshared"]
    kept_out = choice.kept_out(state, preshared)
    out = set(kept_out)
    # First, since a peer that the lock does not know yet is refused.
    peers = [peer(client, preshared) for client in state.clients if client.name not in out]
    wireguard.synchronise(CLIENT_INTERFACE, private_key, state.port, MARK_TUNNEL, peers)
    marks = choice.client_buckets(state, buckets)
    load(lock.entry_clients(state, marks, choice.by_flow(state, buckets)))
    yield json.dumps(kept_out).encode()
    rows = [(each.name, each.public_key, each.address, each.group, marks[each.name]) for each in state.clients]
    for begin in range(0, len(rows), _AT_ONCE):
        yield json.dumps(rows[begin : begin + _AT_ONCE]).encode()


def _call(remembered: dict[str, str]) -> bytes:
    called = endpoints.lost(dump(), remembered)
    if called:
        log("agent", f"calling {len(called)} client(s) back")
        try:
            wireguard.call(CLIENT_INTERFACE, called, CALL_INTERVAL)
        except CommandError as error:  # clients then come back by themselves, a little later
            log("agent", str(error))
    return json.dumps(list(called)).encode()


def _be_quiet(keys: list[str]) -> None:
    try:
        wireguard.be_quiet(CLIENT_INTERFACE, keys)
    except CommandError as error:  # they go on hearing from the entry every other second
        log("agent", str(error))


def _recent(proxies: Collection[str]) -> bytes:
    return json.dumps(endpoints.recent(dump(), time.time(), proxies)).encode()
