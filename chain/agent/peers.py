"""Clients as WireGuard's peers: who they are, and where they were before a restart."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chain.agent import endpoints, memory
from chain.contract import CLIENT_INTERFACE, MARK_TUNNEL, MEMORY_DIR
from chain.node import wireguard
from chain.node.run import CommandError, run
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chain.contract import Client, DesiredState

FILE = Path(MEMORY_DIR, "endpoints.json")
REMEMBER_INTERVAL = 5.0
CALL_INTERVAL, CALL_SECONDS = 2, 20.0


class Peers:
    def __init__(self) -> None:
        self._state: DesiredState | None = None
        self._remembered: dict[str, str] = memory.load(FILE)

    def set(
        self, state: DesiredState, private_key: str, preshared: Mapping[str, str], kept_out: Collection[str]
    ) -> None:
        """Make these clients, but for those kept out, the interface's peers. Raises CommandError."""
        found = [peer(client, preshared) for client in state.clients if client.name not in kept_out]
        wireguard.synchronise(CLIENT_INTERFACE, private_key, state.port, MARK_TUNNEL, found)
        self._state = state

    def call_lost(self) -> None:
        """Start handshakes with clients that were there a moment ago, before a restart."""
        called = endpoints.lost(dump(), self._remembered)
        if not called:
            return
        log("agent", f"calling {len(called)} client(s) back")
        try:
            wireguard.call(CLIENT_INTERFACE, called, CALL_INTERVAL)
        except CommandError as error:  # clients then come back by themselves, a little later
            log("agent", str(error))
        asyncio.get_running_loop().call_later(CALL_SECONDS, self._be_quiet, list(called))

    def _be_quiet(self, keys: list[str]) -> None:
        known = {client.public_key for client in self._state.clients} if self._state else set()
        wireguard.be_quiet(CLIENT_INTERFACE, [key for key in keys if key in known])

    async def remember(self) -> None:
        """Keep on disk where clients are, for the next start."""
        loaded = self._remembered
        forget = time.monotonic() + endpoints.FRESH
        while True:
            await asyncio.sleep(REMEMBER_INTERVAL)
            if self._state is None:
                continue
            front = self._state.front
            found = endpoints.recent(dump(), time.time(), (front.gateway, front.address))
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
