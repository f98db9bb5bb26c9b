from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from chain.exits.direct import PRIVATE, Direct, DirectExit, without

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

ADDRESSES = st.integers(0, 2**32 - 1)
NETWORKS = st.builds(
    lambda n, length: IPv4Network((n >> (32 - length) << (32 - length), length)), ADDRESSES, st.integers(4, 32)
)


def test_what_is_allowed_is_taken_out_of_what_is_refused() -> None:
    made = DirectExit.model_validate({"kind": "direct", "allow": ["192.168.178.0/24"]})
    refused = [IPv4Network(network) for network in Direct().options(made)["refused"]]
    assert not any(network.overlaps(IPv4Network("192.168.178.0/24")) for network in refused)
    assert any(IPv4Network("192.168.179.0/24").subnet_of(network) for network in refused)
    assert Direct().options(DirectExit(kind="direct"))["refused"] == [str(network) for network in sorted(PRIVATE)]


@given(st.lists(NETWORKS, max_size=4), st.lists(NETWORKS, max_size=4), ADDRESSES)
def test_without_leaves_exactly_the_others(networks: list[IPv4Network], taken: list[IPv4Network], number: int) -> None:
    def covered(by: list[IPv4Network], address: IPv4Network) -> bool:
        return any(address.subnet_of(network) for network in by)

    left = without(networks, taken)
    for address in (IPv4Network(number), *(IPv4Network(network.network_address) for network in (*networks, *taken))):
        assert covered(left, address) == (covered(networks, address) and not covered(taken, address))


def test_it_is_in_no_group_by_itself(built: Callable[[str], Topology]) -> None:
    text = "entry: {endpoint: vpn.example.org}\nexits:\n  home: {kind: direct}\n  paris: {kind: l2tp}\n"
    (group,) = built(text).state.groups
    assert group.exits == ("paris",)
