from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chain.agent.choice import choose
from chain.contract import Group

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
