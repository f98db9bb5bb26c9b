"""What counts on the way to the largest packet; the packets themselves are tried in tests/netns and tests/scenarios."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.node.probe import SMALLEST, TRIES, largest, mtu_of, objection

if TYPE_CHECKING:
    from collections.abc import Callable


def measured(full: int, passes: Callable[[int], bool]) -> tuple[int | None, list[int]]:
    asked = []

    async def ask(size: int) -> bool:
        asked.append(size)
        return passes(size)

    return asyncio.run(largest(full, ask)), asked


@given(st.integers(SMALLEST + 1, 9000), st.integers(SMALLEST, 9000))
def test_the_largest_that_passes_is_found(full: int, room: int) -> None:
    found, asked = measured(full, lambda size: size <= room)
    assert found == (None if room >= full else room)
    assert len(asked) < 60
    assert set(asked) <= set(range(SMALLEST, full + 1))


def test_an_interfaces_mtu_is_the_kernels() -> None:
    assert mtu_of("lo") > SMALLEST
    with pytest.raises(OSError, match="No such file"):
        mtu_of("vpn7")


def test_where_all_is_well_one_packet_tells() -> None:
    assert measured(1404, lambda _: True) == (None, [1404])


def test_where_nothing_passes_it_is_no_question_of_size() -> None:
    assert measured(1404, lambda _: False) == (None, [1404] * TRIES + [SMALLEST] * TRIES)


def test_losses_by_the_way_are_no_reason() -> None:
    lost = iter([False, False, True])
    assert measured(1404, lambda _: next(lost)) == (None, [1404] * TRIES)


@pytest.mark.parametrize("lost", [range(7), range(12)])
def test_a_stall_is_no_reason(lost: range) -> None:
    """Neither one that is over when the small packet is asked, nor one during the search."""
    count = iter(range(1000))
    assert measured(1404, lambda size: next(count) not in lost or size == SMALLEST)[0] is None


def test_a_tunnel_that_is_small_already_is_not_measured() -> None:
    assert measured(SMALLEST, lambda _: False) == (None, [])


def test_no_server_by_ipv6_is_asked() -> None:
    assert asyncio.run(objection("2001:db8::1", 500)) is None
