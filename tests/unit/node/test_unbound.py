from __future__ import annotations

import re
from typing import TYPE_CHECKING

from chain.node import unbound

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology


def test_each_group_asks_from_an_address_of_its_own_and_never_over_ipv6(
    built: Callable[[str], Topology], minimal: str
) -> None:
    topology = built(
        minimal.replace("paris: {kind: l2tp}", "paris: {kind: l2tp}\n  oslo: {kind: l2tp}")
        + ("groups:\n  far: {exits: [oslo]}\ndns:\n  upstreams: [192.0.2.53]\n")
    )
    texts = [unbound.config(topology.state, group) for group in topology.state.groups]
    sources = [re.findall(r"outgoing-interface: (\S+)", text) for text in texts]
    assert sources == [[group.resolver_address] for group in topology.state.groups]
    for text in texts:
        assert "do-ip6: no" in text
        assert re.findall(r"forward-addr: (\S+)", text) == ["192.0.2.53"]
        assert re.findall(r"access-control: (.+)", text) == ["10.13.13.0/24 allow"]
