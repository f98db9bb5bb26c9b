from __future__ import annotations

from chain.agent.damping import BURST, REFILL_SECONDS, Allowance


def test_a_burst_is_allowed_and_then_a_steady_rate() -> None:
    allowance = Allowance(100.0)
    assert [allowance.take(100.0) for _ in range(BURST + 1)] == [True] * BURST + [False]
    assert allowance.wait(100.0) == REFILL_SECONDS
    assert not allowance.take(100.0 + REFILL_SECONDS / 2)
    assert allowance.take(100.0 + REFILL_SECONDS)
    assert not allowance.take(100.0 + REFILL_SECONDS)


def test_no_more_than_a_burst_is_saved() -> None:
    allowance = Allowance(0.0)
    assert sum(allowance.take(1e6) for _ in range(2 * BURST)) == BURST
    assert allowance.wait(1e6 + REFILL_SECONDS) == 0.0


def test_however_fast_it_is_asked_for_its_rate_is_bounded() -> None:
    allowance = Allowance(0.0)
    taken = sum(allowance.take(step / 100) for step in range(6000))  # a minute
    assert taken <= BURST + 60 / REFILL_SECONDS
