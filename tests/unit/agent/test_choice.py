from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from chain.agent.choice import choose, kept_out
from chain.contract import Client, Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

EXITS = ("a", "b", "c", "d")


def group(name: str, *exits: str) -> Group:
    return Group(name, 0x101, exits, "10.213.15.1", 5301)


def test_the_first_open_exit_in_the_groups_own_order_is_used() -> None:
    groups = [group("default", "a", "b"), group("far", "c", "b")]
    assert choose(groups, {"a", "b", "c"}) == {"default": "a", "far": "c"}
    assert choose(groups, {"b"}) == {"default": "b", "far": "b"}
    assert choose(groups, {"c"}) == {"far": "c"}
    assert choose(groups, set()) == {}


@given(st.permutations(EXITS), st.sets(st.sampled_from(EXITS)))
def test_a_closed_exit_is_never_chosen_and_no_open_one_stands_before(order: list[str], opened: set[str]) -> None:
    chosen = choose([group("default", *order)], opened).get("default")
    assert (chosen is None) == (not opened)
    if chosen is not None:
        assert chosen in opened
        assert not opened & set(order[: order.index(chosen)])


def test_who_should_share_a_key_with_the_entry_and_does_not_is_kept_out(
    built: Callable[[str], Topology], minimal: str
) -> None:
    clients = [Client(name, "", "10.13.13.2", "fd00::2", "default", psk_file=name) for name in ("phone", "tv")]
    clients.append(Client("old", "", "10.13.13.4", "fd00::4", "default"))
    assert kept_out(replace(built(minimal).state, clients=tuple(clients)), {"phone": ""}) == ["tv"]
