"""L2TP/IPsec exit, inside its container: charon for IKE and ESP, xl2tpd and pppd in kernel mode for the rest."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from pathlib import Path
from typing import TYPE_CHECKING

from chain.contract import RUN_DIR
from chain.node.kinds import causes
from chain.node.kinds.base import DialError, Interface, Tunnel
from chain.node.kinds.l2tp import files
from chain.node.kinds.l2tp.ipsec import Ipsec
from chain.node.kinds.l2tp.session import Session
from chain.node.lock import UplinkRules
from chain.node.probe import objection
from chain.node.run import CommandError, run, succeeds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import ExitSettings
    from chain.node.kinds.causes import Diagnosis
    from chain.secret import Secret

FOLDER = Path(RUN_DIR, "l2tp")
# Before all other rules: neither xl2tpd's socket nor the kernel's L2TP can be marked, and PPP's peer may have the
# server's own address. What a client sends to that address is not meant (`iif lo`), and the probes name their device.
RULE_SERVER = 90

_IKE_PORT = 500
_IKE_PORTS = f"{{ {_IKE_PORT}, 4500 }}"
_ESP = "meta l4proto esp"
_L2TP = f"udp sport {files.L2TP_PORT} udp dport {files.L2TP_PORT}"


def create(settings: ExitSettings, secrets: Mapping[str, Secret]) -> L2tp:
    return L2tp(settings, secrets)


class L2tp(Interface):
    interface = "ppp0"

    def __init__(self, settings: ExitSettings, secrets: Mapping[str, Secret]) -> None:
        self.server: str = settings.options["server"] or secrets["vpn_server_ip"].reveal().strip()
        # Inside UDP it uses IKE's second port, and is never seen by itself.
        esp = () if settings.options["encapsulation"] == "udp" else (_ESP,)
        self.rules = UplinkRules(
            outgoing=(f"udp dport {_IKE_PORTS}", *esp),
            incoming=(f"udp sport {_IKE_PORTS}", *esp, f"meta ipsec exists {_L2TP}"),
            unmarked=(f"rt ipsec exists {_L2TP}",),
        )
        self._settings = settings
        self._secrets = secrets
        self._ipsec = Ipsec(FOLDER, interface=self.interface, table=settings.tunnel_table)
        self._session: Session | None = None
        self._dials = 0

    async def dial(self, server: str) -> Tunnel:
        try:
            return await self._dial(server)
        except DialError as error:
            raise DialError(await self._explained(error.found, server)) from None

    async def _dial(self, server: str) -> Tunnel:
        options = self._settings.options
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = files.connection(
            own=self._way_to(server),
            server=server,
            version=options["ike_version"],
            ike_proposals=options["ike_proposals"],
            esp_proposals=options["esp_proposals"],
            ike_lifetime=options["ike_lifetime"],
            esp_lifetime=options["esp_lifetime"],
            remote_id=options["remote_id"],
            encapsulation=options["encapsulation"],
        )
        await self._ipsec.connect(connection, self._secrets["vpn_ipsec_psk"])
        self._dials += 1
        ppp = files.ppp_options(
            user=self._secrets["vpn_username"].reveal(),
            password=self._secrets["vpn_password"].reveal(),
            mtu=self._settings.mtu,
            auth=options["ppp_auth"],
            number=self._dials,
        )
        self._session = Session(FOLDER, self.interface, self._dials)
        tunnel = await self._unless_ipsec_ends(self._session, server, ppp)
        return Tunnel(tunnel.address, _near(tunnel.near, server))

    def _way_to(self, server: str) -> str:
        """Route the server's address to the uplink; give our own address on that way. Raises DialError."""
        self._forget_way()
        try:
            run("ip", *_rule("add"), "to", server, "iif", "lo", "lookup", str(self._settings.uplink.table))
            return str(json.loads(run("ip", "-json", "route", "get", server))[0]["prefsrc"])
        except (CommandError, LookupError) as error:
            raise DialError(causes.NO_WAY.found(error=error)) from None

    @staticmethod
    def _forget_way() -> None:
        while succeeds("ip", *_rule("delete")):
            pass

    async def _unless_ipsec_ends(self, session: Session, server: str, options: str) -> Tunnel:
        """Dial L2TP; a server that ends IPsec meanwhile is not waited for. Raises DialError."""
        dialling = asyncio.create_task(session.dial(server, options))
        losing = asyncio.create_task(self._ipsec.lost())
        try:
            await asyncio.wait({dialling, losing}, return_when=asyncio.FIRST_COMPLETED)
            if not dialling.done():
                raise DialError(losing.result())
            return dialling.result()
        finally:
            for task in (dialling, losing):
                task.cancel()
            await asyncio.wait({dialling, losing})

    async def _explained(self, found: Diagnosis, server: str) -> Diagnosis:
        """Say more of a silence: by what the network says of it, or by what came back through ESP until now."""
        if found.key == causes.NO_ANSWER.key:
            return await objection(server, _IKE_PORT) or found
        if found.key == causes.L2TP_SILENT.key:
            seen = await self._ipsec.traffic()
            silent = causes.NO_L2TP if seen.in_udp else causes.ESP_BLOCKED
            return (causes.L2TP_SILENT if seen.received else silent).found(received=seen.received, sent=seen.sent)
        return found

    async def revive(self) -> None:
        """Nothing short of dialling anew would help."""

    async def mute(self, asked: str, *, stood: bool) -> Diagnosis:
        return (causes.LOST if stood else causes.MUTE).found(asked=asked)

    async def lost(self) -> Diagnosis:
        """Watch IPsec too: after its end by the server, PPP stays up and mute for half a minute and more."""
        if self._session is None:
            return causes.IPSEC_GONE.found()
        tasks = asyncio.create_task(self._session.lost()), asyncio.create_task(self._ipsec.lost())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task.done()).result()
        finally:
            for task in tasks:
                task.cancel()

    async def hang_up(self) -> None:
        """End in the order in which each goodbye still finds its way: PPP, L2TP, IPsec, route."""
        if self._session is not None:
            await self._session.end(farewell=await self._ipsec.stands())
            self._session = None
        await self._ipsec.disconnect()
        self._forget_way()


def _rule(verb: str) -> tuple[str, ...]:
    return ("rule", verb, "priority", str(RULE_SERVER))


def _near(peer: str, server: str) -> str:
    """Take PPP's peer for something to ping if it is this server: SoftEther, for one, calls itself 1.0.0.1."""
    return peer if peer == server or not ipaddress.ip_address(peer).is_global else ""
