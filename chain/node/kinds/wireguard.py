"""WireGuard exit, inside its container."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chain.contract import MARK_TUNNEL
from chain.node import wireguard
from chain.node.kinds import causes
from chain.node.kinds.base import DialError, Interface, Tunnel
from chain.node.lock import UplinkRules
from chain.node.probe import objection
from chain.node.run import CommandError, ip_batch, run, succeeds
from chain.secret import is_wireguard_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import ExitSettings
    from chain.node.kinds.causes import Diagnosis
    from chain.node.supervise import Daemon
    from chain.secret import Secret


def create(settings: ExitSettings, secrets: Mapping[str, Secret]) -> WireGuard:
    for role, secret in secrets.items():
        if not is_wireguard_key(secret.reveal()):
            raise ValueError(f"the secret {role} is no WireGuard key")
    return WireGuard(settings, secrets)


class WireGuard(Interface):
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
        self._met = False  # there was a handshake since the dial

    async def dial(self, server: str) -> Tunnel:
        self._server = server
        self._met = False
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
            raise DialError(causes.NO_WIREGUARD.found(error=error)) from None
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
        self._meets()  # with the peer its last handshake is forgotten
        run("wg", "set", self.interface, "peer", self._public_key, "remove")
        self._configure()

    def _meets(self) -> bool:
        """Tell whether there was a handshake since the peer was last set."""
        meets = self._shown("latest-handshakes") > 0
        self._met = self._met or meets
        return meets

    def _shown(self, what: str) -> int:
        """Read the last number of what WireGuard shows of its one peer."""
        words = run("wg", "show", self.interface, what).split()
        return int(words[-1]) if words else 0

    async def mute(self, asked: str, *, stood: bool) -> Diagnosis:
        sent = self._shown("transfer")  # received, and sent
        # A tunnel that stood was revived a moment ago: only a handshake after that is worth something.
        if self._meets() or (self._met and not stood):
            return (causes.LOST if stood else causes.HANDSHAKE_ONLY).found(asked=asked)
        if stood:  # clients wait for another exit, and what the network says the next dial will tell
            return causes.HANDSHAKE_LOST.found(asked=asked)
        return await objection(self._server, self._port) or causes.NO_HANDSHAKE.found(sent=sent, port=self._port)

    async def lost(self) -> Diagnosis:
        if self._daemon is None:
            await asyncio.Event().wait()  # the kernel's WireGuard never says that it is lost, probes do
        else:
            try:
                await wireguard.gone(self.interface)
            except OSError:
                await self._daemon.ended.wait()
        return causes.DAEMON_DIED.found(what="wireguard-go died")

    async def hang_up(self) -> None:
        if self._daemon is not None:
            await self._daemon.stop()
            self._daemon = None
        succeeds("ip", "link", "delete", "dev", self.interface)
