from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chain.agent.failover import Drained
from chain.agent.maintenance import covers, in_force
from chain.contract import Maintenance

MONDAY, SUNDAY = 0, 6
EVERY_DAY = tuple(range(7))
minutes = st.integers(0, 1439)


def test_a_window_holds_on_its_days_from_begin_to_end() -> None:
    window = Maintenance("a", 2 * 60, 4 * 60 + 30, (SUNDAY,))
    held = {Drained("a", "maintenance until 04:30 UTC")}
    assert in_force([window], SUNDAY, 120) == held
    assert in_force([window], SUNDAY, 269) == held
    assert not in_force([window], SUNDAY, 270)
    assert not in_force([window], SUNDAY, 119)
    assert not in_force([window], MONDAY, 130)


def test_it_may_go_past_midnight_and_past_the_weeks_end() -> None:
    window = Maintenance("a", 23 * 60, 60, (SUNDAY,))
    assert covers(window, SUNDAY, 23 * 60)
    assert covers(window, MONDAY, 59)
    assert not covers(window, MONDAY, 60)
    assert not covers(window, SUNDAY, 30)


@given(minutes, minutes, st.sets(st.sampled_from(EVERY_DAY)))
def test_it_holds_as_long_as_it_says(begin: int, end: int, days: set[int]) -> None:
    window = Maintenance("a", begin, end, tuple(days))
    held = sum(covers(window, day, minute) for day in EVERY_DAY for minute in range(1440))
    assert held == len(days) * ((end - begin) % 1440 or 1440)
