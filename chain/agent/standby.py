"""Which cold exits have to be connected: from what exits say of themselves, and what the groups would use. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from chain.agent.failover import Failover

FIRST_SECONDS = 10.0  # that exits have at first to come up, before cold ones are dialled in their place
LOOK_SECONDS = 1.0  # between two looks while nothing happens


class Standby:
    def __init__(self) -> None:
        self._began = math.inf
        self._been_up: set[str] = set()
        self._failing: set[str] = set()
        self._heard: set[str] = set()
        self._leaving: frozenset[str] = frozenset()
        self._said: frozenset[str] | None = None
        self._wake = -math.inf

    def begin(self, now: float) -> None:
        """Take note that exits may be expected to come up from now on."""
        self._began = min(self._began, now)

    def heard(self, exit_: str, state: str | None) -> None:
        """Take what an exit says of itself; None: it is gone."""
        self._heard.add(exit_)
        if state in ("up", "resting"):
            self._failing.discard(exit_)
        elif state in ("down", None):
            self._failing.add(exit_)
        if state == "up":
            self._been_up.add(exit_)
        self._wake = -math.inf

    def announced(self, leaving: Collection[str]) -> None:
        """Take note of who will be drained soon: another is to be up by then."""
        self._leaving = frozenset(leaving)

    def news(
        self,
        now: float,
        failover: Failover,
        exits: Collection[str],
        cold: Collection[str],
        dead: Collection[str],
    ) -> frozenset[str] | None:
        """Name the cold exits that are needed, if they are others than at the last time.

        `dead`: those that are judged so though they say that they are up.
        """
        if now < self._wake or (not cold and not self._said):
            return None
        self._wake = now + LOOK_SECONDS
        failing, awaited = self._failing.union(dead), set()
        if now - self._began < FIRST_SECONDS:
            awaited = set(exits) - failing - self._been_up
        else:
            failing = failing.union(set(cold) - self._heard)  # who has said nothing by now won't dial
        needed = failover.needed(now, cold, failing, awaited, self._leaving)
        if needed == self._said:
            return None
        self._said = needed
        return needed

    def look_again(self) -> None:
        """Have the next look be taken at once, since something happened."""
        self._wake = -math.inf
