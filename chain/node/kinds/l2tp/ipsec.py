"""The IPsec half of the tunnel: charon, and the one connection in it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chain.node.kinds import causes
from chain.node.kinds.base import DialError
from chain.node.kinds.l2tp import files
from chain.node.kinds.l2tp.lines import ike_failure, ike_loss
from chain.node.kinds.l2tp.vici import Channel, ViciError
from chain.node.run import succeeds
from chain.node.supervise import Daemon

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from chain.node.kinds.causes import Diagnosis
    from chain.secret import Secret

_START_SECONDS = 15.0
_DIAL_SECONDS = 30.0  # for all of IKE; a server that does not answer at all is given up by charon after 11 s
_TERMINATE_SECONDS = 1.0
_DYING_SECONDS = 1.0
# Without these lines the log would be a list of inquiries that found nothing.
_DULL = ("sending DPD request", "sending keep alive")
_ALIVE_IKE = ("ESTABLISHED", "REKEYING")
_ALIVE_CHILD = ("INSTALLED", "UPDATING", "REKEYING", "REKEYED")


@dataclass(frozen=True)
class Traffic:
    """What ESP has carried, in bytes, and whether it travels inside UDP."""

    received: int = 0
    sent: int = 0
    in_udp: bool = False


class Ipsec:
    """One charon, started when first needed and kept between dials."""

    def __init__(self, folder: Path, *, interface: str, table: int) -> None:
        self._folder = folder
        self._socket = str(folder / "charon.vici")
        self._text = files.strongswan_conf(self._socket, ignored_interface=interface, ignored_table=table)
        self._charon: Daemon | None = None
        self._events: Channel | None = None
        self._recent: collections.deque[str] = collections.deque(maxlen=20)

    async def connect(self, connection: dict[str, Any], key: Secret) -> None:
        """Bring up the IKE and the IPsec connection. Raises DialError."""
        lines: list[str] = []
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._start()
                self._events = await Channel.open(self._socket)
                await self._events.register(["ike-updown", "child-updown"])
            self._recent.clear()
            async with asyncio.timeout(_DIAL_SECONDS + _TERMINATE_SECONDS), await Channel.open(self._socket) as channel:
                await channel.call("load-shared", files.shared_key(key.reveal()))
                await channel.call("load-conn", connection)
                await channel.call(
                    "initiate",
                    {"child": files.CONNECTION, "timeout": str(int(_DIAL_SECONDS * 1000)), "loglevel": "1"},
                    event="control-log",
                    on_event=lambda event: lines.append(event.get("msg", "")),
                )
        except (ViciError, TimeoutError) as error:
            if lines:
                raise DialError(ike_failure(lines, int(connection[files.CONNECTION]["version"]))) from None
            raise DialError(causes.IPSEC_ERROR.found(error=str(error) or "charon does not start")) from None

    async def lost(self) -> Diagnosis:
        """Wait until the connection that `connect` brought up is gone; give the cause."""
        if self._charon is not None and self._events is not None:
            try:
                if await self._unless_ended(self._charon, self._watch(self._events)):
                    return ike_loss(self._recent)
            except ViciError:
                # Its connections end a moment before it does; the next dial has to know that it is gone.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._charon.ended.wait(), _DYING_SECONDS)
        return causes.DAEMON_DIED.found(what="charon died")

    async def stands(self) -> bool:
        """Tell whether there is a connection, as far as charon knows."""
        with contextlib.suppress(ViciError):
            return await self._stands()
        return False

    async def traffic(self) -> Traffic:
        """Tell what ESP has carried until now, as far as charon knows."""
        with contextlib.suppress(ViciError):
            for child in await self._children():
                return Traffic(int(child["bytes-in"]), int(child["bytes-out"]), child.get("encap") == "yes")
        return Traffic()

    async def disconnect(self) -> None:
        """Delete the connection, telling the server; charon stays for the next one. Repeatable."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._charon is None:
            return
        if not self._charon.running:
            self._charon = None
            _flush()
            return
        request = {
            "ike": files.CONNECTION,
            "timeout": str(int(_TERMINATE_SECONDS * 1000)),
            "force": "yes",
            "loglevel": "-1",
        }
        # It is an error when there is no such connection, and a server that is gone need not agree.
        with contextlib.suppress(ViciError, TimeoutError):
            async with asyncio.timeout(_TERMINATE_SECONDS * 1.5), await Channel.open(self._socket) as channel:
                await channel.call("terminate", request)

    async def _start(self) -> None:
        """Start charon unless it runs; return when it can be spoken to."""
        if self._charon is not None and self._charon.running:
            return
        _flush()
        config, notify = self._folder / "strongswan.conf", self._folder / "charon.notify"
        config.write_text(self._text)
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.setblocking(False)  # noqa: FBT003 - the socket module's signature
            ready.bind(str(notify))
            environment = (f"STRONGSWAN_CONF={config}", f"NOTIFY_SOCKET={notify}")
            self._charon = Daemon("charon", "env", *environment, "charon-systemd", on_line=self._line)
            await self._charon.start()
            if not await self._unless_ended(self._charon, _until_ready(ready)):
                raise ViciError("charon does not start")

    def _line(self, line: str) -> bool:
        """See each line of charon's log; True keeps it out of the container's."""
        self._recent.append(line)
        return any(dull in line for dull in _DULL)

    async def _watch(self, events: Channel) -> None:
        """Return when no SA is left. Rekeying takes SAs down too, so each event only asks for a look at the rest."""
        while await self._stands():
            await events.event()

    async def _stands(self) -> bool:
        return bool(await self._children())

    async def _children(self) -> list[dict[str, Any]]:
        """List the ESP connections that stand, of IKE ones that stand."""
        found: list[dict[str, Any]] = []
        async with await Channel.open(self._socket) as channel:
            await channel.call("list-sas", event="list-sa", on_event=lambda event: found.extend(event.values()))
        return [
            child
            for sa in found
            if sa.get("state") in _ALIVE_IKE
            for child in sa.get("child-sas", {}).values()
            if child.get("state") in _ALIVE_CHILD
        ]

    @staticmethod
    async def _unless_ended(charon: Daemon, work: Coroutine[None, None, None]) -> bool:
        """Wait for `work`, or for charon's end, whichever is first; True: `work` is done. Raises what `work` raises."""
        tasks = asyncio.create_task(work), asyncio.create_task(charon.ended.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
            return tasks[0].done()
        finally:
            for task in tasks:
                task.cancel()


async def _until_ready(notify: socket.socket) -> None:
    """Wait for charon's word to its service manager that its control socket is there."""
    loop = asyncio.get_running_loop()
    while b"READY=1" not in await loop.sock_recv(notify, 512):
        pass


def _flush() -> None:
    """Remove what a charon that was killed left in the kernel: its policies would swallow the next one's packets."""
    succeeds("ip", "xfrm", "policy", "flush")
    succeeds("ip", "xfrm", "state", "flush")
