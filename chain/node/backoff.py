"""How long to wait before trying again. Pure: the randomness is an argument."""

from __future__ import annotations


def delay(attempt: int, jitter: float, *, first: float = 0.5, cap: float = 20.0) -> float:
    """Give seconds before attempt number `attempt` (from 1): doubling, capped, and spread by `jitter` in [0, 1)."""
    ceiling = min(cap, first * 2.0 ** min(attempt - 1, 16))
    return ceiling * (0.5 + jitter / 2)
