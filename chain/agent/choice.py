"""Between the contract's groups, the failover's, and the kernel's marks; and who is kept out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chain.agent.failover import NEVER, Group, Member, Policy, spread
from chain.agent.verdict import Sensitivity, State
from chain.contract import BUCKETS, MARK_BUCKET, MARK_GROUP
from chain.node.lock import Choice

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chain.contract import DesiredState
    from chain.contract import Group as Described

# An exit and a group may have the same name, which the failover knows nothing of.
_GROUP = "@"


def groups(state: DesiredState) -> list[Group]:
    """Give the groups as the failover takes them."""
    return [
        Group(
            key(group.name),
            Policy(group.policy),
            tuple(
                Member(key(member.name) if member.is_group else member.name, member.weight) for member in group.members
            ),
            NEVER if group.fail_back < 0 else group.fail_back,
        )
        for group in state.groups
    ]


# Seconds of silence that end the connections of an exit which no other can stand in for.
ALONE_DEAD_AFTER = 5.0


def sensitivity(state: DesiredState, exit_: str) -> Sensitivity:
    """Give what makes an exit suspect or dead.

    Where no other can stand in for it, nothing is won by ending its connections soon: many an outage is over before
    they would give up by themselves.
    """
    want, usual = state.sensitivity, Sensitivity()
    alone = all(group.exits == (exit_,) for group in state.groups if exit_ in group.exits)
    dead_after = max(want.dead_after, ALONE_DEAD_AFTER) if alone else want.dead_after
    return Sensitivity(
        suspect_after=want.suspect_after,
        suspect_at_most=max(want.suspect_after, usual.suspect_at_most),
        dead_after=dead_after,
        dead_at_most=max(dead_after, usual.dead_at_most),
        hold_down=want.hold_down,
    )


def key(group: str) -> str:
    """Give a group's name among the failover's."""
    return _GROUP + group


def name(key_of_group: str) -> str:
    return key_of_group.removeprefix(_GROUP)


def bucket_of(group: Described, bucket: int) -> int:
    """Give the mark of one of a group's buckets."""
    return MARK_BUCKET + (group.mark - MARK_GROUP) * BUCKETS + bucket


def client_buckets(state: DesiredState, counts: Mapping[str, int]) -> dict[str, int]:
    """Give each client's mark. `counts`: the number of buckets of each of the failover's groups."""
    found = {}
    for group in state.groups:
        members = [client.name for client in state.clients if client.group == group.name]
        for client, bucket in spread(members, counts[key(group.name)]).items():
            found[client] = bucket_of(group, bucket)
    return found


def by_flow(state: DesiredState, counts: Mapping[str, int]) -> dict[int, int]:
    """Give the mark of the first bucket of each group that shares by flow, and how many it has."""
    return {bucket_of(group, 0): counts[key(group.name)] for group in state.groups if group.sticky == "flow"}


def marks(state: DesiredState, chosen: Mapping[tuple[str, int], str]) -> Choice:
    """Say in marks which exit each bucket uses, and each group's resolver: that of the first bucket which has one."""
    exits = {exit_.name: exit_.mark for exit_ in state.exits}
    by_key = {key(group.name): group for group in state.groups}
    buckets: dict[int, int] = {}
    of_groups: dict[int, int] = {}
    for (group_key, bucket), exit_ in sorted(chosen.items()):
        group = by_key[group_key]
        buckets[bucket_of(group, bucket)] = exits[exit_]
        of_groups.setdefault(group.mark, exits[exit_])
    return Choice(of_groups, buckets)


@dataclass(frozen=True)
class Before:
    """What a former agent decided."""

    chosen: Mapping[tuple[str, int], str] = field(default_factory=dict)
    states: Mapping[str, State] = field(default_factory=dict)  # of exits that said that they were up


def before(
    state: DesiredState,
    buckets: Mapping[int, int],
    *,
    up: Collection[int],
    opened: Collection[int],
    suspect: Collection[int],
) -> Before:
    """Read that from the kernel's marks. `buckets`: the exit that each uses; `up`: exits that said so."""
    exits = {exit_.mark: exit_.name for exit_ in state.exits}
    by_mark = {group.mark: key(group.name) for group in state.groups}
    found = {}
    for bucket, exit_ in buckets.items():
        index, number = divmod(bucket - MARK_BUCKET, BUCKETS)
        if exit_ in exits and MARK_GROUP + index in by_mark:
            found[by_mark[MARK_GROUP + index], number] = exits[exit_]
    states = {
        name: State.DEAD if mark not in opened else State.SUSPECT if mark in suspect else State.GOOD
        for mark, name in exits.items()
        if mark in up
    }
    return Before(found, states)


def kept_out(state: DesiredState, keys: Collection[str]) -> list[str]:
    """Name the clients that should share a key with the entry and have none among these."""
    return [client.name for client in state.clients if client.psk_file and client.name not in keys]
