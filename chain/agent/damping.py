"""How often an exit may be opened, so that one that comes and goes does not keep the entry from its work. Pure."""

from __future__ import annotations

BURST = 20  # times at once: more than any repair takes
REFILL_SECONDS = 2.0  # for each further time


class Allowance:
    """Of one exit. `now` is in seconds of a clock that only goes forward."""

    def __init__(self, now: float) -> None:
        self._left, self._at = float(BURST), now

    def take(self, now: float) -> bool:
        """Use it once, if there is anything left."""
        self._refill(now)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def wait(self, now: float) -> float:
        """Give the seconds until there is something left."""
        self._refill(now)
        return max(0.0, (1 - self._left) * REFILL_SECONDS)

    def _refill(self, now: float) -> None:
        self._left = min(BURST, self._left + (now - self._at) / REFILL_SECONDS)
        self._at = now
