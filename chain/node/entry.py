"""The entry's life: secrets, lock, identity, WireGuard, resolvers, and the agent as a sibling that may die."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.contract import (
    CLIENT_INTERFACE,
    CONFIG_DIR,
    HEALTH_FILE,
    HEARTBEAT,
    LINE_LIMIT,
    MARK_TUNNEL,
    PEERS_DIR,
    RUN_DIR,
    SECRETS_DIR,
    SILENCE,
    STATE_FILE,
    Client,
    DesiredState,
    ExitReport,
    from_json,
    to_json,
)
from chain.errors import ChainError
from chain.node import caps, lock, netlink, unbound, wireguard
from chain.node.backoff import delay
from chain.node.control import CONTROL_SOCKET, REPLY_SECONDS
from chain.node.reports import Reports
from chain.node.run import CommandError, interfaces_by_address, ip_batch, nft, run
from chain.node.supervise import Daemon, log
from chain.secret import Secret, is_wireguard_key, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable

HEALTH = Path(HEALTH_FILE)
PRIVATE_KEY = Path(SECRETS_DIR, "entry_private_key")

# Order of the routing rules; the agent's rules, one per exit, lie between.
RULE_TUNNEL, RULE_CLIENTS, RULE_RESOLVERS, RULE_NOWHERE = 100, 110, 900, 1000
TABLE_RESOLVERS = 99
MOST_EVENTS = 1000  # that are kept
AGENT_PAUSE = 0.2  # seconds before a dead agent is started again
STOOD_SECONDS = 60.0  # after which a resolver's end is its first
AGENT_PATIENCE = 30.0  # seconds that it may take for an answer, on a slow machine, before it is ended


def clients_line(state: DesiredState) -> bytes:
    """Give all clients, with the keys they share with the entry, as the agent is told of them.

    Once it has filled WireGuard the supervisor only hands it on: it holds up no report, and takes little room.
    """
    return json.dumps({"clients": [vars(each) for each in state.clients], "preshared": preshared_keys(state)}).encode()


def preshared_keys(state: DesiredState) -> dict[str, str]:
    """Read the clients' preshared keys; a missing one keeps that client out and says so, the others come in."""
    keys = {}
    for client in state.clients:
        if client.psk_file:
            try:
                key = read_secret(Path(PEERS_DIR, client.psk_file)).reveal()
            except ChainError as error:
                log("entry", f"client {client.name} is kept out: {error.problems[0].what}")
                continue
            if is_wireguard_key(key):
                keys[client.name] = key
            else:  # one bad key would make WireGuard refuse all of them
                log("entry", f"client {client.name} is kept out: its preshared key is malformed")
    return keys


class Entry:
    def __init__(self) -> None:
        state = load_state()
        self._state: DesiredState = replace(state, clients=())
        self._clients = clients_line(state)
        self._groups_placed: dict[int, str] = {}  # by their marks, those that the kernel's clients surely are in
        self._private_key = Secret("")
        self._front = ""
        self._links: dict[str, str] = {}
        self._resolvers: dict[str, tuple[str, Daemon, asyncio.Task[None]]] = {}  # with the configuration each has
        self._loaded_lock = self._frame = ""
        self._applying = asyncio.Lock()
        self._wireguard: Daemon | None = None
        self._filling: asyncio.Task[None] | None = None
        self._agent: asyncio.subprocess.Process | None = None
        # Here and not with the agent, so that exits do not close when that dies.
        self._reports = Reports("entry", self._heard)
        self._heard_of: dict[str, ExitReport] = {}
        self._answered_at = 0.0  # by the agent
        self._closed_at = 0.0  # when exits were last closed in its absence
        self._agent_rules = False  # it has taken its state, and answers
        self._broken: asyncio.Future[None]  # a state of the lock that could not be brought about
        self._events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        # The last event's number. Those of an entry that starts anew go on from a higher one, for who follows them.
        self._told = self._began = int(time.time() * 1000)
        self._asking = asyncio.Lock()
        self._questions = 0
        self._awaited: asyncio.Future[dict[str, Any]] | None = None  # the answer to the last of them
        self._reading: asyncio.Task[None] | None = None  # of what the agent says

    async def run(self) -> None:
        """Run until cancelled. Raises RuntimeError when what the entry stands on can't be made."""
        HEALTH.unlink(missing_ok=True)
        self._broken = asyncio.get_running_loop().create_future()
        self._private_key = read_secret(PRIVATE_KEY)
        if not is_wireguard_key(self._private_key.reveal()):
            raise ValueError("the secret entry_private_key is no WireGuard key")
        caps.drop(caps.CAP_DAC_OVERRIDE)
        # Already, since it takes longest to start: it waits to be told what to do, and until the entry's own lock is
        # there, nothing passes anyway.
        self._agent = await _start_agent()
        self._front, self._links = _interfaces(self._state)
        self._load_lock()
        self._take_identity()
        log("entry", "locked")
        self._wireguard = await wireguard.create(CLIENT_INTERFACE)
        self._configure_interface()
        self._filling = asyncio.create_task(self._fill())
        await self._renew_resolvers()
        CONTROL_SOCKET.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, CONTROL_SOCKET, limit=LINE_LIMIT)
        await self._listen()
        tasks = [asyncio.create_task(self._keep_agent()), self._broken]
        if self._wireguard is not None:
            tasks.append(asyncio.create_task(_death_of(self._wireguard)))
        try:
            # Neither ends by itself. One that fails takes the container with it, which starts anew, locked.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            server.close()
            await self._stop_all()

    async def _stop_all(self) -> None:
        if self._agent is not None and self._agent.returncode is None:
            self._agent.kill()
        await asyncio.gather(*(self._stop_resolver(name) for name in list(self._resolvers)))
        if self._wireguard is not None:
            await self._wireguard.stop()

    # Interfaces

    def _take_identity(self) -> None:
        """Become reachable for exits under the address they use, only now that the lock is there."""
        state = self._state
        run("ip", "route", "flush", "table", "main", "default")
        lines = [
            f"route replace default via {state.front.gateway} dev {self._front} table {state.front.table}",
            f"rule add priority {RULE_TUNNEL} fwmark {MARK_TUNNEL} lookup {state.front.table}",
            f"rule add priority {RULE_CLIENTS} to {state.clients_subnet} lookup main",
            f"rule add priority {RULE_RESOLVERS} from {state.resolvers_subnet} lookup {TABLE_RESOLVERS}",
            f"rule add priority {RULE_NOWHERE} iif {CLIENT_INTERFACE} unreachable",
        ]
        netlink.set_lenient(self._front)
        for name in self._links.values():
            netlink.set_lenient(name)
        ip_batch(lines)
        # Last, when no packet can be led astray any more. A new address forgets neighbours, so they come after it.
        lines = []
        for exit_ in state.exits:
            if link := self._links.get(exit_.name):
                neighbour = f"{exit_.link.exit_address} lladdr {exit_.link.exit_mac} dev {link} nud permanent"
                lines += [f"link set dev {link} address {exit_.link.sender_mac}", f"neighbour replace {neighbour}"]
        ip_batch(lines)

    def _configure_interface(self) -> None:
        state = self._state
        ip_batch(
            [
                f"address replace {state.address} dev {CLIENT_INTERFACE}",
                f"address replace {state.address6} dev {CLIENT_INTERFACE}",
                f"link set dev {CLIENT_INTERFACE} mtu {state.mtu} up",
                # A resolver's question needs some route before its mark gives it the right one; the lock lets none
                # pass on this one.
                f"route replace default dev {CLIENT_INTERFACE} table {TABLE_RESOLVERS}",
            ]
        )
        netlink.set_lenient(CLIENT_INTERFACE)

    async def _fill(self) -> None:
        """Tell WireGuard of the clients while the agent starts, which sees to them from then on."""
        said = json.loads(self._clients)
        peers = wireguard.admitted((Client(**each) for each in said["clients"]), said["preshared"])
        key, port = self._private_key.reveal(), self._state.port
        try:
            await wireguard.fill(CLIENT_INTERFACE, key, port, MARK_TUNNEL, peers)
        except (CommandError, OSError) as error:  # the agent does it then, or says why not
            log("entry", str(error))

    def _load_lock(self) -> None:
        """Load the lock if it is not the one that the kernel has; where more than groups changed, exits are closed."""
        state, front, links = self._state, self._front, self._links
        wanted = lock.entry_lock(state, front=front, links=links)
        frame = lock.entry_frame(state, front=front, links=links)
        if wanted == self._loaded_lock:
            return
        changed = False
        if self._loaded_lock and frame == self._frame:
            try:
                nft(lock.entry_relock(state, front=front, links=links))
                changed = True
            except CommandError as error:  # the kernel has something else than was thought
                log("entry", f"the lock is loaded anew: {error}")
        if not changed:
            nft(wanted)
            self._groups_placed = {}  # nobody is in any
        self._loaded_lock, self._frame = wanted, frame

    async def _stop_resolver(self, name: str) -> None:
        _, daemon, keeping = self._resolvers.pop(name)
        keeping.cancel()
        await daemon.stop()

    async def _renew_resolvers(self) -> None:
        """Make one resolver run for each group, with its present configuration; touch none that has it."""
        wanted = {group.name: (group, unbound.config(self._state, group)) for group in self._state.groups}
        for name in list(self._resolvers):
            if name not in wanted or self._resolvers[name][0] != wanted[name][1]:
                await self._stop_resolver(name)
        if self._state.dns.ca:
            Path(unbound.authorities(self._state.dns)).write_text(self._state.dns.ca)
        for name in wanted.keys() - self._resolvers.keys():
            group, text = wanted[name]
            path = Path(RUN_DIR, f"unbound-{name}.conf")
            path.write_text(text)
            run("ip", "address", "replace", f"{group.resolver_address}/32", "dev", "lo")
            daemon = Daemon(
                f"unbound-{name}",
                *("unbound", "-d", "-c", str(path)),
                # It reads what strangers send: it is not to be able to open the lock.
                before=lambda: caps.drop(caps.CAP_NET_ADMIN, caps.CAP_NET_RAW),
                on_line=_reader(f"unbound-{name}"),
            )
            self._resolvers[name] = (text, daemon, asyncio.create_task(_keep(daemon)))

    # The agent

    async def _keep_agent(self) -> None:
        while True:
            if self._agent is None or self._agent.returncode is not None:
                try:
                    self._agent = await _start_agent()
                except OSError as error:  # no memory or no process left, which may pass
                    log("entry", f"the agent can't be started: {error.strerror}")
                    await asyncio.sleep(AGENT_PAUSE)
                    continue
                self._answered_at = time.monotonic()
            self._reading = asyncio.create_task(self._read_agent(self._agent))
            try:
                refusal = (await self._tell_agent()).get("error")
            except (OSError, RuntimeError, TimeoutError, ValueError) as error:
                refusal = str(error) or "no answer"
            if refusal:
                log("entry", f"the agent does not take its state: {refusal}")
                with contextlib.suppress(ProcessLookupError):
                    self._agent.kill()
            self._agent_rules = not refusal
            code = await self._end_of(self._agent)
            self._agent_rules = False
            await asyncio.wait({self._reading}, timeout=HEARTBEAT)  # for what it said last
            self._reading.cancel()
            if code == lock.UNKNOWN:
                self._loaded_lock = ""
                self._load_lock()
                HEALTH.unlink(missing_ok=True)
            self._close_lost()  # among them what the agent was told of and did not come to
            log("entry", f"the agent ended with {code}; until it is back, exits are only closed")
            await asyncio.sleep(AGENT_PAUSE)

    async def _end_of(self, agent: asyncio.subprocess.Process) -> int:
        """Wait until the agent ends; give its exit code. One that does not answer rules no more, and is ended."""
        ended = asyncio.create_task(agent.wait())
        while True:
            done, _ = await asyncio.wait({ended}, timeout=HEARTBEAT)
            if done:
                return ended.result()
            if self._asking.locked():  # whoever asks has a time-out of his own; another may be waiting behind him
                silent = time.monotonic() - self._answered_at
                if silent > SILENCE:
                    self._agent_rules = False
                    self._close_lost()
                if silent > REPLY_SECONDS + SILENCE:
                    return await self._given_up(agent, ended)
                continue
            if await self._answers(SILENCE):
                self._agent_rules = True
                continue
            self._agent_rules = False
            self._close_lost()
            if not await self._answers(AGENT_PATIENCE):
                return await self._given_up(agent, ended)
            self._agent_rules = True

    @staticmethod
    async def _given_up(agent: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> int:
        log("entry", "the agent does not answer")
        with contextlib.suppress(ProcessLookupError):
            agent.kill()
        return await ended

    async def _answers(self, seconds: float) -> bool:
        """Tell whether the agent answers in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._ask_agent(lambda: {"verb": "ping"})
        except (OSError, RuntimeError, TimeoutError, ValueError):
            return False
        return True

    async def _tell_agent(self) -> dict[str, Any]:
        if self._filling is not None:  # it could bring back a client that this state has no more
            await self._filling
        groups = {group.mark: group.name for group in self._state.groups}
        before = self._groups_placed
        # Until it answers, clients may be in these groups or in those.
        self._groups_placed = {mark: name for mark, name in before.items() if groups.get(mark) == name}
        # Made when it is sent: an exit that goes while others ask is not to be told of as if it were still there.
        answer = await self._ask_agent(
            lambda: {
                "verb": "apply",
                "state": json.loads(to_json(self._state)),
                # One can be taken away while the container runs. A new agent has to do without it.
                "links": {name: link for name, link in self._links.items() if Path("/sys/class/net", link).exists()},
                "private_key": self._private_key.reveal(),
                "groups_before": list(before.items()),
                "reports": {name: json.loads(to_json(report)) for name, report in self._heard_of.items()},
            },
            self._clients,
        )
        if "error" not in answer:
            self._groups_placed = groups
        return answer

    async def _ask_agent(self, make: Callable[[], dict[str, Any]], *further: bytes) -> dict[str, Any]:
        """Ask what `make` gives at the moment when it is the question's turn; `further` lines follow it."""
        async with self._asking:
            question = make()
            agent = self._agent
            if agent is None or agent.stdin is None or self._reading is None or self._reading.done():
                raise RuntimeError("the agent is not running")
            self._questions += 1
            self._awaited = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(REPLY_SECONDS):
                agent.stdin.writelines(
                    each + b"\n" for each in (json.dumps(question | {"id": self._questions}).encode(), *further)
                )
                await agent.stdin.drain()
                return await self._awaited

    async def _read_agent(self, agent: asyncio.subprocess.Process) -> None:
        """Take what an agent says, until it ends: answers, events, and which exits are needed."""
        if agent.stdout is None:
            return
        try:
            while line := await agent.stdout.readline():
                self._answered_at = time.monotonic()
                self._take(json.loads(line))
        except (OSError, ValueError) as error:
            # One that says what it should not answers nobody any more, and is ended for that.
            log("entry", f"the agent can't be understood: {error}")
        finally:  # also when a program that outlives it holds its output open, and this is cancelled
            if self._awaited and not self._awaited.done():
                self._awaited.set_exception(RuntimeError("the agent ended while it was asked"))

    def _take(self, said: dict[str, Any]) -> None:
        if "event" in said:
            self._told += 1
            self._events.append({"number": self._told, **said["event"]})
        elif "needed" in said:
            self._reports.need(frozenset(said["needed"]))
        # An answer that came too late for its question is nobody's.
        elif said.pop("id", None) == self._questions and self._awaited and not self._awaited.done():
            self._awaited.set_result(said)

    # Exits

    async def _listen(self) -> None:
        exits = {exit_.name: exit_ for exit_ in self._state.exits if exit_.name in self._links}
        for name in self._heard_of.keys() - exits.keys():
            del self._heard_of[name]
        await self._reports.listen({name: exit_.link.sender_address for name, exit_ in exits.items()})

    def _heard(self, name: str, report: ExitReport | None) -> None:
        """Tell the agent what an exit says; without an agent, close those that are gone."""
        was_up = self._is_up(name)
        if report is None:
            self._heard_of.pop(name, None)
        else:
            self._heard_of[name] = report
        if self._agent is not None and self._agent.stdin is not None and not self._agent.stdin.is_closing():
            line = {"verb": "report", "exit": name, "report": None if report is None else json.loads(to_json(report))}
            self._agent.stdin.write(json.dumps(line).encode() + b"\n")
        # Not at each line, since a program's start holds up all others; and again now and then, since an agent that was
        # thought to hang may have opened what was closed.
        lost = was_up and not self._is_up(name)
        if not self._agent_rules and (lost or time.monotonic() - self._closed_at > HEARTBEAT):
            self._close_lost()

    def _is_up(self, name: str) -> bool:
        return name in self._heard_of and self._heard_of[name].state == "up"

    def _close_lost(self) -> None:
        """Send nothing any more to exits that are not up, in the agent's absence."""
        self._closed_at = time.monotonic()
        lost = {
            exit_.mark: self._links[exit_.name]
            for exit_ in self._state.exits
            if exit_.name in self._links and not self._is_up(exit_.name)
        }
        try:
            if lost:
                nft(lock.entry_close(lost, [group.mark for group in self._state.groups]))
        except (CommandError, OSError, subprocess.SubprocessError) as error:
            # It takes the container with it, which starts anew, locked.
            if not self._broken.done():
                self._broken.set_exception(error)
        # An exit that only others run through is no way out.
        if not any(self._is_up(name) for group in self._state.groups for name in group.exits):
            HEALTH.unlink(missing_ok=True)

    # `docker exec`

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            _refuse_powerless(writer)
            question = json.loads(line)
            if question["verb"] == "apply":
                clients = (await reader.readline()).rstrip(b"\n")
                async with self._applying:
                    answer = await self._apply(question, clients)
            elif question["verb"] == "events":
                answer = await self._events_since(question["since"])
            else:
                answer = await self._ask_agent(lambda: question)
        except (OSError, RuntimeError, TimeoutError, TypeError, ValueError, KeyError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()

    async def _events_since(self, number: int) -> dict[str, Any]:
        """Give the events of higher numbers, and what tells this entry's numbers from those of one before it.

        An agent that does not rule is not asked: it is being ended or started, and who follows events would stand in
        the way of that, again and again.
        """
        if self._agent_rules:
            await self._answers(SILENCE)  # behind the answer to that, all that happened has been told
        return {"entry": self._began, "events": [each for each in self._events if each["number"] > number]}

    async def _apply(self, question: dict[str, Any], clients: bytes) -> dict[str, Any]:
        state = from_json(DesiredState, json.dumps(question["state"]))
        front, links = _interfaces(state)  # raises before anything is changed
        self._state, self._clients = state, clients
        self._front, self._links = front, links
        try:
            self._load_lock()  # where links changed, all exits are closed until the agent has opened them
            await self._listen()
            await self._renew_resolvers()
        finally:
            # The agent and the lock have to mean the same state, whatever else failed.
            answer = await self._tell_agent()
        return answer


def _interfaces(state: DesiredState) -> tuple[str, dict[str, str]]:
    """Find the front's interface and the one of each exit's link. Raises RuntimeError if the front's is not there."""
    found = interfaces_by_address()
    front = found.get(state.front.address)
    if front is None:
        raise RuntimeError("this container's front network is not the one in its state; run `chain up` again")
    links = {}
    for exit_ in state.exits:
        name = found.get(exit_.link.sender_address)
        if name is None:
            log("entry", f"exit {exit_.name}: no link to it in this container; run `chain up` again")
        else:
            links[exit_.name] = name
    return front, links


def _refuse_powerless(writer: asyncio.StreamWriter) -> None:
    """Raise PermissionError unless whoever asks may change this container's network anyway.

    A resolver that strangers have taken over has not that capability, and is not to gain it by asking.
    """
    channel = writer.get_extra_info("socket")
    pid, _, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if not caps.has(caps.CAP_NET_ADMIN, pid):
        raise PermissionError("only a process with NET_ADMIN may ask")


async def _start_agent() -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chain.agent", stdin=pipe, stdout=pipe, limit=LINE_LIMIT
    )


async def _death_of(daemon: Daemon) -> None:
    await daemon.ended.wait()
    raise RuntimeError(f"{daemon.name} died; the container starts anew")


def _reader(name: str) -> Callable[[str], bool]:
    """Put a resolver's words into the log, as far as they belong there."""
    words = unbound.Words()

    def read(line: str) -> bool:
        if text := words.fit(line, time.monotonic()):
            log(name, text)
        return True

    return read


async def _keep(daemon: Daemon) -> None:
    """Start a daemon, and again whenever it ends or can't be started."""
    attempt = 0
    while True:
        attempt += 1
        began = time.monotonic()
        try:
            await daemon.start()
            await daemon.ended.wait()
        except OSError as error:  # no memory or no process left, which may pass
            log(daemon.name, f"could not be started: {error.strerror}")
        if time.monotonic() - began > STOOD_SECONDS:  # that was no failed attempt
            attempt = 1
        await asyncio.sleep(delay(attempt, random.random()))  # noqa: S311 - jitter, not a secret


def load_state() -> DesiredState:
    return from_json(DesiredState, Path(CONFIG_DIR, STATE_FILE).read_bytes())
