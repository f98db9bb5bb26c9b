"""Times of the week in which an exit is drained. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

EVERY_DAY = frozenset(range(7))


@dataclass(frozen=True)
class Window:
    """From `begin` to `end`, in minutes of a day; past midnight where `end` is not the later one."""

    exit: str
    begin: int
    end: int
    days: frozenset[int] = EVERY_DAY  # on which it begins; 0 is Monday

    @property
    def reason(self) -> str:
        """Give the words for a drain."""
        return f"maintenance until {self.end // 60:02}:{self.end % 60:02}"

    def covers(self, day: int, minute: int) -> bool:
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or ((day - 1) % 7 in self.days and minute < self.end)


def in_force(windows: Iterable[Window], day: int, minute: int) -> set[Window]:
    """Give those that hold at this time: each drains its exit for its reason."""
    return {window for window in windows if window.covers(day, minute)}
