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
from chain.node.run import run
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

FILE = Path(MEMORY_DIR, "endpoints.json")
REMEMBER_INTERVAL = 5.0
CALL_INTERVAL, CALL_SECONDS = 2, 20.0
CALL_PAUSE = 0.04  # seconds between two looks at who has answered, each of which takes a hundredth
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
        self._called: set[str] = set()  # public keys of those that are sent to without need
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
        await self._stop_calling()  # which could let a client in again that goes
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

    def call_lost(self) -> None:
        """Begin handshakes with clients that were there a moment ago, before a restart, beside all else."""
        if self._remembered or self._called:
            self._calling = asyncio.create_task(self._call())

    async def _call(self) -> None:
        """Call those that are lost, and be quiet again after a while."""
        try:
            lost = json.loads(await aside.line(partial(_lost, self._remembered)))
            self._called |= lost.keys()
            if lost:
                log("agent", f"calling {len(lost)} client(s) back")
                await aside.line(partial(_call, lost))
            if self._called:
                await asyncio.sleep(CALL_SECONDS)
                await aside.line(partial(_be_quiet, self._called))
                self._called = set()
        except aside.WorkError as error:  # clients then come back by themselves, a little later
            log("agent", str(error))

    async def _stop_calling(self) -> None:
        if self._calling is not None:
            self._calling.cancel()
            await asyncio.wait({self._calling})

    async def remember(self) -> None:
        """Keep on disk where clients are, for the next start."""
        loaded = self._remembered
        forget = time.monotonic() + endpoints.FRESH
        while True:
            await asyncio.sleep(REMEMBER_INTERVAL)
            if not self._proxies:
                continue
            try:
                found = json.loads(await aside.line(partial(_recent, self._proxies)))
            except aside.WorkError as error:  # such as no memory for a copy, which may pass
                log("agent", f"where clients are can't be told: {error}")
                continue
            if time.monotonic() < forget:  # those that are being called have no handshake yet
                found = loaded | found
            if found != self._remembered:
                try:
                    memory.save(FILE, dict(found))
                except OSError as error:
                    log("agent", f"where clients are can't be remembered: {error.strerror}")
                self._remembered = found


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
    # First, since a peer that the lock does not know yet is refused.
    peers = wireguard.admitted(state.clients, preshared)
    wireguard.synchronise(CLIENT_INTERFACE, private_key, state.port, MARK_TUNNEL, peers)
    marks = choice.client_buckets(state, buckets)
    load(lock.entry_clients(state, marks, choice.by_flow(state, buckets)))
    yield json.dumps(choice.kept_out(state, preshared)).encode()
    rows = [(each.name, each.public_key, each.address, each.group, marks[each.name]) for each in state.clients]
    for begin in range(0, len(rows), _AT_ONCE):
        yield json.dumps(rows[begin : begin + _AT_ONCE]).encode()


def _lost(remembered: Mapping[str, str]) -> bytes:
    return json.dumps(endpoints.lost(dump(), remembered)).encode()


def _call(lost: Mapping[str, str]) -> None:
    """Call these, a few at a time."""
    calls, silent = endpoints.Calls(lost), lost
    while not calls.over:
        if batch := calls.due(time.monotonic(), silent):
            wireguard.call(CLIENT_INTERFACE, batch, CALL_INTERVAL)
        time.sleep(CALL_PAUSE)
        silent = endpoints.lost(dump(), lost)


def _be_quiet(called: set[str]) -> None:
    """Send to these only where there is something to send, but for those that are gone."""
    keys = sorted(called & endpoints.known(dump()))
    for begin in range(0, len(keys), endpoints.AT_ONCE):
        wireguard.be_quiet(CLIENT_INTERFACE, keys[begin : begin + endpoints.AT_ONCE])
        time.sleep(CALL_PAUSE)


def _recent(proxies: Collection[str]) -> bytes:
    return json.dumps(endpoints.recent(dump(), time.time(), proxies)).encode()
