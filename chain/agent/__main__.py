"""The agent's process: commands come in by standard input, one line of JSON each, and are answered in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nftables

from chain.agent import choice, endpoints, maintenance, memory, sockets
from chain.agent.damping import Allowance
from chain.agent.failover import Drained, Failover, Pinned, Switch, Undrained
from chain.agent.netfilter import Netfilter
from chain.agent.nudge import Nudger
from chain.agent.routes import Routes
from chain.agent.verdict import State
from chain.agent.watch import Watch
from chain.contract import (
    CLIENT_INTERFACE,
    HEALTH_FILE,
    LINE_LIMIT,
    MARK_TUNNEL,
    MEMORY_DIR,
    DesiredState,
    ExitReport,
    from_data,
)
from chain.node import lock, netlink, wireguard
from chain.node.run import CommandError, run
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.agent.failover import Event, Group

HEALTH = Path(HEALTH_FILE)
ENDPOINTS, STEERING = Path(MEMORY_DIR, "endpoints.json"), Path(MEMORY_DIR, "steering.json")
BY_HAND = "by hand"
REMEMBER_INTERVAL = 5.0
LONGEST_WAIT = 10.0  # seconds; maintenance begins that much later at most
CALL_INTERVAL, CALL_SECONDS = 2, 20.0
COUNT_INTERVAL = 0.02  # seconds: one look takes a tenth of a millisecond for ten exits, a whole one for a hundred
# Seconds before each look at a dead exit's connections: a client's own link may lose what tells it.
NUDGE_AGAIN = 0.0, 0.5, 2.0
NUDGE_BATCH, NUDGE_PAUSE = 200, 0.002  # a tunnel device holds 500 packets


class Agent:
    def __init__(self) -> None:
        self._nft = nftables.Nftables()
        self._routes = Routes()
        self._state: DesiredState | None = None
        self._kept_out: list[str] = []
        self._links: dict[str, str] = {}
        self._netfilter = Netfilter()
        self._counters: dict[str, int] = {}
        self._counted_at = -math.inf
        self._nudger = Nudger()
        self._heard_of: dict[str, ExitReport] = {}
        self._gone_since: dict[str, float] = {}
        self._allowances: dict[str, Allowance] = {}
        self._watches: dict[str, Watch] = {}
        self._failover = Failover(())
        self._known: tuple[list[Group], set[str]] | None = None  # what that was made for
        self._now: Switch = Switch(frozenset(), {}, (), ())
        self._suspected: frozenset[int] = frozenset()
        self._drained: set[Drained] = set()  # for maintenance, at present
        self._resolvers: Mapping[int, int] | None = None  # by a group's mark, the exit of its resolver
        self._woken = asyncio.Event()
        self._endings: dict[str, asyncio.Task[None]] = {}
        self._remembered: dict[str, str] = memory.load(ENDPOINTS)
        self._steering = memory.Steering.of(memory.load(STEERING))

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Do what one line says. Raises whatever its parts raise."""
        if question["verb"] == "ping":
            return {}
        if question["verb"] == "status":
            return self.status()
        if question["verb"] in ("switch", "drain", "undrain"):
            return self._steer(question)
        state = from_data(DesiredState, question["state"])
        links = dict(question["links"])
        reports = {name: from_data(ExitReport, said) for name, said in question["reports"].items()}
        # What may fail comes first, so that the former state is still meant then. A peer that the lock does not know
        # yet is refused.
        self._routes.install(state, links)
        self._kept_out = choice.kept_out(state, question["preshared"])
        self._set_peers(state, question["private_key"], question["preshared"])
        self._take_over(state, links, reports)
        self._call_lost()
        return {"generation": state.generation, "kept_out": self._kept_out}

    def _take_over(self, state: DesiredState, links: dict[str, str], reports: dict[str, ExitReport]) -> None:
        """Mean this state from now on."""
        first = self._state is None
        self._state, self._links = state, links
        # In order of arrival with what was said before, since both come by this way.
        self._heard_of = reports
        before = self._found_in_kernel(state) if first else choice.Before()
        self._watch(state, before)
        steering: list[Event] = []
        groups = choice.groups(state)
        if self._known != (groups, set(self._watches)):
            self._known = groups, set(self._watches)
            self._failover = Failover(groups, before.chosen if first else self._failover.chosen)
            self._drained.clear()
            steering = self._steered(state)
        for name, watch in self._watches.items():
            self._tell(watch, reports.get(name))
        self._review(*steering, anew=True, first=first)

    def _found_in_kernel(self, state: DesiredState) -> choice.Before:
        """Give what a former agent decided, as far as it still holds."""
        listed = {name: self._list(f"set {lock.TABLE} {name}") for name in ("up_pairs", "open_marks", "suspect_marks")}
        return choice.before(
            state,
            dict(self._list(f"map {lock.TABLE} bucket_exit")),
            up={pair["concat"][0] for pair in listed["up_pairs"]},
            opened=listed["open_marks"],
            suspect=listed["suspect_marks"],
        )

    def _set_peers(self, state: DesiredState, private_key: str, preshared: Mapping[str, str]) -> None:
        peers = [
            wireguard.Peer(
                client.public_key,
                preshared.get(client.name, ""),
                frozenset({f"{client.address}/32", f"{client.address6}/128"}),
            )
            for client in state.clients
            if client.name not in self._kept_out
        ]
        wireguard.synchronise(CLIENT_INTERFACE, private_key, state.port, MARK_TUNNEL, peers)

    # Where clients are

    def _call_lost(self) -> None:
        """Start handshakes with clients that were there a moment ago, before a restart."""
        called = endpoints.lost(_dump(), self._remembered)
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
            found = endpoints.recent(_dump(), time.time(), (front.gateway, front.address))
            if time.monotonic() < forget:  # those that are being called have no handshake yet
                found = loaded | found
            if found != self._remembered:
                try:
                    memory.save(ENDPOINTS, dict(found))
                except OSError as error:
                    log("agent", f"where clients are can't be remembered: {error.strerror}")
                self._remembered = found

    # Exits

    def _watch(self, state: DesiredState, before: choice.Before) -> None:
        """Watch exactly these exits; of those that stay, everything is remembered."""
        exits = {exit_.name: exit_ for exit_ in state.exits if exit_.name in self._links}
        source = state.address.partition("/")[0]
        judged = dict(before.states)
        for name, watch in list(self._watches.items()):
            if watch.exit != exits.get(name) or watch.wanted != choice.sensitivity(state, name):
                if watch.exit == exits.get(name) and watch.says_up:
                    judged[name] = watch.state
                self._watches.pop(name).close()
        for name, exit_ in exits.items():
            if name not in self._watches:
                wanted = choice.sensitivity(state, name)
                self._watches[name] = Watch(exit_, source, wanted, judged.get(name, State.GOOD))

    def heard(self, name: str, report: ExitReport | None) -> None:
        """Take what an exit says, or that it is gone."""
        if report is None:
            self._heard_of.pop(name, None)
            self._gone_since[name] = time.time()
        else:
            self._heard_of[name] = report
            self._gone_since.pop(name, None)
        if watch := self._watches.get(name):
            self._tell(watch, report)
            self._review()

    def _tell(self, watch: Watch, report: ExitReport | None) -> None:
        """Tell a watch what its exit says. One that comes and goes too often has to wait."""
        now, trusted = time.monotonic(), True
        if report is not None and report.state == "up" and not watch.says_up:
            allowance = self._allowances.setdefault(watch.exit.name, Allowance(now))
            trusted = allowance.take(now)
            if not trusted:
                asyncio.get_running_loop().call_later(allowance.wait(now), self._tell_again, watch.exit.name)
        try:
            watch.heard(now, report, trusted=trusted)
        except OSError as error:  # it stays dead; the other exits are not to suffer
            log("agent", f"exit {watch.exit.name} can't be asked: {error.strerror}")
        self._woken.set()

    def _tell_again(self, name: str) -> None:
        if name in self._watches and name in self._heard_of:
            self.heard(name, self._heard_of[name])

    async def judge(self) -> None:
        """Look after all exits, forever."""
        while True:
            now = time.monotonic()
            due = [watch for watch in self._watches.values() if watch.wake <= now]
            if due:
                counters = self._count(now)
                for watch in due:
                    mark = watch.exit.mark
                    watch.tick(now, counters.get(lock.sent_by(mark), 0), counters.get(lock.came_by(mark), 0))
            self._review()
            wake = min((watch.wake for watch in self._watches.values()), default=math.inf)
            wait = max(min(wake, self._failover.wake) - time.monotonic(), 0)
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(wait, LONGEST_WAIT))

    def _count(self, now: float) -> dict[str, int]:
        """Give the counters of all exits as they were a moment ago, whichever of these is looked at now."""
        if now - self._counted_at > COUNT_INTERVAL:
            self._counters, self._counted_at = self._netfilter.counters(), now
        return self._counters

    def _review(self, *steering: Event, anew: bool = False, first: bool = False) -> None:
        """Act on what the watches found. `anew`: whatever the kernel has been told. `first`: since another agent."""
        before = {name: watch.told for name, watch in self._watches.items()}
        events = [news for watch in self._watches.values() if (news := watch.news(anew=anew))]
        for news in events:
            if news.state is not before[news.exit]:
                tell("exit", exit=news.exit, source=before[news.exit], target=news.state, cause=news.cause)
        switch = self._failover.handle(time.monotonic(), *events, *steering, *self._maintenance())
        if switch is None and (anew or self._suspects() != self._suspected):
            switch = replace(self._now, moves=(), died=())
        if switch is not None and first:  # those too that died while there was no agent
            switch = replace(switch, died=tuple(name for name in self._watches if name not in switch.opened))
        if switch is not None:
            self._switch(switch, anew=anew)

    def _maintenance(self) -> list[Drained | Undrained]:
        """Give the drains that begin now, and those that end."""
        if self._state is None:
            return []
        now = time.gmtime()
        wanted = maintenance.in_force(self._state.maintenance, now.tm_wday, now.tm_hour * 60 + now.tm_min)
        begun, over = wanted - self._drained, self._drained - wanted
        self._drained = wanted
        for each, verb in (*((one, "drain") for one in begun), *((one, "undrain") for one in over)):
            tell(verb, exit=each.exit, cause=each.reason)
        return [*begun, *(Undrained(each.exit, each.reason) for each in over)]

    # By hand

    def _steer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Pin a group to an exit, or drain an exit, until told otherwise: also by the next agent. Raises ValueError."""
        event: Pinned | Drained | Undrained
        pins, drains = self._steering.pins, self._steering.drains
        if question["verb"] == "switch":
            group, name = question["group"], question["exit"]
            event = Pinned(choice.key(group), name)
            if choice.key(group) not in self._failover.buckets:
                raise ValueError(f"no group {group}")
            if name is not None and name not in self._failover.exits(choice.key(group)):
                raise ValueError(f"exit {name} is not in group {group}")
        else:
            name = question["exit"]
            if name not in self._watches:
                raise ValueError(f"no exit {name}")
            event = (Drained if question["verb"] == "drain" else Undrained)(name, BY_HAND)
        switch = self._failover.handle(time.monotonic(), event)
        match event:
            case Pinned(_, None):
                pins.pop(group, None)
            case Pinned():
                pins[group] = name
            case Drained():
                drains += [] if name in drains else [name]
            case Undrained():
                drains[:] = [each for each in drains if each != name]
        if switch is not None:
            self._switch(switch)
        self._remember_steering()
        chosen = {key: value for key, value in question.items() if key in ("group", "exit")}
        tell(question["verb"], **chosen, cause=BY_HAND)
        return {}

    def _remember_steering(self) -> None:
        try:
            memory.save(STEERING, vars(self._steering))
        except OSError as error:
            log("agent", f"what was chosen by hand can't be remembered: {error.strerror}")

    def _steered(self, state: DesiredState) -> list[Event]:
        """Give what was chosen by hand. What there is no exit or no group for any more is forgotten."""
        holding = self._steering.holding(state)
        if holding != self._steering:
            self._steering = holding
            self._remember_steering()
        drained: list[Event] = [Drained(name, BY_HAND) for name in holding.drains]
        return drained + [Pinned(choice.key(group), name) for group, name in holding.pins.items()]

    def _suspects(self) -> frozenset[int]:
        return frozenset(watch.exit.mark for watch in self._watches.values() if watch.state is State.SUSPECT)

    def _switch(self, switch: Switch, *, anew: bool = False) -> None:
        """Make the kernel agree. One transaction, that of clients among it with `anew`; closing comes first."""
        state = self._state
        if state is None:
            return
        before, self._now, self._suspected = self._now, switch, self._suspects()
        marks = {exit_.name: exit_.mark for exit_ in state.exits}
        exits = lock.Exits(
            up={marks[name]: self._links[name] for name in sorted(self._heard_up())},
            open=frozenset(marks[name] for name in switch.opened),
            suspect=self._suspected,
        )
        members = ((group.mark, marks[name]) for group in state.groups for name in group.exits)
        counts, clients = self._failover.buckets, ""
        if anew:
            clients = lock.entry_clients(state, choice.client_buckets(state, counts), choice.by_flow(state, counts))
        chosen = choice.marks(state, switch.chosen)
        self._load(clients + lock.entry_switch(exits, chosen, members))
        switches = {interface: name in switch.opened for name, interface in self._links.items()}
        for interface, on in (switches | {CLIENT_INTERFACE: bool(switch.opened)}).items():
            try:
                netlink.set_forwarding(interface, on=on)
            except OSError as error:  # its network was disconnected; the other exits are not to suffer
                log("agent", f"{interface}: {error.strerror}")
        if switch.chosen:  # an exit that only others run through is no way out
            HEALTH.touch()
        else:
            HEALTH.unlink(missing_ok=True)
        self._hurry_resolvers(state, chosen.groups)
        for name in switch.died:
            if ending := self._endings.pop(name, None):
                ending.cancel()
            self._endings[name] = asyncio.create_task(self._end_connections(name, marks[name]))
        for name in sorted(switch.opened ^ before.opened):
            log("agent", f"exit {name}: {'open' if name in switch.opened else 'closed'}")
        for move in switch.moves:
            group = choice.name(move.group)
            log("agent", f"group {group}: {move.target or 'blocked, no exit is open'} ({move.cause})")
            share = len(move.buckets) / self._failover.buckets[move.group]
            tell("move", group=group, source=move.source, target=move.target, share=round(share, 3), cause=move.cause)

    def _heard_up(self) -> set[str]:
        return {name for name in self._watches if name in self._heard_of and self._heard_of[name].state == "up"}

    def _hurry_resolvers(self, state: DesiredState, exits: Mapping[int, int]) -> None:
        """Have resolvers ask anew where another exit is used now.

        A connection that is always busy would stay with the former one: it may be dead, or in another country.
        """
        before, self._resolvers = self._resolvers, exits
        if before is None:  # nobody knows since when it is so
            return
        for group in state.groups:
            if exits.get(group.mark) not in (before.get(group.mark), None):
                try:
                    sockets.end(group.resolver_address)
                except OSError as error:  # they are reset when they next send
                    log("agent", f"the resolver of group {group.name} is slow to notice: {error.strerror}")

    async def _end_connections(self, name: str, mark: int) -> None:
        """Have clients notice that the TCP connections by an exit have ended, those too that are idle.

        Not all at once, nor in one go: there may be thousands, and other exits have to be looked after meanwhile.
        """
        try:
            for pause in NUDGE_AGAIN:
                await asyncio.sleep(pause)
                if name in self._now.opened:  # what is left of them may go on
                    break
                with contextlib.closing(Netfilter()) as netfilter:
                    flows = netfilter.tcp_flows(mark)
                    while batch := list(itertools.islice(flows, NUDGE_BATCH)):
                        self._nudger.nudge(batch)
                        await asyncio.sleep(NUDGE_PAUSE)
        except OSError as error:  # they notice when they next send something
            log("agent", f"idle connections are not ended: {error.strerror}")
        finally:
            if self._endings.get(name) is asyncio.current_task():
                del self._endings[name]

    def _load(self, ruleset: str) -> None:
        code, _, error = self._nft.cmd(ruleset)
        if code:
            # The supervisor closes all exits, by the lock as it was at first, and a new agent opens them again.
            log("agent", f"nftables: {error}")
            os._exit(lock.UNKNOWN)

    # Status

    def status(self) -> dict[str, Any]:
        """Give what `chain status --json` shows, as far as the entry knows it."""
        state = self._state
        if state is None:
            raise RuntimeError("no state has been applied yet")
        return {
            "generation": state.generation,
            "kept_out": self._kept_out,
            "refused_packets": self._refused(),
            "exits": [self._exit_status(exit_.name, exit_.kind) for exit_ in state.exits],
            "groups": [
                {
                    "name": group.name,
                    "exit": next(iter(shares), None),
                    "shares": shares,
                    "policy": group.policy,
                    "pinned": self._failover.pinned(choice.key(group.name)),
                }
                for group in state.groups
                if (shares := self._shares(group.name)) is not None
            ],
            "clients": _client_status(state, self._exits_of_clients(state)),
        }

    def _shares(self, group: str) -> dict[str, float]:
        """Give the share of a group's clients that each exit has; an empty object where they are blocked."""
        count = self._failover.buckets[choice.key(group)]
        used = Counter(exit_ for (of, _), exit_ in self._now.chosen.items() if of == choice.key(group))
        return {exit_: round(number / count, 3) for exit_, number in used.most_common()}

    def _exits_of_clients(self, state: DesiredState) -> dict[str, str | None]:
        """Give the exit of each client's new connections; None where they are refused."""
        exits = {exit_.mark: exit_.name for exit_ in state.exits}
        going = choice.marks(state, self._now.chosen).buckets
        buckets = choice.client_buckets(state, self._failover.buckets)
        return {client: exits.get(going.get(mark, 0)) for client, mark in buckets.items()}

    def _exit_status(self, name: str, kind: str) -> dict[str, Any]:
        report, watch = self._heard_of.get(name), self._watches.get(name)
        if report is None:
            return {
                "name": name,
                "kind": kind,
                "state": "silent",
                "since": self._gone_since.get(name),
                "cause": "the exit's container does not report",
                "advice": f"`chain logs exit-{name}` shows why",
                "warning": "",
                "open": False,
            }
        return {
            "name": name,
            "kind": kind,
            "state": report.state,
            "since": report.since,
            # Clients' packets tell the agent sooner than the exit itself notices.
            "cause": (watch.complaint if watch and report.state == "up" else "") or report.cause,
            "advice": report.advice,
            "warning": report.warning or ("" if watch is None else watch.warning),
            "open": name in self._now.opened,
            "health": State.DEAD if watch is None else watch.state,
            "tunnel_address": report.tunnel_address or None,
            "latency_ms": round(watch.latency * 1e3, 2) if watch and watch.latency else report.latency_ms,
            "loss": 0.0 if watch is None else round(watch.loss, 3),
            "drained": self._failover.drained().get(name, ()),
            "rx_bytes": report.rx_bytes,
            "tx_bytes": report.tx_bytes,
        }

    def _refused(self) -> int:
        return sum(int(item["packets"]) for item in self._listed(f"counter {lock.TABLE} refused"))

    def _list(self, what: str) -> list[Any]:
        """Give the elements of a set or a map."""
        return [element for item in self._listed(what) for element in item.get("elem", ())]

    def _listed(self, what: str) -> list[dict[str, Any]]:
        """Give what nftables has of that kind and name."""
        self._nft.set_json_output(True)
        _, output, _ = self._nft.cmd(f"list {what}")
        self._nft.set_json_output(False)
        kind = what.partition(" ")[0]
        return [item[kind] for item in json.loads(output)["nftables"] if kind in item] if output else []


def _dump() -> str:
    return run("wg", "show", CLIENT_INTERFACE, "dump", secret=True)


def _client_status(state: DesiredState, exits: Mapping[str, str | None]) -> list[dict[str, Any]]:
    peers: dict[str, tuple[str, int, int, int]] = {}
    for line in _dump().splitlines()[1:]:
        public_key, _, endpoint, _, *numbers, _ = line.split("\t")
        handshake, received, sent = map(int, numbers)
        peers[public_key] = (endpoint, handshake, received, sent)
    result = []
    for client in state.clients:
        endpoint, handshake, received, sent = peers.get(client.public_key, ("(none)", 0, 0, 0))
        result.append(
            {
                "name": client.name,
                "address": client.address,
                "group": client.group,
                "exit": exits[client.name],
                "endpoint": None if endpoint == "(none)" else endpoint,
                "last_handshake": handshake or None,
                "rx_bytes": received,
                "tx_bytes": sent,
            }
        )
    return result


def tell(event: str, **fields: Any) -> None:
    """Tell the supervisor of an event, which keeps it for those who ask."""
    sys.stdout.write(json.dumps({"event": {"time": round(time.time(), 3), "event": event, **fields}}) + "\n")
    sys.stdout.flush()


def _said(task: asyncio.Task[None]) -> None:
    """Say why a task ended that should not have; what it does is a comfort, and no reason to stop."""
    if not task.cancelled() and (error := task.exception()):
        log("agent", f"clients' addresses are no longer remembered: {error}")


def _end(task: asyncio.Task[None]) -> None:
    """End the agent: without judging it is none. The supervisor starts another."""
    if not task.cancelled():
        log("agent", f"judging ended: {task.exception()}")
        os._exit(1)


async def main() -> None:
    """Serve until standard input ends, which it does when the supervisor is gone."""
    agent = Agent()
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    remembering = asyncio.create_task(agent.remember())
    remembering.add_done_callback(_said)
    judging = asyncio.create_task(agent.judge())
    judging.add_done_callback(_end)
    while line := await reader.readline():
        question = json.loads(line)
        if question["verb"] == "report":  # nobody waits for an answer to that
            said = question["report"]
            agent.heard(question["exit"], None if said is None else from_data(ExitReport, said))
            continue
        try:
            answer = agent.answer(question)
        except Exception as error:  # noqa: BLE001 - the asker gets every error; the lock stays as it is
            answer = {"error": f"{type(error).__name__}: {error}"}
            log("agent", answer["error"])
        sys.stdout.write(json.dumps(answer | {"id": question.get("id")}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
