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
    from collections.abc import Callable

    from chain.agent.netfilter import Flow

# Seconds before each nudge of a dead exit's connections: a client's own link may lose one.
_AGAIN = 0.0, 0.5, 2.0
_BATCH, _PAUSE = 200, 0.002  # a tunnel device holds 500 packets


class Endings:
    def __init__(self, is_open: Callable[[str], bool]) -> None:
        """`is_open`: whether an exit, by its name, is in use again; what is left of its connections may then go on."""
        self._is_open = is_open
        self._nudger: Nudger | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str, mark: int) -> None:
        """Begin to end those by an exit, from the beginning if that was begun before."""
        if ending := self._tasks.pop(name, None):
            ending.cancel()
        self._tasks[name] = asyncio.create_task(self._end(name, mark))

    async def _end(self, name: str, mark: int) -> None:
        """Have clients notice, those too whose connections are idle.

        Not all at once, nor in one go: there may be thousands, and other exits have to be looked after meanwhile.
        """
        found: list[Flow] = []
        try:
            for pause in _AGAIN:
                await asyncio.sleep(pause)
                if self._is_open(name):
                    break
                nudger = self._nudger = self._nudger or Nudger()
                with contextlib.closing(Netfilter()) as netfilter:
                    flows = iter(found) if found else netfilter.tcp_flows(mark)
                    found = []
                    while batch := list(itertools.islice(flows, _BATCH)):
                        nudger.nudge(batch)
                        found += batch
                        await asyncio.sleep(_PAUSE)
        except OSError as error:  # they notice when they next send something
            log("agent", f"idle connections are not ended: {error.strerror}")
        finally:
            if self._tasks.get(name) is asyncio.current_task():
                del self._tasks[name]
