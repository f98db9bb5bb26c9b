"""Which exit each group uses, and who is kept out. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from chain.contract import DesiredState, Group


def choose(groups: Iterable[Group], open_exits: Collection[str]) -> dict[str, str]:
    """Give each group its first open exit, in the group's order; a group without one is left out, thus blocked."""
    chosen = {}
    for group in groups:
        first = next((name for name in group.exits if name in open_exits), None)
        if first is not None:
            chosen[group.name] = first
    return chosen


def kept_out(state: DesiredState, keys: Collection[str]) -> list[str]:
    """Name the clients that should share a key with the entry and have none among these."""
    return [client.name for client in state.clients if client.psk_file and client.name not in keys]
