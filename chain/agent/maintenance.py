"""Times of the week in which exits are drained. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.agent.failover import Drained

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chain.contract import ExitLink, Maintenance


def covers(window: Maintenance, day: int, minute: int) -> bool:
    """Tell whether this time is in the window. `day`: 0 is Monday; `minute`: of the day."""
    if window.begin < window.end:
        return day in window.days and window.begin <= minute < window.end
    return (day in window.days and minute >= window.begin) or ((day - 1) % 7 in window.days and minute < window.end)


def in_force(windows: Iterable[Maintenance], day: int, minute: int) -> set[Drained]:
    """Say which exits are to be drained at this time, and why."""
    return {Drained(window.exit, _reason(window)) for window in windows if covers(window, day, minute)}


def through(exits: Iterable[ExitLink], name: str) -> list[str]:
    """Name the exits that run through this one, directly or not."""
    found = [exit_.name for exit_ in exits if exit_.via == name]
    return found + [each for inner in found for each in through(exits, inner)]


def _reason(window: Maintenance) -> str:
    return f"maintenance until {window.end // 60:02}:{window.end % 60:02} UTC"
