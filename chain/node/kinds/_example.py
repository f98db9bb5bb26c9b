"""A kind to copy, inside its container. docs/adding-an-exit-kind.md goes through it step by step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chain.contract import MARK_TUNNEL
from chain.node.kinds import causes
from chain.node.kinds.base import DialError, Interface, Tunnel
from chain.node.lock import UplinkRules
from chain.node.probe import objection
from chain.node.run import ip_batch, succeeds
from chain.node.supervise import Daemon

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import ExitSettings
    from chain.node.kinds.causes import Diagnosis
    from chain.secret import Secret

_SOL_SOCKET, _SO_MARK = 1, 36
_START_SECONDS = 5.0
_LOOK_SECONDS = 0.05


def create(settings: ExitSettings, secrets: Mapping[str, Secret]) -> Example:
    return Example(settings, secrets["example_word"])


class Example(Interface):
    interface = "vpn0"

    def __init__(self, settings: ExitSettings, word: Secret) -> None:
        options = settings.options
        self.server: str = options["server"]
        self._port: int = options["port"]
        # All that may pass between the uplink and the server; the mark and the server's address are added by the lock.
        self.rules = UplinkRules((f"udp dport {self._port}",), (f"udp sport {self._port}",))
        self._settings = settings
        self._word = word  # a real kind hands it to its daemon by a file of mode 0600 or a pipe, never by an argument
        self._address: str = options["address"]
        self._server = ""
        self._daemon: Daemon | None = None

    async def dial(self, server: str) -> Tunnel:
        """Bring the interface up. Whether anybody is there, the runtime finds out by its probes."""
        self._server = server
        await self.hang_up()
        # What the daemon sends has to bear the mark: nothing else leaves by the uplink.
        outer = f"UDP:{server}:{self._port},setsockopt={_SOL_SOCKET}:{_SO_MARK}:{MARK_TUNNEL}"
        self._daemon = Daemon("socat", "socat", outer, f"TUN,tun-name={self.interface},iff-up")
        await self._daemon.start()
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not succeeds("ip", "link", "show", "dev", self.interface):
                    if not self._daemon.running:
                        raise DialError(causes.DAEMON_DIED.found(what="socat ended while it was starting"))
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise DialError(causes.DAEMON_DIED.found(what="socat makes no interface")) from None
        ip_batch(
            [
                f"address replace {self._address} dev {self.interface}",
                f"link set dev {self.interface} mtu {self._settings.mtu} up",
            ]
        )
        return Tunnel(self._address.partition("/")[0])

    async def revive(self) -> None:
        """Nothing to do: there is no session that could be worn out."""

    async def mute(self, asked: str, *, stood: bool) -> Diagnosis:
        if stood:
            return causes.LOST.found(asked=asked)
        return await objection(self._server, self._port) or causes.MUTE.found(asked=asked)

    async def lost(self) -> Diagnosis:
        if self._daemon is not None:
            await self._daemon.ended.wait()
        return causes.DAEMON_DIED.found(what="socat died")

    async def hang_up(self) -> None:
        if self._daemon is not None:
            await self._daemon.stop()
            self._daemon = None
