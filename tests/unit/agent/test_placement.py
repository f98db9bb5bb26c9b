from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chain.agent import choice
from chain.agent.failover import Failover
from chain.agent.placement import Placement
from chain.contract import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.contract import DesiredState
    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp, server: 192.0.2.1}
  oslo: {kind: l2tp, server: 192.0.2.2}
groups:
  default: {exits: [paris, oslo], policy: balance}
  slow: {exits: [oslo]}
"""


@pytest.fixture
def state(built: Callable[[str], Topology]) -> DesiredState:
    return built(TEXT).state


def test_where_clients_are_counted_anew_the_former_buckets_lead_somewhere_too(state: DesiredState) -> None:
    many = Failover(choice.groups(state)).buckets
    first = replace(state.groups[0], policy="failover")
    listed = replace(state, groups=(first, *state.groups[1:]))
    few = Failover(choice.groups(listed)).buckets
    assert (many["@default"], few["@default"]) == (24, 1)
    chosen = {("@default", 0): "paris", ("@slow", 0): "oslo"}
    meanwhile = Placement.of(state, many).towards(Placement.of(listed, few))
    paris, oslo = (exit_.mark for exit_ in state.exits)
    told = meanwhile.choice(listed, chosen, few)
    assert told.buckets == {
        **{choice.bucket_of(first, bucket): paris for bucket in range(24)},
        choice.bucket_of(state.groups[1], 0): oslo,
    }
    assert told == replace(Placement.of(listed, few).choice(listed, chosen, few), buckets=told.buckets)


def test_a_mark_that_is_another_groups_now_leads_nowhere_until_its_clients_are_placed(state: DesiredState) -> None:
    default, slow = state.groups
    swapped = replace(state, groups=(replace(default, name="slow"), replace(slow, name="default")))
    counts = Failover(choice.groups(swapped)).buckets
    chosen = {(key, bucket): "oslo" for key, count in counts.items() for bucket in range(count)}
    before = Placement.of(state, Failover(choice.groups(state)).buckets)
    told = before.towards(Placement.of(swapped, counts)).choice(swapped, chosen, counts)
    assert (told.groups, told.buckets) == ({}, {})
    assert Placement.of(swapped, counts).choice(swapped, chosen, counts).groups.keys() == {default.mark, slow.mark}


def test_what_another_agent_left_is_counted_by_what_was_in_force(state: DesiredState) -> None:
    default, slow = state.groups
    names = {default.mark: "default", slow.mark: "slow"}
    found = Placement.found(state, names, {("@default", 23): "paris", ("@default", 3): "oslo"})
    assert found == Placement(
        names, {default.mark: 24, slow.mark: BUCKETS}
    )  # as many as there can be, where it was blocked
    assert not Placement.found(state, {}, {}).choice(state, {("@slow", 0): "oslo"}, {"@default": 1, "@slow": 1}).buckets
