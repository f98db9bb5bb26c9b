"""End clients' TCP connections by exits that died, beside the judging of others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import TYPE_CHECKING

from chain.agent.netfilter import Netfilter
from chain.agent.nudge import Nudger
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from chain.agent.netfilter import Flow

# Seconds before each nudge of a dead exit's connections: a client's own link may lose one.
_AGAIN = 0.0, 0.5, 2.0
_BATCH, _PAUSE = 200, 0.002  # a tunnel device holds 500 packets
# To list connections takes tens of milliseconds, since the kernel looks through those of the whole machine. So it is
# done when an exit falls silent, once clients are elsewhere; what was found counts until the exit is dead or recovers.
_SOON, _STALE = 0.1, 5.0  # seconds


class Endings:
    def __init__(self, is_open: Callable[[str], bool]) -> None:
        """`is_open`: whether an exit, by its name, is in use again; what is left of its connections may then go on."""
        self._is_open = is_open
        self._nudger: Nudger | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._expected: dict[str, tuple[float, list[Flow]]] = {}  # since when, by exit

    def expect(self, name: str, mark: int) -> None:
        """Get ready to end those by an exit that may be about to die."""
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._run(self._list, name, mark))

    def begin(self, name: str, mark: int) -> None:
        """Begin to end those by an exit, from the beginning if that was begun before."""
        if task := self._tasks.pop(name, None):
            task.cancel()
        self._tasks[name] = asyncio.create_task(self._run(self._end, name, mark))

    async def _run(self, work: Callable[[str, int], Awaitable[None]], name: str, mark: int) -> None:
        try:
            await work(name, mark)
        except OSError as error:  # they notice when they next send something
            log("agent", f"idle connections are not ended: {error.strerror}")
        finally:
            if self._tasks.get(name) is asyncio.current_task():
                del self._tasks[name]

    async def _list(self, name: str, mark: int) -> None:
        await asyncio.sleep(_SOON)
        since, found = time.monotonic(), []
        with contextlib.closing(Netfilter()) as netfilter:
            for batch in _batches(netfilter.tcp_flows(mark)):
                found += batch
                await asyncio.sleep(_PAUSE)
        self._expected[name] = since, found

    async def _end(self, name: str, mark: int) -> None:
        """Have clients notice, those too whose connections are idle.

        Not all at once, nor in one go: there may be thousands, and other exits have to be looked after meanwhile.
        """
        since, expected = self._expected.pop(name, (0.0, []))
        found = dict.fromkeys(expected if time.monotonic() - since < _STALE else [])
        listed = False
        for pause in _AGAIN:
            await asyncio.sleep(pause)
            if self._is_open(name):
                break
            nudger = self._nudger = self._nudger or Nudger()
            for batch in _batches(found):
                nudger.nudge(batch)
                await asyncio.sleep(_PAUSE)
            if not listed and (pause or not found):  # what else a suspect exit got, which is little, has until then
                listed = True
                with contextlib.closing(Netfilter()) as netfilter:
                    for batch in _batches(netfilter.tcp_flows(mark)):
                        more = [flow for flow in batch if flow not in found]
                        nudger.nudge(more)
                        found |= dict.fromkeys(more)
                        await asyncio.sleep(_PAUSE)


def _batches(flows: Iterable[Flow]) -> Iterator[list[Flow]]:
    left = iter(flows)
    while batch := list(itertools.islice(left, _BATCH)):
        yield batch
