"""Which groups and buckets the kernel's clients are in, while it is told of others. Pure.

Clients are placed apart from the choice of exits, since ten thousand of them take a while: a decision is not to wait
for that, nor to be undone by it. So a choice has to be right for clients as they were placed before, and as they will
be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from chain.agent import choice
from chain.contract import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.contract import DesiredState
    from chain.node.lock import Choice


@dataclass(frozen=True)
class Placement:
    """By the marks of groups: whose clients are surely in it, and the most buckets that they may be in."""

    names: Mapping[int, str] = field(default_factory=dict)
    counts: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, state: DesiredState, buckets: Mapping[str, int]) -> Self:
        """Give what is so once all clients are placed. `buckets`: the numbers of the failover's groups."""
        return cls(
            {group.mark: group.name for group in state.groups},
            {group.mark: buckets[choice.key(group.name)] for group in state.groups},
        )

    @classmethod
    def found(cls, state: DesiredState, names: Mapping[int, str], chosen: Mapping[tuple[str, int], str]) -> Self:
        """Give what another agent left. `chosen`: what was in force then, by this state's groups.

        All buckets of a group have an exit or none; of those that were blocked nobody knows how many there were.
        """
        marks = {choice.key(group.name): group.mark for group in state.groups}
        counts: dict[int, int] = {}
        for group, bucket in chosen:
            counts[marks[group]] = max(counts.get(marks[group], 0), bucket + 1)
        return cls(names, {mark: counts.get(mark, BUCKETS) for mark in names})

    def towards(self, other: Placement) -> Placement:
        """Give what is so while clients may be placed in this way or in the other."""
        return Placement(
            {mark: name for mark, name in self.names.items() if other.names.get(mark) == name},
            {mark: max(self.counts.get(mark, 0), count) for mark, count in other.counts.items()},
        )

    def choice(self, state: DesiredState, chosen: Mapping[tuple[str, int], str], buckets: Mapping[str, int]) -> Choice:
        """Say in marks which exit each bucket uses, those too that there will be no more.

        A group's mark under which there may still be clients of another group leads nowhere.
        """
        found = {}
        for group in state.groups:
            if self.names.get(group.mark) != group.name:
                continue
            key = choice.key(group.name)
            for bucket in range(max(buckets[key], self.counts.get(group.mark, 0))):
                if exit_ := chosen.get((key, bucket % buckets[key])):
                    found[key, bucket] = exit_
        return choice.marks(state, found)
