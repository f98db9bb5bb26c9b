"""End clients' TCP connections by exits that died, beside the judging of others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

from chain.agent.netfilter import Netfilter
from chain.agent.nudge import Nudger
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chain.agent.netfilter import Flow

# Seconds before each nudge of what is not over yet: a client's own link may lose one, and a suspect exit may have got
# more since its connections were listed.
_AGAIN = 0.0, 0.15, 0.5, 2.0
_BATCH, _PAUSE = 200, 0.002  # a tunnel device holds 500 packets
# The kernel takes tens of milliseconds to list them, since it looks through those of the whole machine. So they are
# listed when an exit falls silent, once clients have gone elsewhere.
_SOON = 0.1  # seconds


class Endings:
    def __init__(self, is_open: Callable[[str], bool]) -> None:
        """`is_open`: whether an exit, by its name, is in use again; what is left of its connections may then go on."""
        self._is_open = is_open
        self._nudger: Nudger | None = None
        self._lists: dict[str, asyncio.Task[list[Flow]]] = {}  # of exits that may be about to die
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def expect(self, name: str, mark: int) -> None:
        """Get ready to end those by an exit that may be about to die."""
        self.forget(name)
        self._lists[name] = asyncio.create_task(self._list(mark))

    def forget(self, name: str) -> None:
        """Expect no more that it dies."""
        if listing := self._lists.pop(name, None):
            listing.cancel()

    def begin(self, name: str, mark: int) -> None:
        """Begin to end those by an exit, from the beginning if that was begun before."""
        listing = self._lists.get(name)
        expected = listing.result() if listing is not None and listing.done() and not listing.exception() else []
        self.forget(name)
        if ending := self._tasks.pop(name, None):
            ending.cancel()
        self._tasks[name] = asyncio.create_task(self._end(name, mark, expected))

    async def _list(self, mark: int) -> list[Flow]:
        await asyncio.sleep(_SOON)
        found: list[Flow] = []
        try:
            with contextlib.closing(Netfilter()) as netfilter:
                for batch in _batches(netfilter.tcp_flows(mark)):
                    found += batch
                    await asyncio.sleep(_PAUSE)
        except OSError as error:
            log("agent", f"connections are not listed: {error.strerror}")
        return found

    async def _end(self, name: str, mark: int, expected: list[Flow]) -> None:
        """Have clients notice, those too whose connections are idle."""
        try:
            for pause in _AGAIN:
                await asyncio.sleep(pause)
                if self._is_open(name):
                    break
                if expected:
                    await self._nudge(expected)
                    expected = []
                else:
                    with contextlib.closing(Netfilter()) as netfilter:
                        await self._nudge(netfilter.tcp_flows(mark))
        except OSError as error:  # they notice when they next send something
            log("agent", f"idle connections are not ended: {error.strerror}")
        finally:
            if self._tasks.get(name) is asyncio.current_task():
                del self._tasks[name]

    async def _nudge(self, flows: Iterable[Flow]) -> None:
        """Nudge them, not in one go: there may be thousands, and other exits have to be looked after meanwhile."""
        nudger = self._nudger = self._nudger or Nudger()
        for batch in _batches(flows):
            nudger.nudge(batch)
            await asyncio.sleep(_PAUSE)


def _batches(flows: Iterable[Flow]) -> Iterator[list[Flow]]:
    left = iter(flows)
    while batch := list(itertools.islice(left, _BATCH)):
        yield batch
