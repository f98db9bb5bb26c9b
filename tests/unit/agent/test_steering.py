from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chain.agent import choice
from chain.agent.failover import Drained, Failover, Pinned, Undrained
from chain.agent.steering import Steering, ordered
from chain.contract import BY_HAND

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

TEXT = (
    "entry: {endpoint: vpn.example.org}\n"
    "exits: {paris: {kind: l2tp}, oslo: {kind: l2tp}}\n"
    "groups: {default: {exits: [paris, oslo]}, slow: {exits: [paris]}}\n"
)


def test_what_was_chosen_by_hand_is_read_again() -> None:
    steering = Steering({"default": "oslo"}, ["paris"])
    assert Steering.of(json.loads(json.dumps(vars(steering)))) == steering


@pytest.mark.parametrize("found", [{}, {"pins": [], "drains": {}}, {"pins": {"default": None}, "drains": [1, None]}])
def test_what_makes_no_sense_is_as_if_nothing_had_been_chosen(found: dict[str, Any]) -> None:
    assert Steering.of(found) == Steering()


def test_what_was_chosen_for_an_exit_or_a_group_that_is_gone_no_longer_holds(
    built: Callable[[str], Topology],
) -> None:
    state = built(TEXT).state
    steering = Steering({"default": "oslo", "slow": "oslo", "fast": "paris"}, ["rome", "paris"])
    assert steering.holding(state) == Steering({"default": "oslo"}, ["paris"])


def test_an_order_is_read_for_exits_and_groups_that_are_there(built: Callable[[str], Topology]) -> None:
    failover = Failover(choice.groups(built(TEXT).state))

    def read(verb: str, **fields: str | None) -> Pinned | Drained | Undrained:
        return ordered({"verb": verb, **fields}, failover, {"paris", "oslo"})

    assert read("switch", group="default", exit="oslo") == Pinned("@default", "oslo")
    assert read("switch", group="default", exit=None) == Pinned("@default", None)
    assert read("drain", exit="oslo") == Drained("oslo", BY_HAND)
    assert read("undrain", exit="oslo") == Undrained("oslo", BY_HAND)
    for verb, fields, words in (
        ("switch", {"group": "fast", "exit": None}, "no group fast"),
        ("switch", {"group": "slow", "exit": "oslo"}, "exit oslo is not in group slow"),
        ("drain", {"exit": "rome"}, "no exit rome"),
    ):
        with pytest.raises(ValueError, match=words):
            read(verb, **fields)


def test_orders_that_are_noted_are_what_another_agent_begins_with() -> None:
    steering = Steering()
    for order, changes in (
        (Pinned("@default", "oslo"), True),
        (Pinned("@default", "oslo"), False),
        (Pinned("@slow", None), False),
        (Pinned("@slow", "paris"), True),
        (Pinned("@slow", None), True),
        (Drained("paris", BY_HAND), True),
        (Drained("paris", BY_HAND), False),
        (Undrained("oslo", BY_HAND), False),
        (Drained("oslo", BY_HAND), True),
        (Undrained("oslo", BY_HAND), True),
    ):
        assert steering.note(order) is changes
    assert steering == Steering({"default": "oslo"}, ["paris"])
    assert steering.events() == [Drained("paris", BY_HAND), Pinned("@default", "oslo")]
