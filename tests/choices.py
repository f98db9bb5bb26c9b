"""What the kernel is told of groups, for tests of rulesets: as the agent would say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.agent import choice
from chain.agent.failover import Failover

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import DesiredState
    from chain.node.lock import Choice


def buckets(state: DesiredState) -> dict[str, int]:
    """Give each client's bucket."""
    return choice.client_buckets(state, Failover(choice.groups(state)).buckets)


def by_flow(state: DesiredState) -> dict[int, int]:
    """Give the first bucket of each group that shares by flow, and how many it has."""
    return choice.by_flow(state, Failover(choice.groups(state)).buckets)


def all_by(state: DesiredState, exits: Mapping[str, str]) -> Choice:
    """Send all clients of each of these groups by one exit."""
    counts = Failover(choice.groups(state)).buckets
    return choice.marks(
        state,
        {
            (choice.key(group), bucket): exit_
            for group, exit_ in exits.items()
            for bucket in range(counts[choice.key(group)])
        },
    )
