from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from chain.agent import choice
from chain.agent.choice import kept_out
from chain.agent.failover import NEVER, Failover, Group, Judged, Member, Policy
from chain.agent.verdict import Sensitivity, State
from chain.contract import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp, server: 192.0.2.1}
  oslo: {kind: l2tp, server: 192.0.2.2}
"""
GROUPS = """\
groups:
  default: {exits: [oslo, eu], fail_back: never}
  eu: {exits: [paris, oslo], policy: balance, weights: {paris: 3}}
  slow: {exits: [paris], fail_back: 60s}
"""


def test_groups_are_handed_over_with_the_groups_in_them(built: Callable[[str], Topology]) -> None:
    state = built(TEXT + GROUPS).state
    assert choice.groups(state) == [
        Group("@default", Policy.FAILOVER, (Member("oslo"), Member("@eu")), NEVER),
        Group("@eu", Policy.BALANCE, (Member("paris", 3), Member("oslo")), 0.0),
        Group("@slow", Policy.FAILOVER, (Member("paris"),), 60.0),
    ]


def test_an_exit_and_a_group_may_have_one_name(built: Callable[[str], Topology]) -> None:
    state = built(TEXT + "groups: {paris: {exits: [paris]}, default: {exits: [oslo]}}\n").state
    assert Failover(choice.groups(state)).exits("@paris") == ("paris",)


def test_every_bucket_has_a_mark_of_its_own_and_clients_share_them_by_weight(
    built: Callable[[str], Topology],
) -> None:
    state = built(TEXT + GROUPS).state
    clients = tuple(Client(f"c{n}", "", "10.13.13.2", "fd00::2", "eu") for n in range(1000))
    state = replace(state, clients=clients)
    failover = Failover(choice.groups(state))
    marks = {
        choice.bucket_of(group, bucket)
        for group in state.groups
        for bucket in range(failover.buckets[choice.key(group.name)])
    }
    assert len(marks) == sum(failover.buckets.values())
    switch = failover.handle(0.0, *(Judged(name, State.GOOD, "up") for name in ("paris", "oslo")))
    assert switch is not None
    chosen = choice.marks(state, switch.chosen)
    exits = Counter(chosen.buckets[mark] for mark in choice.client_buckets(state, failover.buckets).values())
    by_name = {exit_.name: exit_.mark for exit_ in state.exits}
    assert exits == {by_name["paris"]: 750, by_name["oslo"]: 250}
    # The resolver of the first group goes where its clients go.
    assert chosen.groups[state.groups[0].mark] == by_name["oslo"]


def test_what_is_asked_for_says_how_soon_an_exit_is_lost(built: Callable[[str], Topology]) -> None:
    state = built(TEXT + "failover: {suspect_after: 500ms, dead_after: 3s, hold_down: 1s}\n").state
    want = choice.sensitivity(state, "paris")
    assert (want.suspect_after, want.suspect_at_most, want.dead_after, want.hold_down) == (0.5, 0.5, 3.0, 1.0)
    assert choice.sensitivity(built(TEXT).state, "paris") == Sensitivity()


def test_an_exit_that_no_other_stands_in_for_is_given_more_time(built: Callable[[str], Topology]) -> None:
    text = TEXT + "groups: {default: {exits: [paris]}, both: {exits: [paris, oslo]}, far: {exits: [oslo]}}\n"
    assert choice.sensitivity(built(text).state, "oslo") == Sensitivity()
    alone = text.replace("[paris, oslo]", "[paris]")
    assert choice.sensitivity(built(alone).state, "oslo").dead_after == choice.ALONE_DEAD_AFTER


def test_who_should_share_a_key_with_the_entry_and_does_not_is_kept_out(
    built: Callable[[str], Topology], minimal: str
) -> None:
    clients = [Client(name, "", "10.13.13.2", "fd00::2", "default", psk_file=name) for name in ("phone", "tv")]
    clients.append(Client("old", "", "10.13.13.4", "fd00::4", "default"))
    assert kept_out(replace(built(minimal).state, clients=tuple(clients)), {"phone": ""}) == ["tv"]


def test_what_a_former_agent_decided_is_read_from_marks(built: Callable[[str], Topology]) -> None:
    state = built(TEXT + GROUPS).state
    marks = {exit_.name: exit_.mark for exit_ in state.exits}
    failover = Failover(choice.groups(state))
    switch = failover.handle(0.0, Judged("paris", State.GOOD, "up"), Judged("oslo", State.SUSPECT, "silence"))
    assert switch is not None
    found = choice.before(
        state,
        choice.marks(state, switch.chosen).buckets,
        up=marks.values(),
        opened=[marks["paris"], marks["oslo"]],
        suspect=[marks["oslo"]],
    )
    assert found == choice.Before(switch.chosen, {"paris": State.GOOD, "oslo": State.SUSPECT})
    found = choice.before(state, {7: 8, 0x10000: 0x1001}, up=[marks["paris"]], opened=[], suspect=[])
    assert found == choice.Before({}, {"paris": State.DEAD})  # of what it does not know, it knows nothing
    assert choice.before(state, {}, up=[], opened=[], suspect=[]) == choice.Before()
