"""The agent's process: commands come in by standard input, one line of JSON each, and each gets a line as its answer.

A state's clients are a line of their own, which follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import nftables

from chain.agent import aside, clients, routes, status, steering
from chain.agent.datapath import Datapath
from chain.agent.judge import Judge
from chain.contract import LINE_LIMIT, DesiredState, ExitReport, from_data
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping


class Agent:
    def __init__(self) -> None:
        self._datapath = Datapath(nftables.Nftables)
        self._generation = ""  # of the state that is in force
        self._applying: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._meanwhile: dict[str, ExitReport | None] = {}  # what exits said since the last state came
        self.clients = clients.Clients()
        self.judge = Judge(self._datapath)

    def begin(self, question: Mapping[str, Any], said: bytes) -> None:
        """Do what one line says, or begin to. `said`: the line of a state's clients."""
        try:
            work = self._work(question, said)
        except Exception as error:  # noqa: BLE001 - the asker gets every error; the lock stays as it is
            _refuse(question, error)
            return
        task = asyncio.create_task(_answer(question, work))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        if question["verb"] == "apply":
            self._applying = task

    def heard(self, name: str, report: ExitReport | None) -> None:
        """Take what an exit says, or that it is gone."""
        self._meanwhile[name] = report
        self.judge.heard(name, report)

    def _work(self, question: Mapping[str, Any], said: bytes) -> Coroutine[Any, Any, bytes]:
        match question["verb"]:
            case "apply":
                if self._applying is not None:  # nobody waits for it any more, and it is not to come after this one
                    self._applying.cancel()
                self._meanwhile = {}
                return self._apply(question, said, self._applying)
            case "status":
                return self._status(question)
            case verb if verb in steering.VERBS:
                self.judge.steer(question)
        return _done(question)

    async def _apply(self, question: Mapping[str, Any], said: bytes, former: asyncio.Task[None] | None) -> bytes:
        """Mean a state from now on, and then put its clients into its groups. Raises whatever its parts raise."""
        if former is not None:
            await asyncio.wait({former})
        state = from_data(DesiredState, question["state"])
        links = dict(question["links"])
        # First, so that the former state is still meant if it fails.
        await aside.line(partial(routes.install, state, links))
        reports = {name: from_data(ExitReport, report) for name, report in question["reports"].items()}
        now = {name: report for name, report in (reports | self._meanwhile).items() if report is not None}
        self.judge.take_over(state, links, now, dict(question["groups_before"]))
        buckets = dict(self.judge.buckets)
        try:
            await self.clients.place(question["state"], said, question["private_key"], buckets, self._datapath.load)
        finally:  # those that are called already are to be let alone some time, whatever else failed
            self.clients.call_lost()
        self.judge.placed()
        self._generation = state.generation
        return _encoded(question, {"generation": self._generation, "kept_out": self.clients.kept_out})

    async def _status(self, question: Mapping[str, Any]) -> bytes:
        found = {"generation": self._generation, "kept_out": self.clients.kept_out, **self.judge.status()}
        going = self.judge.going()

        def with_clients() -> bytes:
            shown = status.clients(self.clients.placed, going, clients.dump())
            return _encoded(question, found | {"clients": shown})

        return await aside.line(with_clients)


async def _done(question: Mapping[str, Any]) -> bytes:
    return _encoded(question, {})


async def _answer(question: Mapping[str, Any], work: Coroutine[Any, Any, bytes]) -> None:
    try:
        answer = await work
    except Exception as error:  # noqa: BLE001 - the asker gets every error; the lock stays as it is
        _refuse(question, error)
    else:
        _say(answer)


def _refuse(question: Mapping[str, Any], error: Exception) -> None:
    text = str(error) if isinstance(error, aside.WorkError) else f"{type(error).__name__}: {error}"
    log("agent", text)
    _say(_encoded(question, {"error": text}))


def _encoded(question: Mapping[str, Any], answer: dict[str, Any]) -> bytes:
    return json.dumps(answer | {"id": question.get("id")}).encode()


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


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
    remembering = asyncio.create_task(agent.clients.remember())
    remembering.add_done_callback(_said)
    judging = asyncio.create_task(agent.judge.run())
    judging.add_done_callback(_end)
    while line := await reader.readline():
        question = json.loads(line)
        if question["verb"] == "report":  # nobody waits for an answer to that
            said = question["report"]
            agent.heard(question["exit"], None if said is None else from_data(ExitReport, said))
        else:
            agent.begin(question, await reader.readline() if question["verb"] == "apply" else b"")
        await asyncio.sleep(0)  # exits are looked at between any two lines, those too that have come already


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
