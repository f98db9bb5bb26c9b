from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chain.agent.maintenance import EVERY_DAY, Window, in_force

MONDAY, SUNDAY = 0, 6
minutes = st.integers(0, 1439)


def test_a_window_holds_on_its_days_from_begin_to_end() -> None:
    window = Window("a", 2 * 60, 4 * 60 + 30, frozenset({SUNDAY}))
    assert window.reason == "maintenance until 04:30"
    assert in_force([window], SUNDAY, 120) == {window}
    assert in_force([window], SUNDAY, 269) == {window}
    assert not in_force([window], SUNDAY, 270)
    assert not in_force([window], SUNDAY, 119)
    assert not in_force([window], MONDAY, 130)


def test_it_may_go_past_midnight_and_past_the_weeks_end() -> None:
    window = Window("a", 23 * 60, 60, frozenset({SUNDAY}))
    assert window.covers(SUNDAY, 23 * 60)
    assert window.covers(MONDAY, 59)
    assert not window.covers(MONDAY, 60)
    assert not window.covers(SUNDAY, 30)


@given(minutes, minutes, st.sets(st.sampled_from(sorted(EVERY_DAY))))
def test_it_holds_as_long_as_it_says(begin: int, end: int, days: set[int]) -> None:
    window = Window("a", begin, end, frozenset(days))
    held = sum(window.covers(day, minute) for day in EVERY_DAY for minute in range(1440))
    assert held == len(days) * ((end - begin) % 1440 or 1440)
