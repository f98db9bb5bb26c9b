"""The agent's process: commands come in by standard input, one line of JSON each, and are answered in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import nftables

from chain.agent import choice, peers, routes, steering
from chain.agent.datapath import Datapath
from chain.agent.judge import Judge
from chain.contract import LINE_LIMIT, DesiredState, ExitReport, from_data
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Mapping


class Agent:
    def __init__(self) -> None:
        self._datapath = Datapath(nftables.Nftables())
        self._generation = ""
        self._kept_out: list[str] = []
        self.peers = peers.Peers()
        self.judge = Judge(self._datapath)

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Do what one line says. Raises whatever its parts raise."""
        match question["verb"]:
            case "ping":
                return {}
            case "status":
                return self._status()
            case verb if verb in steering.VERBS:
                self.judge.steer(question)
                return {}
        return self._apply(question)

    def _apply(self, question: Mapping[str, Any]) -> dict[str, Any]:
        state = from_data(DesiredState, question["state"])
        links = dict(question["links"])
        reports = {name: from_data(ExitReport, said) for name, said in question["reports"].items()}
        # What may fail comes first, so that the former state is still meant then. A peer that the lock does not know
        # yet is refused.
        routes.install(state, links)
        self._kept_out = choice.kept_out(state, question["preshared"])
        self.peers.set(state, question["private_key"], question["preshared"], self._kept_out)
        self._generation = state.generation
        self.judge.take_over(state, links, reports)
        self.peers.call_lost()
        return {"generation": state.generation, "kept_out": self._kept_out}

    def _status(self) -> dict[str, Any]:
        return {
            "generation": self._generation,
            "kept_out": self._kept_out,
            "refused_packets": self._datapath.refused(),
            **self.judge.status(peers.dump()),
        }


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
    remembering = asyncio.create_task(agent.peers.remember())
    remembering.add_done_callback(_said)
    judging = asyncio.create_task(agent.judge.run())
    judging.add_done_callback(_end)
    while line := await reader.readline():
        question = json.loads(line)
        if question["verb"] == "report":  # nobody waits for an answer to that
            said = question["report"]
            agent.judge.heard(question["exit"], None if said is None else from_data(ExitReport, said))
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
