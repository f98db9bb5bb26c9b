"""What ways through the internet do to packets: models of one direction each, on a simulated clock, all seeded.

A model is asked with the time at which a packet passes; it says by how much the packet is delayed, or None where it is
lost. Packets are asked about nearly in the order of time: `HISTORY` seconds at most before the latest.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

HISTORY = 3.0


class Way(Protocol):
    """One direction of a path."""

    def passes(self, at: float) -> float | None:
        """Give the seconds that a packet is delayed, or None where it is lost."""
        ...


class Independent:
    """Each packet is lost with the same chance."""

    def __init__(self, random: Random, share: float) -> None:
        self._random, self._share = random.random, share

    def passes(self, at: float) -> float | None:  # noqa: ARG002 - chance knows no time
        return None if self._random() < self._share else 0.0


class _Phases:
    """Two phases in turn, of random lengths."""

    def __init__(self, random: Random, well: float, ill: float | None, fixed: float = 0.0) -> None:
        self._random, self._well, self._ill, self._fixed = random, well, ill, fixed
        self._turns = [-math.inf, random.expovariate(1 / well)]  # the ill phase begins at odd places

    def ill_until(self, at: float) -> float | None:
        """Give the end of the ill phase that holds at this time, or None in a good one."""
        turns = self._turns
        while turns[-1] <= at:
            if len(turns) % 2:
                length = self._random.expovariate(1 / self._well)
            else:
                length = self._fixed if self._ill is None else self._random.expovariate(1 / self._ill)
            turns.append(turns[-1] + length)
            if len(turns) > 1000 and turns[500] < at - HISTORY:
                del turns[:500]
        place = bisect_right(turns, at)
        return turns[place] if place % 2 == 0 else None


class Bursts:
    """Gilbert's and Elliott's two states: in the bad one, packets are lost with a chance of their own."""

    def __init__(self, random: Random, share: float, mean: float, within: float = 1.0) -> None:
        """Lose this share of all packets, in bursts of this mean length in seconds."""
        bad = share / within
        self._phases = _Phases(random, mean * (1 - bad) / bad, mean)
        self._random, self._within = random.random, within

    def passes(self, at: float) -> float | None:
        return None if self._phases.ill_until(at) is not None and self._random() < self._within else 0.0


class Stalls:
    """Nothing passes for a fixed time, every few minutes. It is lost, or it waits until the end."""

    def __init__(self, random: Random, every: float, length: float, *, waits: bool) -> None:
        self._phases, self._waits = _Phases(random, every, None, length), waits

    def passes(self, at: float) -> float | None:
        end = self._phases.ill_until(at)
        if end is None:
            return 0.0
        return end - at if self._waits else None


class Jitter:
    """Delays that change from packet to packet."""

    def __init__(self, random: Random, most: float) -> None:
        self._uniform, self._most = random.uniform, most

    def passes(self, at: float) -> float | None:  # noqa: ARG002 - likewise
        return self._uniform(0.0, self._most)


class Bloat:
    """A queue that fills up slowly, and is emptied at once."""

    def __init__(self, every: float, ramp: float, most: float) -> None:
        self._every, self._ramp, self._most = every, ramp, most

    def passes(self, at: float) -> float | None:
        into = at % self._every
        return self._most * into / self._ramp if into < self._ramp else 0.0


class Rising:
    """Loss that rises from none to all."""

    def __init__(self, random: Random, begin: float, over: float) -> None:
        self._random, self._begin, self._over = random.random, begin, over

    def passes(self, at: float) -> float | None:
        return None if self._random() * self._over < at - self._begin else 0.0


class Hole:
    """Nothing passes any more, or for a time; it is lost, or it waits until the end."""

    def __init__(self, begin: float, end: float = math.inf, *, waits: bool = False) -> None:
        self._begin, self._end, self._waits = begin, end, waits

    def passes(self, at: float) -> float | None:
        if not self._begin <= at < self._end:
            return 0.0
        return self._end - at if self._waits else None


class Together:
    """Several of them, one after the other."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = ways

    def passes(self, at: float) -> float | None:
        delay = 0.0
        for way in self._ways:
            more = way.passes(at)
            if more is None:
                return None
            delay += more
        return delay
