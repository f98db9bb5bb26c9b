from __future__ import annotations

from chain.agent.failover import Failover, Group, Judged, Member, Policy
from chain.agent.standby import FIRST_SECONDS, Standby
from chain.agent.verdict import State

EXITS, COLD = ("paris", "oslo", "rome"), {"oslo", "rome"}


def begun() -> tuple[Standby, Failover]:
    standby = Standby()
    standby.begin(0.0)
    return standby, Failover([Group("g", Policy.FAILOVER, tuple(Member(name) for name in EXITS), 0.0)])


def test_exits_are_given_time_to_come_up_at_first() -> None:
    standby, failover = begun()
    standby.heard("paris", "dialling")
    standby.heard("oslo", "resting")
    assert standby.news(1.0, failover, EXITS, COLD, ()) == frozenset()
    assert standby.news(FIRST_SECONDS - 0.1, failover, EXITS, COLD, ()) is None
    standby.look_again()
    assert standby.news(FIRST_SECONDS + 0.1, failover, EXITS, COLD, ()) == frozenset({"oslo"})


def test_a_cold_one_of_which_nothing_is_heard_keeps_no_other_from_being_dialled() -> None:
    standby, failover = begun()
    standby.heard("paris", "down")
    standby.heard("rome", "resting")
    assert standby.news(1.0, failover, EXITS, COLD, ()) == frozenset({"oslo"})
    assert standby.news(FIRST_SECONDS + 0.1, failover, EXITS, COLD, ()) == frozenset({"oslo", "rome"})


def test_one_that_fails_is_not_waited_for() -> None:
    standby, failover = begun()
    standby.heard("paris", "down")
    assert standby.news(1.0, failover, EXITS, COLD, ()) == frozenset({"oslo"})
    standby.heard("oslo", "down")
    assert standby.news(2.0, failover, EXITS, COLD, ()) == frozenset({"oslo", "rome"})
    standby.heard("oslo", "up")
    failover.handle(3.0, Judged("oslo", State.GOOD, ""))
    assert standby.news(3.0, failover, EXITS, COLD, ()) == frozenset({"oslo"})
    failover.handle(4.0, Judged("oslo", State.DEAD, "silence"))
    standby.look_again()
    assert standby.news(4.0, failover, EXITS, COLD, {"oslo"}) == frozenset({"oslo", "rome"})


def test_a_dead_one_that_was_up_is_not_waited_for() -> None:
    standby, failover = begun()
    standby.heard("paris", "up")
    failover.handle(1.0, Judged("paris", State.GOOD, ""))
    assert standby.news(1.0, failover, EXITS, COLD, ()) == frozenset()
    failover.handle(2.0, Judged("paris", State.DEAD, "silence"))
    standby.look_again()
    assert standby.news(2.0, failover, EXITS, COLD, {"paris"}) == frozenset({"oslo"})


def test_nothing_is_said_of_a_chain_without_cold_exits() -> None:
    standby, failover = begun()
    standby.heard("paris", "down")
    assert standby.news(1.0, failover, EXITS, (), ()) is None
