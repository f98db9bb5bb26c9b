"""Which exit each group uses: events in, and what the kernel has to be told out. Pure.

A group is a tree: its members are exits or other groups, in the order of preference (failover) or by weight (balance).
Its clients are divided into buckets, which are what is moved: the same bucket of clients always uses the same exit, and
when an exit goes, only its buckets move.

Exits that are good are used; suspect ones where no good one is left; dead and drained ones never. Where nothing is
left, a bucket is blocked: it is not among the choices.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from hashlib import blake2b
from typing import TYPE_CHECKING

from chain.agent.verdict import State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

NEVER = math.inf  # as `fail_back`: stay until the present exit fails
WHEN_BETTER = 0.0
FINE = 24  # buckets at least where there is a balance, so that those of a dead exit can be spread
MOST_BUCKETS = 256  # beyond, weights are kept as well as these allow
UNKNOWN = "it has not said that it is up"
SETTLE = 30.0  # seconds after a group was blocked, in which better exits come up: to use one then is no way back
BEAR = 2.0  # seconds that a suspect exit is borne with before cold ones are dialled in its place


class Policy(StrEnum):
    FAILOVER = "failover"
    BALANCE = "balance"


@dataclass(frozen=True)
class Member:
    name: str  # of an exit, or of another group
    weight: int = 1  # in a balance


@dataclass(frozen=True)
class Group:
    name: str
    policy: Policy
    members: tuple[Member, ...]
    fail_back: float = (
        60.0  # seconds that a better exit has to be good before it is used again; clients' own group decides
    )


# Events


@dataclass(frozen=True)
class Judged:
    """An exit's verdict has changed."""

    exit: str
    state: State
    cause: str


@dataclass(frozen=True)
class Drained:
    """An exit is not to be used for what is new. Several may want that, each with a reason of its own."""

    exit: str
    reason: str


@dataclass(frozen=True)
class Undrained:
    exit: str
    reason: str


@dataclass(frozen=True)
class Pinned:
    """A group is to use this exit, whatever its order says, while it is good; None: the order holds again."""

    group: str
    exit: str | None


Event = Judged | Drained | Undrained | Pinned

# Commands


@dataclass(frozen=True)
class Move:
    group: str
    buckets: tuple[int, ...]
    source: str | None  # None: they were blocked
    target: str | None  # None: they are blocked now
    cause: str


@dataclass(frozen=True)
class Switch:
    """What the kernel is to be told, in one transaction."""

    opened: frozenset[str]  # exits to which packets may go: those not dead
    chosen: Mapping[tuple[str, int], str]  # where a bucket's new flows go; one that is not here is blocked
    moves: tuple[Move, ...]
    died: tuple[str, ...]  # exits whose TCP flows are to be reset


def spread(clients: Iterable[str], buckets: int) -> dict[str, int]:
    """Divide clients among the buckets, as evenly as can be.

    By the order of a hash of their names: when one comes or goes, hardly another changes its bucket.
    """
    order = sorted(set(clients), key=lambda name: (blake2b(name.encode(), digest_size=8).digest(), name))
    return {name: rank * buckets // len(order) for rank, name in enumerate(order)}


class Failover:
    def __init__(self, groups: Iterable[Group], chosen: Mapping[tuple[str, int], str] | None = None) -> None:
        """Begin with exits that are all unknown, thus dead; `chosen` is what was in force before, if anything was.

        Nothing is said before the first `handle`: give it all that is known by then, drains and pins too. It answers
        with all that is to be in force.
        """
        self._states: dict[str, tuple[State, str]] = {}
        self._good_since: dict[str, float] = {}  # of exits that are good and not drained
        self._suspect_since: dict[str, float] = {}
        self._drains: dict[str, list[str]] = defaultdict(list)
        self._pins: dict[str, str] = {}
        self._changed: set[str] = set()  # groups that mean something else since the last `handle`
        self._left: dict[tuple[str, int], str] = {}  # exits that buckets used, and that are not their groups' any more
        self._settled_at: dict[tuple[str, int], float] = {}  # when buckets that were blocked may stay where they are
        self._set_groups(groups)
        self._chosen = self._still_possible(chosen or {})
        self._said: tuple[frozenset[str], Mapping[tuple[str, int], str]] | None = None
        self.wake = math.inf  # when `handle` has to be called again at the latest, even without an event

    @property
    def buckets(self) -> Mapping[str, int]:
        """Give the number of each group's buckets."""
        return self._buckets

    @property
    def chosen(self) -> Mapping[tuple[str, int], str]:
        return dict(self._chosen)

    def exits(self, group: str) -> tuple[str, ...]:
        """Name the exits of a group and of the groups in it, in the order of preference."""
        return self._exits[group]

    def drained(self) -> dict[str, tuple[str, ...]]:
        """Give the reasons for which exits are drained."""
        return {exit_: tuple(reasons) for exit_, reasons in self._drains.items() if reasons}

    def handle(self, now: float, *events: Event) -> Switch | None:
        """Take in what happened, all at once; say what has to be changed, if anything."""
        if not events and self._said is not None and now < self.wake:
            return None  # as most of the time, many times a second
        died = []
        at_once = dict.fromkeys(self._changed, "the configuration changed")
        self._changed = set()
        for event in events:
            match event:
                case Judged(exit_, state, cause):
                    if state is State.DEAD and self._state(exit_) is not State.DEAD:
                        died.append(exit_)
                    self._states[exit_] = state, cause
                case Drained(exit_, reason):
                    if reason not in self._drains[exit_]:
                        self._drains[exit_].append(reason)
                case Undrained(exit_, reason):
                    if reason in self._drains[exit_]:
                        self._drains[exit_].remove(reason)
                case Pinned(group, exit_or_none):
                    self._pin(group, exit_or_none)
                    told = "chosen by hand" if exit_or_none else "back to what is preferred, by hand"
                    at_once |= dict.fromkeys(self._around[group], told)
        self._note_good(now)
        return self._settle(now, died, at_once)

    def pinned(self, group: str) -> str | None:
        """Give the exit that a group is pinned to."""
        return self._pins.get(group)

    def needed(
        self,
        now: float,
        cold: Collection[str],
        failing: Collection[str],
        awaited: Collection[str] = (),
        leaving: Collection[str] = (),
    ) -> frozenset[str]:
        """Name the cold exits that have to be connected: those in use, and those that would be if they were.

        `failing`: those whose last attempt to connect failed. They go on trying, and what comes after them is needed
        too. `awaited`: those that are given time to come up. `leaving`: those that will be drained soon. What this
        says changes with events, and `BEAR` seconds after one.
        """
        found = {exit_ for exit_ in self._chosen.values() if exit_ in cold}
        for group, count in self._buckets.items():
            exits = self._exits[group]
            ready = {exit_ for exit_ in exits if exit_ in awaited or self._can_be_relied_on(exit_, now)}
            resting = [exit_ for exit_ in exits if exit_ in cold and not self._drains[exit_]]
            ready.update(exit_ for exit_ in resting if exit_ not in failing)
            ready.difference_update(leaving)  # it may still serve for a moment, but is not to be relied on
            found.update(exit_ for exit_ in resting if exit_ == self._pins.get(group))
            for exit_ in resting:
                usable = ready | {exit_}
                if any(self._pick(group, (bucket + 0.5) / count, usable) == exit_ for bucket in range(count)):
                    found.add(exit_)
        return frozenset(found)

    def _can_be_relied_on(self, exit_: str, now: float) -> bool:
        return self._may_be_used(exit_) and now - self._suspect_since.get(exit_, now) < BEAR

    def reconfigure(self, groups: Iterable[Group], exits: Collection[str]) -> None:
        """Mean other groups from the next `handle` on; what can stay as it is stays.

        `exits`: those of which something is known. All that is said of them, by verdicts or by hand, has to be said
        again, but for that which has not changed.
        """
        before, counts = self._groups, self._buckets
        self._set_groups(groups)
        self._changed |= {
            name for name in self._groups if any(before.get(each) != self._groups[each] for each in self._within(name))
        }
        self._states = {exit_: told for exit_, told in self._states.items() if exit_ in exits}
        self._good_since = {exit_: since for exit_, since in self._good_since.items() if exit_ in exits}
        self._suspect_since = {exit_: since for exit_, since in self._suspect_since.items() if exit_ in exits}
        for exit_ in self._drains.keys() - set(exits):
            del self._drains[exit_]
        present = {
            (group, bucket): was
            for group, count in self._buckets.items()
            for bucket in range(count)
            # Where they are others than before, each goes on from where the one in its place was.
            if (was := (self._left | self._chosen).get((group, bucket * counts.get(group, 0) // count)))
        }
        self._chosen = self._still_possible(present)
        self._left = {place: exit_ for place, exit_ in present.items() if place not in self._chosen}
        self._pins = {group: name for group, name in self._pins.items() if name in self._exits.get(group, ())}
        self.wake = -math.inf

    # What is wanted

    def _settle(self, now: float, died: Collection[str], at_once: Mapping[str, str]) -> Switch | None:
        """Move what has to move; groups named in `at_once` do not wait for the time to fail back."""
        moved: dict[tuple[str, str | None, str | None, str], list[int]] = defaultdict(list)
        self.wake = math.inf
        for group, count in self._buckets.items():
            good = {exit_ for exit_ in self._exits[group] if exit_ in self._good_since}
            left = good or {exit_ for exit_ in self._exits[group] if self._may_be_used(exit_)}
            for bucket in range(count):
                present = self._chosen.get((group, bucket))
                target, due = self._target(group, bucket, present, left)
                left_behind = self._left.pop((group, bucket), None)
                if target == present and left_behind is None:
                    continue
                if due > now >= self._settled_at.get((group, bucket), -math.inf) and group not in at_once:
                    self.wake = min(self.wake, due)
                    continue
                by_hand = at_once.get(group) or self._by_hand(group, bucket, target, left)
                cause = self._cause(now, group, present, target, by_hand)
                if left_behind is not None:
                    cause = f"exit {left_behind} is not in the group any more"
                moved[group, present or left_behind, target, cause].append(bucket)
                if target is None:
                    self._chosen.pop((group, bucket), None)
                else:
                    self._chosen[group, bucket] = target
                if present is None:
                    self._settled_at[group, bucket] = now + SETTLE
                elif present not in self._good_since:  # what comes now is the way back
                    self._settled_at.pop((group, bucket), None)
        opened = frozenset(exit_ for exit_, (state, _) in self._states.items() if state is not State.DEAD)
        said = opened, dict(self._chosen)
        if said == self._said and not moved and not died:
            return None
        self._said = said
        moves = (
            Move(group, tuple(buckets), source, target, cause)
            for (group, source, target, cause), buckets in moved.items()
        )
        return Switch(opened, said[1], tuple(moves), tuple(died))

    def _target(
        self, group: str, bucket: int, present: str | None, usable: Collection[str]
    ) -> tuple[str | None, float]:
        """Give the exit that a bucket should use, and when it may go there.

        The usable ones are all good, or all suspect.
        """
        best = self._pick(group, self._place(group, bucket), usable)
        if present not in usable or best is None:
            return best, -math.inf
        if best not in self._good_since:  # suspects are not exchanged for each other
            return present, -math.inf
        by_hand = self._by_hand(group, bucket, best, usable)
        return best, -math.inf if by_hand else self._good_since[best] + self._groups[group].fail_back

    def _place(self, group: str, bucket: int) -> float:
        return (bucket + 0.5) / self._buckets[group]

    def _by_hand(self, group: str, bucket: int, target: str | None, usable: Collection[str]) -> str | None:
        """Say so where a bucket goes to an exit because that was chosen by hand, for its group or one inside it."""
        pinned = target is not None and target == self._pins.get(group)
        if pinned or target != self._pick(group, self._place(group, bucket), usable, pinned=False):
            return f"exit {target} was chosen by hand, and is good"
        return None

    def _pick(self, name: str, place: float, usable: Collection[str], *, pinned: bool = True) -> str | None:
        """Go down to the usable exit at a place between 0 and 1 of a group. `pinned`: as far as none is by hand."""
        group = self._groups.get(name)
        if group is None:
            return name if name in usable else None
        if pinned and (pin := self._pins.get(name)) in usable:
            return pin
        if group.policy is Policy.FAILOVER:
            found = (self._pick(member.name, place, usable, pinned=pinned) for member in group.members)
            return next(filter(None, found), None)
        if not any(exit_ in usable for exit_ in self._exits[name]):
            return None
        left, total = list(group.members), sum(member.weight for member in group.members)
        while left:
            place *= total
            for member in left:
                if place < member.weight or member is left[-1]:
                    break
                place -= member.weight
            place /= member.weight
            if one := self._pick(member.name, place, usable, pinned=pinned):
                return one
            left.remove(member)  # its share is spread over the others, by their weights
            total -= member.weight
        return None

    def _cause(self, now: float, group: str, present: str | None, target: str | None, at_once: str | None) -> str:
        if present is not None and present not in self._good_since:
            why = self._drains[present]
            state, cause = self._states.get(present, (State.DEAD, UNKNOWN))
            text = f"drained: {', '.join(why)}" if why and state is not State.DEAD else f"{state}: {cause}"
            text = f"exit {present} is {text}"
            return text if target is not None else f"no exit is left; {text}"
        if present is None:
            return f"exit {target} is {self._state(target or '')}"
        if at_once is not None:
            return at_once
        wait = self._groups[group].fail_back
        waited = 0 < wait <= now - self._good_since.get(target or "", now)
        return f"exit {target} is preferred" + (f", and has been good for {wait:g} s" if waited else ", and good")

    # What is known

    def _state(self, exit_: str) -> State:
        return self._states.get(exit_, (State.DEAD, ""))[0]

    def _may_be_used(self, exit_: str) -> bool:
        return self._state(exit_) is not State.DEAD and not self._drains[exit_]

    def _note_good(self, now: float) -> None:
        for exit_, (state, _) in self._states.items():
            if state is State.SUSPECT:
                self._suspect_since.setdefault(exit_, now)
            else:
                self._suspect_since.pop(exit_, None)
            if state is State.GOOD and self._may_be_used(exit_):
                self._good_since.setdefault(exit_, now)
            else:
                self._good_since.pop(exit_, None)

    def _pin(self, group: str, exit_: str | None) -> None:
        if exit_ is None:
            self._pins.pop(group, None)
        elif exit_ in self._exits[group]:
            self._pins[group] = exit_
        else:
            raise ValueError(f"exit {exit_} is not in group {group}")

    def _still_possible(self, chosen: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], str]:
        return {
            (group, bucket): exit_
            for (group, bucket), exit_ in chosen.items()
            if bucket < self._buckets.get(group, 0) and exit_ in self._exits[group]
        }

    def _set_groups(self, groups: Iterable[Group]) -> None:
        self._groups = {group.name: group for group in groups}
        self._exits = {name: tuple(dict.fromkeys(self._leaves(name, ()))) for name in self._groups}
        self._buckets = {name: self._count(name) for name in self._groups}
        self._around = {
            name: tuple(each for each in self._groups if name in self._within(each)) for name in self._groups
        }

    def _within(self, name: str) -> Iterable[str]:
        """Name a group, and those in it."""
        yield name
        for member in self._groups[name].members:
            if member.name in self._groups:
                yield from self._within(member.name)

    def _leaves(self, name: str, above: tuple[str, ...]) -> Iterable[str]:
        if name in above:
            raise ValueError(f"group {name} is a member of itself")
        group = self._groups.get(name)
        if group is None:
            yield name
            return
        for member in group.members:
            if member.weight < 1:
                raise ValueError(f"group {name}: the weight of {member.name} is below 1")
            yield from self._leaves(member.name, (*above, name))

    def _count(self, name: str) -> int:
        """Give the fewest buckets that keep all weights exactly; a multiple of that where it is small."""
        least = self._divisor(name)
        return 1 if least == 1 else min(least * -(-FINE // least), MOST_BUCKETS)

    def _divisor(self, name: str) -> int:
        group = self._groups.get(name)
        if group is None:
            return 1
        inner = [self._divisor(member.name) for member in group.members]
        if group.policy is Policy.FAILOVER:
            return math.lcm(*inner)
        total = sum(member.weight for member in group.members)
        parts = (Fraction(member.weight, total * part) for member, part in zip(group.members, inner, strict=True))
        return math.lcm(*(part.denominator for part in parts))
