"""WireGuard exit, inside its container."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chain.contract import MARK_TUNNEL
from chain.node import wireguard
from chain.node.kinds.base import DialError, Tunnel
from chain.node.lock import UplinkRules
from chain.node.run import CommandError, ip_batch, run, succeeds
from chain.secret import is_wireguard_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import ExitSettings
    from chain.node.supervise import Daemon
    from chain.secret import Secret


def create(settings: ExitSettings, secrets: Mapping[str, Secret]) -> WireGuard:
    for role, secret in secrets.items():
        if not is_wireguard_key(secret.reveal()):
            raise ValueError(f"the secret {role} is no WireGuard key")
    return WireGuard(settings, secrets)


class WireGuard:
    interface = "vpn0"

    def __init__(self, settings: ExitSettings, secrets: Mapping[str, Secret]) -> None:
        options = settings.options
        self.server: str = options["server"]
        self.rules = UplinkRules((f"udp dport {options['port']}",), (f"udp sport {options['port']}",))
        self._settings = settings
        self._private_key = secrets["wg_private_key"]
        self._preshared_key = secrets.get("wg_preshared_key")
        self._address: str = options["address"]
        self._public_key: str = options["public_key"]
        self._port: int = options["port"]
        self._keepalive: int = options["keepalive"]
        self._near: str = options["near"]
        self._server = ""
        self._daemon: Daemon | None = None

    async def dial(self, server: str) -> Tunnel:
        self._server = server
        try:
            if self._daemon is not None and not self._daemon.running:
                self._daemon = None
            if not succeeds("ip", "link", "show", "dev", self.interface):
                self._daemon = await wireguard.create(self.interface)
            self._configure()
            ip_batch(
                [
                    f"address replace {self._address} dev {self.interface}",
                    f"link set dev {self.interface} mtu {self._settings.mtu} up",
                ]
            )
        except (CommandError, RuntimeError, TimeoutError) as error:
            raise DialError(f"WireGuard could not be set up: {error}") from None
        return Tunnel(self._address.partition("/")[0], self._near)

    def _configure(self) -> None:
        host = f"[{self._server}]" if ":" in self._server else self._server
        peer = wireguard.peer(
            self._public_key,
            self._preshared_key.reveal() if self._preshared_key else "",
            ["0.0.0.0/0"],
            f"{host}:{self._port}",
            self._keepalive,
        )
        text = wireguard.config(self._private_key.reveal(), None, MARK_TUNNEL, [peer])
        wireguard.replace(self.interface, text)

    async def revive(self) -> None:
        """Start a new handshake now: after a provider's restart the old session is dead for up to 15 s by protocol."""
        run("wg", "set", self.interface, "peer", self._public_key, "remove")
        self._configure()

    async def lost(self) -> str:
        if self._daemon is None:
            await asyncio.Event().wait()
            return ""  # not reached: the kernel's WireGuard never says that it is lost, probes do
        await self._daemon.ended.wait()
        return "wireguard-go died"

    async def hang_up(self) -> None:
        if self._daemon is not None:
            await self._daemon.stop()
            self._daemon = None
        succeeds("ip", "link", "delete", "dev", self.interface)
