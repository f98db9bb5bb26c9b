"""The agent's process: commands come in by standard input, one line of JSON each, and are answered in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nftables

from chain.agent import endpoints
from chain.agent.choice import choose, kept_out
from chain.agent.damping import Allowance
from chain.agent.routes import Routes
from chain.contract import (
    CLIENT_INTERFACE,
    HEALTH_FILE,
    LINE_LIMIT,
    MARK_TUNNEL,
    MEMORY_DIR,
    DesiredState,
    ExitReport,
    from_json,
)
from chain.node import lock, netlink, wireguard
from chain.node.run import CommandError, run
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Mapping

HEALTH = Path(HEALTH_FILE)
ENDPOINTS = Path(MEMORY_DIR, "endpoints.json")
REMEMBER_INTERVAL = 5.0
CALL_INTERVAL, CALL_SECONDS = 2, 20.0


class Agent:
    def __init__(self) -> None:
        self._nft = nftables.Nftables()
        self._routes = Routes()
        self._state: DesiredState | None = None
        self._kept_out: list[str] = []
        self._links: dict[str, str] = {}
        self._heard_of: dict[str, ExitReport] = {}
        self._gone_since: dict[str, float] = {}
        self._open: frozenset[str] = frozenset()
        self._allowances: dict[str, Allowance] = {}
        self._again: asyncio.TimerHandle | None = None
        self._chosen: dict[str, str] = {}
        self._remembered = endpoints.load(ENDPOINTS)

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Do what one line says. Raises whatever its parts raise."""
        if question["verb"] == "ping":
            return {}
        if question["verb"] == "status":
            return self.status()
        state = from_json(DesiredState, json.dumps(question["state"]))
        self._state, self._links = state, dict(question["links"])
        self._routes.install(state, self._links)
        self._load(lock.entry_clients(state))
        self._kept_out = kept_out(state, question["preshared"])
        self._set_peers(state, question["private_key"], question["preshared"])
        self._call_lost()
        # In order of arrival with what was said before, since both come by this way.
        self._heard_of = {name: from_json(ExitReport, json.dumps(said)) for name, said in question["reports"].items()}
        self._switch(self._admitted())
        return {"generation": state.generation, "kept_out": self._kept_out}

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
                    endpoints.save(ENDPOINTS, found)
                except OSError as error:
                    log("agent", f"where clients are can't be remembered: {error.strerror}")
                self._remembered = found

    # Exits

    def heard(self, name: str, report: ExitReport | None) -> None:
        """Take what an exit says, or that it is gone."""
        if report is None:
            self._heard_of.pop(name, None)
            self._gone_since[name] = time.time()
        else:
            self._heard_of[name] = report
            self._gone_since.pop(name, None)
        opened = self._admitted()
        if opened != self._open:
            self._switch(opened)

    def _admitted(self) -> frozenset[str]:
        """Name the exits to be open: those that say they are up, but one that comes and goes too often has to wait."""
        if self._state is None:
            return frozenset()
        now = time.monotonic()
        found, waits = set(), []
        for exit_ in self._state.exits:
            report = self._heard_of.get(exit_.name)
            if report is None or report.state != "up" or exit_.name not in self._links:
                continue
            allowance = self._allowances.setdefault(exit_.name, Allowance(now))
            if exit_.name in self._open or allowance.take(now):
                found.add(exit_.name)
            else:
                waits.append(allowance.wait(now))
        if waits and self._again is None:
            self._again = asyncio.get_running_loop().call_later(min(waits), self._look_again)
        return frozenset(found)

    def _look_again(self) -> None:
        self._again = None
        opened = self._admitted()
        if opened != self._open:
            self._switch(opened)

    def _switch(self, opened: frozenset[str]) -> None:
        """Make the kernel agree with what the exits say. One transaction; closing comes before anything else."""
        state = self._state
        if state is None:
            return
        chosen = choose(state.groups, opened)
        marks = {exit_.name: exit_.mark for exit_ in state.exits}
        self._load(
            lock.entry_switch(
                {marks[name]: self._links[name] for name in sorted(opened)},
                {group.mark: marks[chosen[group.name]] for group in state.groups if group.name in chosen},
                ((group.mark, marks[name]) for group in state.groups for name in group.exits),
            )
        )
        switches = {interface: name in opened for name, interface in self._links.items()}
        for interface, on in (switches | {CLIENT_INTERFACE: bool(opened)}).items():
            try:
                netlink.set_forwarding(interface, on=on)
            except OSError as error:  # its network was disconnected; the other exits are not to suffer
                log("agent", f"{interface}: {error.strerror}")
        if chosen:  # an exit that only others run through is no way out
            HEALTH.touch()
        else:
            HEALTH.unlink(missing_ok=True)
        for name in sorted(opened ^ self._open):
            log("agent", f"exit {name}: {'open' if name in opened else 'closed'}")
        for group in state.groups:
            if self._chosen.get(group.name) != chosen.get(group.name):
                log("agent", f"group {group.name}: {chosen.get(group.name, 'blocked, no exit is open')}")
        self._open, self._chosen = opened, chosen

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
            "groups": [{"name": group.name, "exit": self._chosen.get(group.name)} for group in state.groups],
            "clients": _client_status(state, self._chosen),
        }

    def _exit_status(self, name: str, kind: str) -> dict[str, Any]:
        report = self._heard_of.get(name)
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
            "cause": report.cause,
            "advice": report.advice,
            "warning": report.warning,
            "open": name in self._open,
            "tunnel_address": report.tunnel_address or None,
            "latency_ms": report.latency_ms,
            "rx_bytes": report.rx_bytes,
            "tx_bytes": report.tx_bytes,
        }

    def _refused(self) -> int:
        self._nft.set_json_output(True)
        _, output, _ = self._nft.cmd(f"list counter {lock.TABLE} refused")
        self._nft.set_json_output(False)
        objects = json.loads(output)["nftables"] if output else []
        return sum(int(item["counter"]["packets"]) for item in objects if "counter" in item)


def _dump() -> str:
    return run("wg", "show", CLIENT_INTERFACE, "dump", secret=True)


def _client_status(state: DesiredState, chosen: Mapping[str, str]) -> list[dict[str, Any]]:
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
                "exit": chosen.get(client.group),
                "endpoint": None if endpoint == "(none)" else endpoint,
                "last_handshake": handshake or None,
                "rx_bytes": received,
                "tx_bytes": sent,
            }
        )
    return result


def _said(task: asyncio.Task[None]) -> None:
    """Say why a task ended that should not have; what it does is a comfort, and no reason to stop."""
    if not task.cancelled() and (error := task.exception()):
        log("agent", f"clients' addresses are no longer remembered: {error}")


async def main() -> None:
    """Serve until standard input ends, which it does when the supervisor is gone."""
    agent = Agent()
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    remembering = asyncio.create_task(agent.remember())
    remembering.add_done_callback(_said)
    while line := await reader.readline():
        question = json.loads(line)
        if question["verb"] == "report":  # nobody waits for an answer to that
            said = question["report"]
            agent.heard(question["exit"], None if said is None else from_json(ExitReport, json.dumps(said)))
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
