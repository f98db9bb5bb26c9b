from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chain.agent.failover import (
    BEAR,
    MOST_BUCKETS,
    NEVER,
    SETTLE,
    WHEN_BETTER,
    Drained,
    Event,
    Failover,
    Group,
    Judged,
    Member,
    Move,
    Pinned,
    Policy,
    Switch,
    Undrained,
    spread,
)
from chain.agent.verdict import State

if TYPE_CHECKING:
    from collections.abc import Mapping

EXITS = ("a", "b", "c", "d")


def failover(name: str, *members: str, fail_back: float = 60.0) -> Group:
    return Group(name, Policy.FAILOVER, tuple(Member(member) for member in members), fail_back)


def balance(name: str, fail_back: float = 60.0, **weights: int) -> Group:
    return Group(name, Policy.BALANCE, tuple(Member(*member) for member in weights.items()), fail_back)


def good(*exits: str) -> list[Event]:
    return [Judged(exit_, State.GOOD, "it answers") for exit_ in exits]


def dead(*exits: str) -> list[Event]:
    return [Judged(exit_, State.DEAD, "silence") for exit_ in exits]


def suspect(*exits: str) -> list[Event]:
    return [Judged(exit_, State.SUSPECT, "silence") for exit_ in exits]


def used(machine: Failover, group: str = "g") -> set[str | None]:
    return {machine.chosen.get((group, bucket)) for bucket in range(machine.buckets[group])}


# One at a time


def test_the_first_good_exit_is_used_and_all_others_stay_open() -> None:
    machine = Failover([failover("g", "a", "b", "c")])
    switch = machine.handle(0.0, *good("b", "c"), *dead("a"))
    assert switch == Switch(frozenset({"b", "c"}), {("g", 0): "b"}, (Move("g", (0,), None, "b", "exit b is good"),), ())
    assert machine.handle(0.0, *good("b")) is None


def test_a_suspect_one_is_left_and_a_dead_one_is_reset_too() -> None:
    machine = Failover([failover("g", "a", "b")])
    machine.handle(0.0, *good("a", "b"))
    switch = machine.handle(1.0, *suspect("a"))
    assert switch is not None
    assert switch.moves == (Move("g", (0,), "a", "b", "exit a is suspect: silence"),)
    assert (switch.opened, switch.died) == (frozenset("ab"), ())
    switch = machine.handle(2.0, *dead("a"))
    assert switch is not None
    assert (switch.opened, switch.died, switch.moves) == (frozenset("b"), ("a",), ())


def test_a_suspect_one_is_used_where_nothing_better_is_and_not_exchanged_for_another() -> None:
    machine = Failover([failover("g", "a", "b")])
    machine.handle(0.0, *dead("a"), *good("b"))
    assert machine.handle(1.0, *suspect("b")) is None
    assert machine.handle(2.0, *suspect("a")) is not None  # it is opened, no more
    assert used(machine) == {"b"}
    machine.handle(3.0, *dead("b"))
    assert used(machine) == {"a"}


def test_nobody_left_is_blocked_and_said() -> None:
    machine = Failover([failover("g", "a", "b")])
    machine.handle(0.0, *good("a"))
    switch = machine.handle(1.0, *dead("a"))
    assert switch is not None
    move = Move("g", (0,), "a", None, "no exit is left; exit a is dead: silence")
    assert switch == Switch(frozenset(), {}, (move,), ("a",))


# Coming back


@pytest.mark.parametrize(("fail_back", "after"), [(WHEN_BETTER, 0.0), (60.0, 60.0)])
def test_a_better_exit_is_used_again_by_policy(fail_back: float, after: float) -> None:
    machine = Failover([failover("g", "a", "b", fail_back=fail_back)])
    machine.handle(0.0, *good("a", "b"))
    machine.handle(1.0, *dead("a"))
    machine.handle(2.0, *suspect("a"))
    assert used(machine) == {"b"}
    machine.handle(10.0, *good("a"))
    if after:
        assert (used(machine), machine.wake) == ({"b"}, 70.0)
        assert machine.handle(69.9) is None
        switch = machine.handle(70.0)
        assert switch is not None
        assert switch.moves[0].cause == "exit a is preferred, and has been good for 60 s"


def test_where_nothing_is_waited_for_no_wait_is_said() -> None:
    machine = Failover([failover("g", "a", "b", fail_back=0.0)])
    machine.handle(0.0, *good("b"))
    switch = machine.handle(1.0, *good("a"))
    assert switch is not None
    assert switch.moves[0].cause == "exit a is preferred, and good"
    assert (used(machine), machine.wake) == ({"a"}, math.inf)


def test_by_never_it_is_used_again_when_the_present_one_fails() -> None:
    machine = Failover([failover("g", "a", "b", fail_back=NEVER)])
    machine.handle(0.0, *good("a", "b"))
    machine.handle(1.0, *dead("a"))
    machine.handle(2.0, *good("a"))
    machine.handle(1e9)
    assert (used(machine), machine.wake) == ({"b"}, math.inf)
    machine.handle(1e9, *suspect("b"))
    assert used(machine) == {"a"}


def test_the_time_to_come_back_begins_anew_with_every_suspicion() -> None:
    machine = Failover([failover("g", "a", "b")])
    machine.handle(0.0, *good("b"))
    machine.handle(10.0, *good("a"))
    machine.handle(60.0, *suspect("a"))
    machine.handle(61.0, *good("a"))
    assert machine.wake == 121.0


# By hand


def test_a_drained_exit_keeps_its_flows_and_gets_no_new_ones() -> None:
    machine = Failover([failover("g", "a", "b", fail_back=WHEN_BETTER)])
    machine.handle(0.0, *good("a", "b"))
    switch = machine.handle(1.0, Drained("a", "by hand"), Drained("a", "maintenance"))
    assert switch is not None
    assert switch.opened == {"a", "b"}
    assert switch.moves[0].cause == "exit a is drained: by hand, maintenance"
    assert machine.drained() == {"a": ("by hand", "maintenance")}
    assert machine.handle(2.0, Undrained("a", "by hand")) is None
    machine.handle(3.0, Undrained("a", "maintenance"))
    assert used(machine) == {"a"}


def test_rather_than_a_drained_exit_none_is_used() -> None:
    machine = Failover([failover("g", "a")])
    machine.handle(0.0, *good("a"), Drained("a", "by hand"))
    assert used(machine) == {None}


def test_a_pinned_exit_is_used_at_once_while_it_is_good() -> None:
    machine = Failover([failover("g", "a", "b", "c", fail_back=NEVER)])
    machine.handle(0.0, *good("a", "b", "c"))
    switch = machine.handle(1.0, Pinned("g", "c"))
    assert switch is not None
    assert switch.moves == (Move("g", (0,), "a", "c", "chosen by hand"),)
    machine.handle(2.0, *suspect("c"))
    assert used(machine) == {"a"}
    switch = machine.handle(3.0, *good("c"))
    assert switch is not None
    assert switch.moves == (Move("g", (0,), "a", "c", "exit c was chosen by hand, and is good"),)
    machine.handle(4.0, Pinned("g", None))
    assert used(machine) == {"a"}
    with pytest.raises(ValueError, match="exit d is not in group g"):
        machine.handle(5.0, Pinned("g", "d"))


# Balance


def test_three_to_one_over_a_thousand_clients_is_exact_and_only_the_dead_ones_clients_move() -> None:
    machine = Failover([balance("g", a=3, b=1)])
    machine.handle(0.0, *good("a", "b"))
    clients = spread((f"client{number}" for number in range(1000)), machine.buckets["g"])

    def where() -> dict[str, str]:
        return {client: machine.chosen["g", bucket] for client, bucket in clients.items()}

    before = where()
    assert Counter(before.values()) == {"a": 750, "b": 250}
    machine.handle(1.0, *dead("b"))
    assert {client for client, exit_ in where().items() if exit_ != before[client]} == {
        client for client, exit_ in before.items() if exit_ == "b"
    }
    machine.handle(2.0, *good("b"))
    machine.handle(61.0)
    assert set(where().values()) == {"a"}
    machine.handle(62.0)
    assert where() == before


def test_a_dead_ones_share_is_spread_by_the_others_weights() -> None:
    machine = Failover([balance("g", a=3, b=2, c=1)])
    machine.handle(0.0, *good("a", "b", "c"))
    machine.handle(1.0, *dead("a"))
    assert Counter(machine.chosen.values()) == {"b": 16, "c": 8}


weights = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@given(weights, st.integers(0, 400))
def test_every_exit_has_its_share_exact_to_one_client(given_weights: list[int], count: int) -> None:
    names = [f"exit{number}" for number in range(len(given_weights))]
    machine = Failover([balance("g", **dict(zip(names, given_weights, strict=True)))])
    assume(machine.buckets["g"] < MOST_BUCKETS)
    machine.handle(0.0, *good(*names))
    found = Counter(
        machine.chosen["g", bucket] for bucket in spread(map(str, range(count)), machine.buckets["g"]).values()
    )
    for name, weight in zip(names, given_weights, strict=True):
        assert abs(found[name] - count * weight / sum(given_weights)) < 1


@given(weights, st.integers(1, 200))
def test_a_new_client_hardly_moves_others(given_weights: list[int], count: int) -> None:
    names = [f"exit{number}" for number in range(len(given_weights))]
    machine = Failover([balance("g", **dict(zip(names, given_weights, strict=True)))])
    machine.handle(0.0, *good(*names))

    def where(clients: int) -> dict[str, str]:
        placed = spread(map(str, range(clients)), machine.buckets["g"])
        return {client: machine.chosen["g", bucket] for client, bucket in placed.items()}

    before, after = where(count), where(count + 1)
    assert sum(after[client] != exit_ for client, exit_ in before.items()) < max(len(names), 2)


# Groups in groups


def test_a_tier_may_be_a_balance() -> None:
    machine = Failover([failover("g", "pair", "c"), balance("pair", a=3, b=1)])
    machine.handle(0.0, *good("a", "b", "c"))
    assert Counter(machine.chosen["g", bucket] for bucket in range(machine.buckets["g"])) == {"a": 18, "b": 6}
    machine.handle(1.0, *dead("a"))
    assert used(machine) == {"b"}
    machine.handle(2.0, *suspect("b"))
    assert used(machine) == {"c"}
    assert used(machine, "pair") == {"b"}
    machine.handle(3.0, *dead("c"))
    assert used(machine) == {"b"}


def test_a_balance_may_be_of_groups() -> None:
    machine = Failover([balance("g", x=2, y=1), failover("x", "a", "b"), balance("y", b=1, c=1)])
    machine.handle(0.0, *good("a", "b", "c"))
    counted = Counter(machine.chosen["g", bucket] for bucket in range(machine.buckets["g"]))
    assert counted == {"a": 16, "b": 4, "c": 4}
    machine.handle(1.0, *dead("a"))
    assert Counter(machine.chosen["g", bucket] for bucket in range(machine.buckets["g"])) == {"b": 20, "c": 4}
    assert machine.exits("g") == ("a", "b", "c")


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([failover("g", "h"), failover("h", "g")], "a member of itself"),
        ([balance("g", a=0)], "below 1"),
    ],
)
def test_what_makes_no_sense_is_refused(groups: list[Group], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Failover(groups)


def test_odd_weights_get_no_more_buckets_than_there_are_marks_for() -> None:
    machine = Failover([balance("g", a=997, b=1, c=601)])
    assert machine.buckets == {"g": MOST_BUCKETS}
    machine.handle(0.0, *good("a", "b", "c"))
    assert Counter(machine.chosen.values())["a"] == 160


# Change of configuration, and restarts


def test_other_groups_are_in_force_at_once_and_what_can_stay_stays() -> None:
    machine = Failover([failover("g", "a", "b"), failover("h", "b", "c", fail_back=NEVER)])
    machine.handle(0.0, *good("a", "b", "c"))
    machine.handle(1.0, *dead("b"))
    machine.handle(2.0, *good("b"), Pinned("g", "b"))
    assert (used(machine, "g"), used(machine, "h")) == ({"b"}, {"c"})
    machine.reconfigure([failover("g", "c", "a"), failover("h", "b", "c")], "abc")
    switch = machine.handle(3.0)
    assert switch is not None
    assert (used(machine, "g"), used(machine, "h")) == ({"c"}, {"b"})
    assert {move.cause for move in switch.moves} == {"exit b is not in the group any more", "the configuration changed"}


def test_whom_an_exit_leaves_a_group_did_not_leave_because_it_was_blocked() -> None:
    machine = Failover([failover("g", "a", "b"), failover("h", "c", "a")])
    machine.handle(0.0, *good("a", "b", "c"))
    machine.reconfigure([failover("g", "b"), failover("h", "d")], "abcd")
    switch = machine.handle(1.0)
    assert switch is not None
    assert switch.moves == (
        Move("g", (0,), "a", "b", "exit a is not in the group any more"),
        Move("h", (0,), "c", None, "exit c is not in the group any more"),
    )
    assert machine.handle(2.0, *suspect("c")) is None, "it is told once"
    machine.reconfigure([balance("g", b=1, d=1), failover("h", "d")], "abcd")
    switch = machine.handle(3.0, *good("d"))
    assert switch is not None
    assert {(move.group, move.source, move.target) for move in switch.moves} == {("g", "b", "d"), ("h", None, "d")}
    assert used(machine) == {"b", "d"}
    machine.reconfigure([failover("g", "a")], "abcd")
    machine.reconfigure([failover("g", "b")], "abcd")
    assert machine.handle(4.0) is not None
    assert used(machine) == {"b"}


def test_a_group_that_stays_as_it_is_does_not_go_back_because_another_changes() -> None:
    groups = [failover("g", "a", "b", fail_back=NEVER), failover("outer", "inner"), failover("inner", "a", "b")]
    machine = Failover(groups)
    machine.handle(0.0, *good("a", "b"))
    machine.handle(1.0, *dead("a"))
    machine.handle(1.0 + SETTLE, *good("a"))
    assert used(machine, "g") == used(machine, "outer") == {"b"}
    machine.reconfigure([groups[0], groups[1], failover("inner", "a", "b", fail_back=5.0)], "ab")
    machine.handle(2.0 + SETTLE)
    assert (used(machine, "g"), used(machine, "outer"), used(machine, "inner")) == ({"b"}, {"a"}, {"a"})


def test_an_exit_of_which_nothing_is_known_any_more_is_not_used() -> None:
    machine = Failover([failover("g", "a", "b")])
    machine.handle(0.0, *good("a", "b"))
    machine.reconfigure([failover("g", "a", "b")], "b")
    machine.handle(1.0)
    assert used(machine) == {"b"}


@pytest.mark.parametrize("wait", [60.0, NEVER])
def test_exits_that_come_up_one_after_the_other_are_used_as_preferred(wait: float) -> None:
    machine = Failover([failover("g", "a", "b", fail_back=wait)])
    machine.handle(0.0, *good("b"))
    machine.handle(SETTLE - 1, *good("a"))
    assert used(machine) == {"a"}
    machine.handle(SETTLE, *dead("a"))
    machine.handle(SETTLE + 1, *good("a"))
    assert used(machine) == {"b"}


def test_a_balance_that_never_goes_back_is_balanced_at_its_start() -> None:
    machine = Failover([replace(balance("g", a=3, b=1), fail_back=NEVER)])
    machine.handle(0.0, *good("b"))
    machine.handle(1.0, *good("a"))
    assert Counter(machine.chosen.values()) == {"a": 18, "b": 6}


def test_what_an_inner_group_is_switched_to_is_no_order_where_it_is_preferred_anyway() -> None:
    groups = [failover("outer", "a", "inner"), failover("inner", "b", "a")]
    machine = Failover(groups)
    machine.handle(0.0, *good("a", "b"), Pinned("inner", "a"))
    machine.handle(SETTLE, *dead("a"))
    machine.handle(SETTLE + 1, *good("a"))
    assert (used(machine, "outer"), used(machine, "inner")) == ({"b"}, {"a"})
    machine.handle(SETTLE + 61)
    assert used(machine, "outer") == {"a"}


def test_what_an_inner_group_is_switched_to_counts_for_the_outer_one() -> None:
    machine = Failover([failover("outer", "inner", "c", fail_back=NEVER), failover("inner", "a", "b")])
    machine.handle(0.0, *good("a", "b", "c"))
    machine.handle(SETTLE, Pinned("inner", "b"))
    assert used(machine, "outer") == used(machine, "inner") == {"b"}
    machine.handle(SETTLE + 1, *dead("b"))
    assert used(machine, "outer") == {"a"}
    machine.handle(SETTLE + 2, *good("b"))
    assert used(machine, "outer") == {"b"}
    machine.handle(SETTLE + 3, Pinned("inner", None))
    assert used(machine, "outer") == {"a"}


def test_without_an_event_nothing_is_said_before_it_is_due() -> None:
    machine = Failover([failover("g", "a", "b")])
    machine.handle(0.0, *good("b"), *dead("a"))
    machine.handle(31.0, *good("a"))
    assert machine.wake == 91.0
    assert machine.handle(90.9) is None
    switch = machine.handle(91.0)
    assert switch is not None
    assert used(machine) == {"a"}


def test_after_a_restart_it_goes_on_with_what_was_in_force() -> None:
    groups = [failover("g", "a", "b", fail_back=NEVER)]
    machine = Failover(groups, {("g", 0): "b", ("g", 7): "a", ("old", 0): "a"})
    switch = machine.handle(0.0, *good("a", "b"))
    assert switch is not None
    assert (switch.chosen, switch.moves) == ({("g", 0): "b"}, ())


# Whatever happens

GROUPS = (
    [failover("g", "a", "b", "c")],
    [balance("g", fail_back=NEVER, a=3, b=1), failover("h", "b", "d", fail_back=WHEN_BETTER)],
    [failover("g", "pair", "c"), balance("pair", a=2, b=1, d=1)],
    [balance("g", x=2, c=1, fail_back=WHEN_BETTER), failover("x", "a", "b"), balance("h", a=1, b=1)],
)

exits = st.sampled_from(EXITS)
judgements = st.builds(Judged, exits, st.sampled_from(State), st.just("so"))


class Whatever(RuleBasedStateMachine):
    """What the kernel would hold after each step, and what must be true of it."""

    @initialize(groups=st.sampled_from(GROUPS))
    def begin(self, groups: list[Group]) -> None:
        self.groups = groups
        self.now = 0.0
        self.states = dict.fromkeys(EXITS, State.DEAD)
        self.drains: set[tuple[str, str]] = set()
        self.machine = Failover(groups)
        self.opened: frozenset[str] = frozenset()
        self.chosen: Mapping[tuple[str, int], str] = {}
        assert self.machine.handle(self.now) == Switch(self.opened, self.chosen, (), ())

    def take(self, switch: Switch | None) -> None:
        """Do as the kernel is told; each move says what was and what is."""
        if switch is None:
            return
        for move in switch.moves:
            for bucket in move.buckets:
                assert self.chosen.get((move.group, bucket)) == move.source
                assert switch.chosen.get((move.group, bucket)) == move.target
            assert move.cause
        moved = {(move.group, bucket) for move in switch.moves for bucket in move.buckets}
        for key in self.chosen.keys() | switch.chosen.keys():
            assert key in moved or self.chosen.get(key) == switch.chosen.get(key)
        self.opened, self.chosen = switch.opened, switch.chosen

    def judged(self, *events: Judged) -> Switch | None:
        for event in events:
            self.states[event.exit] = event.state
        return self.machine.handle(self.now, *events)

    @rule(events=st.lists(judgements, min_size=1, max_size=4))
    def judge(self, events: list[Judged]) -> None:
        self.take(self.judged(*events))

    @rule(exit_=exits)
    def die(self, exit_: str) -> None:
        self.take(self.machine.handle(self.now))
        switch = self.judged(Judged(exit_, State.DEAD, "silence"))
        if switch is not None:
            assert {move.source for move in switch.moves} <= {exit_}
            assert set(switch.died) <= {exit_}
        self.take(switch)
        assert exit_ not in self.opened

    @rule(exit_=exits, reason=st.sampled_from(["by hand", "maintenance"]), drain=st.booleans())
    def drain(self, exit_: str, reason: str, drain: bool) -> None:  # noqa: FBT001 - drawn
        (self.drains.add if drain else self.drains.discard)((exit_, reason))
        self.take(self.machine.handle(self.now, (Drained if drain else Undrained)(exit_, reason)))

    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from([group.name for group in self.groups]))
        self.take(
            self.machine.handle(self.now, Pinned(group, data.draw(st.sampled_from([None, *self.machine.exits(group)]))))
        )

    @rule(seconds=st.floats(0.0, 100.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.machine.handle(self.now))

    @rule(groups=st.sampled_from(GROUPS))
    def reconfigure(self, groups: list[Group]) -> None:
        # What stays is not moved, and buckets that are no longer there need no move.
        self.groups = groups
        before = self.machine.buckets
        self.machine.reconfigure(groups, self.states)
        places = [(group, bucket, count) for group, count in self.machine.buckets.items() for bucket in range(count)]
        former = {
            (group, bucket): self.chosen.get((group, bucket * before.get(group, 0) // count))
            for group, bucket, count in places
        }
        self.chosen = {place: exit_ for place, exit_ in former.items() if exit_}
        self.take(self.machine.handle(self.now))

    @rule()
    def restart(self) -> None:
        self.machine = Failover(self.groups, self.chosen)
        told = [Judged(exit_, state, "so") for exit_, state in self.states.items()]
        switch = self.machine.handle(self.now, *told, *(Drained(exit_, reason) for exit_, reason in self.drains))
        assert switch is not None
        self.take(switch)

    def usable(self, group: str, state: State) -> set[str]:
        drained = {exit_ for exit_, _ in self.drains}
        return {exit_ for exit_ in self.machine.exits(group) if self.states[exit_] is state and exit_ not in drained}

    @invariant()
    def nothing_goes_where_it_must_not(self) -> None:
        for (group, _), exit_ in self.chosen.items():
            assert exit_ in self.opened
            assert self.states[exit_] is not State.DEAD
            assert exit_ in self.usable(group, self.states[exit_])
            if self.states[exit_] is State.SUSPECT:
                assert not self.usable(group, State.GOOD)
        for exit_ in self.opened:
            assert self.states[exit_] is not State.DEAD

    @invariant()
    def who_can_be_served_is_served(self) -> None:
        for group, count in self.machine.buckets.items():
            for bucket in range(count):
                somebody = self.usable(group, State.GOOD) or self.usable(group, State.SUSPECT)
                assert ((group, bucket) in self.chosen) == bool(somebody)

    @invariant()
    def nothing_is_left_to_do(self) -> None:
        assert self.machine.chosen == self.chosen
        assert self.machine.wake > self.now
        assert self.machine.handle(self.now) is None


TestWhatever = Whatever.TestCase


# Cold exits


def test_a_cold_exit_is_needed_when_no_better_one_can_be_used() -> None:
    machine = Failover([failover("g", "a", "b", "c")])
    cold = {"b", "c"}
    machine.handle(0, *good("a"))
    assert machine.needed(0, cold, ()) == set()
    machine.handle(1, *dead("a"))
    assert machine.needed(1, cold, ()) == {"b"}
    assert machine.needed(1, cold, {"b"}) == {"b", "c"}  # it goes on trying, since it is preferred
    machine.handle(2, *good("c"))
    assert machine.needed(2, cold, {"b"}) == {"b", "c"}
    machine.handle(40, *good("b"))
    assert machine.needed(40, cold, ()) == {"b", "c"}  # the one in use, until clients fail back
    machine.handle(100)
    assert used(machine) == {"b"}
    assert machine.needed(100, cold, ()) == {"b"}
    machine.handle(101, *good("a"))
    machine.handle(161)
    assert used(machine) == {"a"}
    assert machine.needed(161, cold, ()) == set()


def test_a_suspect_exit_is_borne_with_for_a_moment() -> None:
    machine = Failover([failover("g", "a", "b")])
    machine.handle(0, *good("a"))
    machine.handle(10, *suspect("a"))
    assert machine.needed(10 + 0.9 * BEAR, {"b"}, ()) == set()
    assert machine.needed(10 + 1.1 * BEAR, {"b"}, ()) == {"b"}
    machine.handle(11, *good("a"))
    assert machine.needed(20, {"b"}, ()) == set()


def test_a_cold_exit_is_dialled_before_the_one_it_stands_in_for_is_drained() -> None:
    machine = Failover([failover("g", "a", "b", "c")])
    machine.handle(0, *good("a"))
    assert machine.needed(0, {"b", "c"}, ()) == set()
    assert machine.needed(0, {"b", "c"}, (), leaving={"a"}) == {"b"}
    assert machine.needed(0, {"b", "c"}, (), leaving={"a", "b"}) >= {"c"}
    machine.handle(1, *dead("a"))
    assert machine.needed(1, {"b"}, (), leaving={"b"}) == {"b"}  # for the moment that is left


def test_what_is_done_by_hand_decides_whether_a_cold_exit_is_needed() -> None:
    machine = Failover([failover("g", "a", "b")])
    machine.handle(0, *good("a"))
    machine.handle(1, Pinned("g", "b"))
    assert machine.needed(1, {"b"}, ()) == {"b"}
    machine.handle(2, Pinned("g", None), Drained("a", "by hand"))
    assert machine.needed(2, {"b"}, ()) == {"b"}
    machine.handle(3, Drained("b", "by hand"))
    assert machine.needed(3, {"b"}, ()) == set()


def test_a_share_of_a_balance_needs_its_cold_exit() -> None:
    machine = Failover([balance("g", a=1, b=1), failover("h", "a", "c")])
    machine.handle(0, *good("a"))
    assert machine.needed(0, {"b", "c"}, ()) == {"b"}


@given(st.data())
def test_some_exit_is_always_needed_or_good(data: st.DataObject) -> None:
    """Where all are cold and none drained, there is one that tries to connect, whatever has failed."""
    machine = Failover([failover("g", *EXITS)])
    states = data.draw(st.dictionaries(st.sampled_from(EXITS), st.sampled_from(list(State))))
    failing = data.draw(st.sets(st.sampled_from(EXITS)))
    machine.handle(0, *(Judged(exit_, state, "") for exit_, state in states.items()))
    needed = machine.needed(0, set(EXITS), failing)
    assert needed
    assert {exit_ for exit_ in used(machine) if exit_} <= needed
