"""An exit's life: lock, identity, secrets, then dial, probe and report until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import math
import random
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.contract import (
    CONFIG_DIR,
    HEALTH_FILE,
    MARK_CAPTURED,
    MARK_PROBE,
    MARK_TUNNEL,
    SETTINGS_FILE,
    ExitReport,
    ExitSettings,
    from_json,
)
from chain.node import caps, kinds, lock, netlink
from chain.node.backoff import delay
from chain.node.control import CONTROL_SOCKET
from chain.node.kinds import causes
from chain.node.kinds.base import DialError, Tunnel
from chain.node.kinds.causes import Diagnosis
from chain.node.probe import TRIES, largest, mtu_of, ping
from chain.node.report import Reporter, statistics
from chain.node.reports import Reports
from chain.node.resolve import ResolveError, resolve
from chain.node.run import WORST_METRIC, CommandError, interfaces, interfaces_by_address, ip_batch, network_of, nft, run
from chain.node.supervise import log

if TYPE_CHECKING:
    from chain.node.kinds.base import Kind

HEALTH = Path(HEALTH_FILE)
_OTHER_NETWORKS = "this container's networks are not those that its settings name; run `chain up` again"

# Order of the routing rules. The way back to a sender is looked up with its packet's mark (`src_valid_mark`), and must
# not be found to be this container itself: what is routed to clients comes before what is captured.
RULE_TUNNEL, RULE_ROUTED, RULE_CAPTURED, RULE_CLIENTS, RULE_PROBE = 100, 110, 115, 120, 130
TABLE_CAPTURED = 102  # its one route says that every address is this container's own
_CAPTURED = (
    f"route replace local default dev lo table {TABLE_CAPTURED}",
    f"rule add priority {RULE_CAPTURED} fwmark {MARK_CAPTURED} lookup {TABLE_CAPTURED}",
)

# A provider without a near target is judged by public ones, which are asked rarely: they belong to strangers.
NEAR_INTERVAL, PUBLIC_INTERVAL = 1.0, 10.0
PROBE_TIMEOUT = 1.0
USUAL_ANSWERS = 4.0  # times what the last answer took: what the next one may take, if the kind has the patience
BURST = 3  # probes after a missed one, before anything is done about it
NEAR_PATIENCE = 4.0  # seconds that a near target has for its first answer before public ones are asked too
FIRST_ANSWER_SECONDS = 10.0  # from a dialled tunnel to its first answered probe
REVIVE_SECONDS = 2.5  # between two attempts to revive a tunnel that has not answered yet; each ends what it began
MTU_INTERVAL = 900.0  # seconds between two measurements of what fits through the tunnel
STOOD_SECONDS = 30.0  # that a tunnel must have carried traffic for the next dial to follow at once
RESTING = Diagnosis("it is cold: it dials when it is needed")
# From a tunnel's loss to its hanging up, which takes processors, and holds up what else is done to the host's networks,
# just when clients begin anew by another exit. Less than the shortest wait before the next dial.
CLIENTS_FIRST = 0.1
LINGER_SECONDS = 60.0  # that a cold exit stays connected after it was needed last


class _NotNeededError(Exception):
    """A cold exit's tunnel is not needed any more."""


class Exit:
    def __init__(self, settings: ExitSettings) -> None:
        self._settings = settings
        self._uplink = ""
        self._server: str | None = None
        self._senders: dict[str, lock.Sender] = {}  # by interface, the entry first
        self._parent: ExitReport | None = None  # of the exit that this one runs through
        self._parents: Reports | None = None
        self._needs: dict[str, bool] = {}  # who of the senders needs the tunnel, by interface
        self._rest_at = -math.inf  # when nobody has needed it for long enough, on the monotonic clock
        self._changed = asyncio.Event()  # that parent, the uplink's carrier, or who needs the tunnel
        self._carrier: netlink.Carrier
        self._state, self._since = "locked", time.time()
        self._found, self._warning = Diagnosis("starting"), Diagnosis("")
        self._address = ""
        self._targets: tuple[str, ...] = ()  # who is asked whether the tunnel lives, once they have answered
        self._latency: float | None = None
        self._opened = math.inf  # when the tunnel was opened for traffic, on the monotonic clock
        self._sequence = 0
        self._kind: Kind
        self._rules: lock.UplinkRules  # of that kind, as they are in force
        self._broken: asyncio.Future[None]  # a state of the lock that could not be brought about
        self._reporters: list[Reporter] = []

    async def run(self) -> None:
        """Run until cancelled; hangs up and stays locked when it is."""
        self._find_interfaces()
        secrets = kinds.read_secrets(self._settings)
        caps.drop(caps.CAP_DAC_OVERRIDE)
        self._kind = kinds.create(self._settings, secrets)
        self._load_lock()
        self._take_identity()
        HEALTH.unlink(missing_ok=True)
        self._carrier = netlink.Carrier(self._uplink, self._changed.set)
        log("exit", "locked")
        self._broken = asyncio.get_running_loop().create_future()
        if via := self._settings.uplink.link:
            self._parents = Reports("exit", self._parent_said)
            self._parents.need({self._settings.uplink.via} if self._wanted else ())
            await self._parents.listen({self._settings.uplink.via: via.sender_address})
        CONTROL_SOCKET.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, CONTROL_SOCKET)
        work = (*(reporter.run() for reporter in self._reporters), self._dial_forever())
        tasks = [*(asyncio.create_task(each) for each in work), self._broken]
        try:
            # Neither ends by itself. One that fails takes the container with it, which starts anew, locked.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            with contextlib.suppress(Exception):
                await self._kind.hang_up()

    # Lock and identity

    def _find_interfaces(self) -> None:
        settings = self._settings
        found = {
            "the entry": (settings.link, settings.routed),
            **{f"exit {each.name}": (each.link, (f"{each.link.sender_address}/32",)) for each in settings.carried},
        }
        at = interfaces_by_address()
        for who, (link, networks) in found.items():
            name = at.get(link.exit_address)
            if name is None:
                raise RuntimeError(_OTHER_NETWORKS)
            self._senders[name] = lock.Sender(name, link, networks)
            on_sender, on_need = partial(self._sender_changed, name), partial(self._need_changed, name)
            self._reporters.append(Reporter(link, self._report, on_sender, on_need, who=who))
        address = self._settings.uplink.address
        if address:
            uplink = at.get(address)
        else:
            others = [
                item["ifname"]
                for item in interfaces()
                if item["ifname"] not in self._senders and item["link_type"] == "ether"
            ]
            uplink = others[0] if len(others) == 1 else None
        if uplink is None:
            raise RuntimeError(_OTHER_NETWORKS)
        self._uplink = uplink

    def _load_lock(self) -> None:
        self._rules = self._kind.rules
        nft(
            lock.exit_lock(
                self._settings,
                senders=tuple(self._senders.values()),
                uplink=self._uplink,
                way=lock.Way(self._way_out, self._kind.capture, self._kind.refused),
                server=self._server,
                rules=self._rules,
                ready=self._parent_up,
            )
        )

    def _take_identity(self) -> None:
        """Only now become reachable under the addresses that senders use, with routes that lead nowhere yet."""
        uplink, main, tunnel = self._uplink, self._settings.uplink, self._settings.tunnel_table
        for name in (*self._senders, uplink):
            netlink.set_lenient(name)
        # What fits is said where it is sent, so that no router on the way has to: at both ends of such a link.
        for each in self._settings.carried:
            name = next(name for name, sender in self._senders.items() if sender.link == each.link)
            run("ip", "link", "set", "dev", name, "mtu", str(self._settings.mtu))
        if main.mtu:
            run("ip", "link", "set", "dev", uplink, "mtu", str(main.mtu))
        run("ip", "route", "flush", "table", "main", "default")
        ip_batch(
            [
                f"route replace default via {main.gateway} dev {uplink} onlink table {main.table}",
                # A server on the uplink's own network is reached directly.
                f"route replace {network_of(uplink)} dev {uplink} table {main.table}",
                f"route replace unreachable default metric {WORST_METRIC} table {tunnel}",
                f"rule add priority {RULE_TUNNEL} fwmark {MARK_TUNNEL} lookup {main.table}",
                *(_CAPTURED if self._kind.capture else ()),
                *(line for sender in self._senders.values() for line in _routes_to(sender)),
                *(f"rule add priority {RULE_CLIENTS} iif {link} lookup {tunnel}" for link in self._senders),
                f"rule add priority {RULE_PROBE} fwmark {MARK_PROBE} lookup {tunnel}",
            ]
        )
        # Last, when no packet can be led astray any more. A new address forgets neighbours, so they come after it.
        for name, sender in self._senders.items():
            link = sender.link
            run("ip", "link", "set", "dev", name, "address", link.exit_mac)
            ip_batch([f"neighbour replace {link.sender_address} lladdr {link.sender_mac} dev {name} nud permanent"])
        if via := main.link:
            run("ip", "link", "set", "dev", uplink, "address", via.sender_mac)
            ip_batch([f"neighbour replace {via.exit_address} lladdr {via.exit_mac} dev {uplink} nud permanent"])

    def _sender_changed(self, name: str, there: bool) -> None:  # noqa: FBT001 - a state, not an option
        self._senders[name] = replace(self._senders[name], open=there)
        nft(lock.opened("open", name, on=there))

    # Whether it is needed

    @property
    def _wanted(self) -> bool:
        return not self._settings.cold or any(self._needs.values()) or time.monotonic() < self._rest_at

    def _need_changed(self, name: str, needed: bool) -> None:  # noqa: FBT001 - a state, not an option
        before = any(self._needs.values())
        self._needs[name] = needed
        if before and not any(self._needs.values()):
            self._stay()
        self._look_at_needs()

    def _stay(self) -> None:
        """Be wanted for a while yet."""
        self._rest_at = time.monotonic() + LINGER_SECONDS
        asyncio.get_running_loop().call_later(LINGER_SECONDS + 0.1, self._look_at_needs)

    def _look_at_needs(self) -> None:
        if self._parents is not None:  # who is not needed does not need the one that it runs through
            self._parents.need({self._settings.uplink.via} if self._wanted else ())
        self._changed.set()

    async def _unneeded(self) -> None:
        while self._wanted:
            await self._next_change()

    async def _rest(self) -> None:
        """Stay without a tunnel until somebody needs it; that is as it should be."""
        if not self._wanted:
            self._become("resting", RESTING)
            HEALTH.touch()
        while not self._wanted:
            await self._next_change()
        HEALTH.unlink(missing_ok=True)

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # The exit that this one runs through

    @property
    def _parent_up(self) -> bool:
        return self._parent is not None and self._parent.state == "up"

    def _parent_said(self, _: str, report: ExitReport | None) -> None:
        before, self._parent = self._parent_up, report
        self._changed.set()
        if self._parent_up != before:
            try:
                nft(lock.opened("ready", self._uplink, on=self._parent_up))
            except (CommandError, OSError, subprocess.SubprocessError) as error:
                # As elsewhere, it takes the container with it, which starts anew, locked.
                if not self._broken.done():
                    self._broken.set_exception(error)

    def _no_way(self) -> Diagnosis | None:
        """Say why nothing can be sent to the server, if that is so."""
        if not self._carrier.there:
            return causes.NO_CARRIER.found()
        return self._parent_fails() if self._settings.uplink.via and not self._parent_up else None

    async def _way_lost(self) -> Diagnosis:
        while (found := self._no_way()) is None:
            await self._next_change()
        return found

    def _parent_fails(self) -> Diagnosis:
        why = self._parent.cause if self._parent else "it says nothing"
        return causes.PARENT.found(parent=self._settings.uplink.via, why=why)

    # Reports

    def _report(self) -> ExitReport:
        # What is handed over to a program shows in what that sends to its server.
        received, sent = statistics(self._kind.interface or self._uplink)
        return ExitReport(
            exit=self._settings.name,
            state=self._state,
            since=self._since,
            cause=self._found.cause,
            advice=self._warning.advice or self._found.advice,
            warning=self._warning.cause,
            tunnel_address=self._address,
            near=() if self._targets == self._settings.public_targets else self._targets,
            public=self._settings.public_targets,
            names=bool(self._kind.capture),
            latency_ms=None if self._latency is None else round(self._latency * 1e3, 2),
            rx_bytes=received,
            tx_bytes=sent,
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell how this exit is, which is all that may be asked of it; who says so wants to see its tunnel."""
        with contextlib.suppress(OSError, ValueError):
            if json.loads(await reader.readline()).get("need"):
                self._stay()
                self._look_at_needs()
            writer.write(json.dumps(self._status()).encode() + b"\n")
            await writer.drain()
        writer.close()

    def _status(self) -> dict[str, Any]:
        """Give what the entry says of its exits, as this one sees itself; and whom it asks."""
        report = vars(self._report())
        own = {"name": self._settings.name, "kind": self._settings.kind, "open": self._state == "up"}
        return {"exits": [report | own | {"targets": self._targets}]}

    def _become(self, state: str, found: Diagnosis) -> None:
        if (state, found) == (self._state, self._found):
            return
        if state != self._state:
            self._since = time.time()
        self._state, self._found = state, found
        # A new dial has still the cause of the last loss, about which all has been said.
        self._say(f"{state}: {found.cause}", "" if state == "dialling" else found.advice)

    def _warn(self, found: Diagnosis) -> None:
        """Warn of what is not as it should be, or of nothing any more, by an empty one."""
        if found != self._warning:
            self._warning = found
            self._say(f"warning: {found.cause}" if found.cause else "what was warned of is over", found.advice)

    def _say(self, text: str, advice: str) -> None:
        log("exit", text)
        if advice:
            log("exit", f"what to try: {advice}")
        for reporter in self._reporters:
            reporter.changed()

    # The tunnel

    async def _dial_forever(self) -> None:
        attempt = 0
        while True:
            attempt += 1
            await self._rest()
            while self._wanted and (found := self._no_way()):
                self._become("down", found)
                await self._next_change()
                attempt = 1
            if not self._wanted:
                continue
            # With the cause of the last loss, for as long as nothing better is known.
            self._become("dialling", self._found)
            self._opened = math.inf
            try:
                await self._one_tunnel()
            except _NotNeededError:
                self._become("resting", RESTING)
                attempt = 0
            except DialError as error:
                self._become("down", error.found)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                # Such as when the tunnel's interface vanishes while it is set up.
                self._become("down", Diagnosis(str(error)))
            finally:
                self._close()
            # A tunnel that stood for a while was no failed attempt.
            if time.monotonic() - self._opened > STOOD_SECONDS:
                attempt = 0
            wait = delay(max(attempt, 1), random.random())  # noqa: S311 - jitter, not a secret
            await asyncio.sleep(CLIENTS_FIRST)
            with contextlib.suppress(Exception):
                await self._kind.hang_up()
            await asyncio.sleep(wait - CLIENTS_FIRST)

    async def _one_tunnel(self) -> None:
        """Dial, and stay until the tunnel is lost; always ends by raising, most often DialError."""
        tunnel, way = asyncio.create_task(self._tunnel()), asyncio.create_task(self._way_lost())
        unneeded = asyncio.create_task(self._unneeded())
        tasks = tunnel, way, unneeded
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tunnel.done():
                tunnel.result()
            if way.done():
                raise DialError(way.result())
            raise _NotNeededError
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _tunnel(self) -> None:
        try:
            name = self._kind.server
            server = await resolve(name, self._settings.bootstrap_dns) if name else None
        except ResolveError as error:
            self._kind.unresolved()
            raise DialError(causes.NAME.found(reasons=error)) from None
        if (server, self._kind.rules) != (self._server, self._rules):
            self._server = server
            self._load_lock()
        tunnel = await self._kind.dial(server or "")
        self._address = tunnel.address
        if self._way_out:
            netlink.set_lenient(self._way_out)
            ip_batch(self._routes_out())
        losing = asyncio.create_task(self._kind.lost())
        probing = asyncio.create_task(self._probe_forever(tunnel))
        try:
            done, _ = await asyncio.wait({losing, probing}, return_when=asyncio.FIRST_COMPLETED)
            if losing in done:
                raise DialError(losing.result())
            probing.result()
        finally:
            for task in (losing, probing):
                task.cancel()

    async def _probe_forever(self, tunnel: Tunnel) -> None:
        """Open at the first answer; raise DialError when answers stop, or none comes."""
        near = self._settings.probe_targets or ((tunnel.near,) if tunnel.near else ())
        targets = self._targets = await self._first_answer(near)
        interval = NEAR_INTERVAL if targets == near else PUBLIC_INTERVAL
        self._open()
        measuring = asyncio.create_task(self._measure_forever(targets[0], own=targets[0] == tunnel.near))
        try:
            while True:
                await asyncio.sleep(interval)
                if await self._ask(targets[:1]) is not None or await self._burst(targets):
                    continue
                if await self._strangers_answer(targets):
                    continue  # clients are served, and the entry says what is wrong
                await self._kind.revive()
                if not await self._burst(targets):
                    raise DialError(await self._kind.mute(", ".join(targets), stood=True))
        finally:
            measuring.cancel()

    async def _measure_forever(self, target: str, *, own: bool) -> None:
        """Warn while packets of the tunnel's full size get lost. `own`: the target is the tunnel's own far end."""
        name = self._kind.interface
        if not name or (not own and ipaddress.ip_address(target).is_global):
            return  # no packets pass as they are, or it is a stranger's, who did not ask for large ones

        async def passes(size: int) -> bool:
            return await ping(target, name, size, PROBE_TIMEOUT, size) is not None

        with contextlib.suppress(OSError):  # the interface is gone, which others tell
            while True:
                full = mtu_of(name)
                fits = await largest(full, passes)
                found = causes.MTU.found(full=full, passing=fits, target=target, tries=TRIES) if fits else Diagnosis("")
                self._warn(found)
                await asyncio.sleep(MTU_INTERVAL)

    async def _first_answer(self, near: tuple[str, ...]) -> tuple[str, ...]:
        """Give the targets to rely on: the near ones, or public ones where no near one answers pings."""
        started = revived = time.monotonic()
        public = self._settings.public_targets
        while True:
            if near and await self._ask(near) is not None:
                return near
            # Targets that the user named are not second-guessed.
            patient = bool(near) and time.monotonic() - started < NEAR_PATIENCE
            if not patient and not self._settings.probe_targets and await self._ask(public) is not None:
                return public
            if time.monotonic() - started > FIRST_ANSWER_SECONDS:
                asked = ", ".join(near if self._settings.probe_targets else (*near, *public))
                raise DialError(await self._kind.mute(asked, stood=False))
            if time.monotonic() - revived > REVIVE_SECONDS:
                await self._kind.revive()
                revived = time.monotonic()

    async def _strangers_answer(self, near: tuple[str, ...]) -> bool:
        """Tell whether public targets answer, where they may be asked beside near ones."""
        public = self._settings.public_targets
        return bool(public) and near != public and await self._ask(public) is not None

    async def _burst(self, targets: tuple[str, ...]) -> bool:
        for _ in range(BURST):
            if await self._ask(targets) is not None:
                return True
        return False

    async def _ask(self, targets: tuple[str, ...]) -> float | None:
        """Probe all targets at once, for the first answer."""
        self._sequence += 1
        usual = self._kind.patience if self._latency is None else USUAL_ANSWERS * self._latency
        timeout = min(max(PROBE_TIMEOUT, usual), self._kind.patience)
        tasks = [asyncio.create_task(self._kind.ask(target, self._sequence, timeout)) for target in targets]
        try:
            for answer in asyncio.as_completed(tasks):
                latency = await answer
                if latency is not None:
                    self._latency = latency
                    return latency
            return None
        finally:
            for task in tasks:
                task.cancel()

    def _let_through(self, *, on: bool) -> None:
        """Switch clients' packets on or off, on the way that this kind has. Raises OSError, or CommandError."""
        if self._kind.capture:
            nft(lock.capture(self._senders, on=on))
            return
        for name in (*self._senders, self._way_out):
            # One that is gone forwards nothing any more, and keeps none of the others from being switched off.
            with contextlib.suppress(*(() if on else (OSError,))):
                netlink.set_forwarding(name, on=on)

    @property
    def _way_out(self) -> str:
        """Name the interface that clients' packets leave by; empty where they are handed over to a program."""
        return self._kind.interface or ("" if self._kind.capture else self._uplink)

    def _routes_out(self) -> list[str]:
        name, table = self._way_out, self._settings.tunnel_table
        if name != self._uplink:
            return [f"route replace default dev {name} table {table}"]
        # Who is on the uplink's own network is reached directly.
        return [
            f"route replace default via {self._settings.uplink.gateway} dev {name} onlink table {table}",
            f"route replace {network_of(name)} dev {name} table {table}",
        ]

    def _open(self) -> None:
        self._let_through(on=True)
        HEALTH.touch()
        self._opened = time.monotonic()
        self._become("up", Diagnosis("a probe was answered through the tunnel"))

    def _close(self) -> None:
        HEALTH.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the tunnel's interface may be gone
            self._let_through(on=False)
        self._address, self._targets, self._latency, self._warning = "", (), None, Diagnosis("")


def _routes_to(sender: lock.Sender) -> list[str]:
    """Say how to get back to a sender, and to what is behind it."""
    address = sender.link.sender_address
    behind = [net for net in sender.networks if net != f"{address}/32"]
    return [
        *(f"route replace {net} via {address} dev {sender.interface}" for net in behind),
        *(f"rule add priority {RULE_ROUTED} to {net} lookup main" for net in sender.networks),
    ]


def load() -> ExitSettings:
    return from_json(ExitSettings, Path(CONFIG_DIR, SETTINGS_FILE).read_bytes())
