from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chain.node.backoff import delay

attempts = st.integers(min_value=1, max_value=10**6)
jitters = st.floats(min_value=0, max_value=1, exclude_max=True)


def test_it_doubles_up_to_a_ceiling() -> None:
    assert [delay(attempt, 0.999_999) for attempt in (1, 2, 3, 4)] == sorted(
        delay(attempt, 0.999_999) for attempt in (1, 2, 3, 4)
    )
    assert [round(delay(attempt, 1.0), 3) for attempt in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 20, 20]


@given(attempts, jitters)
def test_it_is_never_longer_than_the_cap_nor_shorter_than_half_of_the_first(attempt: int, jitter: float) -> None:
    assert 0.25 <= delay(attempt, jitter) <= 20


@given(attempts, jitters)
def test_a_later_attempt_never_waits_less(attempt: int, jitter: float) -> None:
    assert delay(attempt, jitter) <= delay(attempt + 1, jitter)


@given(attempts)
def test_jitter_spreads_over_half_of_the_time(attempt: int) -> None:
    assert delay(attempt, 0.0) * 2 == delay(attempt, 1.0)
