from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chain.node import kinds
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.node.kinds.base import Kind
    from chain.topology import Topology

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  oslo:
    kind: wireguard
    endpoint: oslo.provider.example:443
    public_key: 3hSkUNaT6/OFOBQR2O6IevrHpJzR6t8xSDnCikOJbTM=
    address: 10.64.12.7/32
"""


@pytest.fixture
def kind(built: Callable[[str], Topology]) -> Kind:
    return kinds.create(built(TEXT).exits[0].settings, {"wg_private_key": Secret(KEY)})


def test_it_lets_its_own_port_pass_and_no_other(kind: Kind) -> None:
    assert kind.rules.outgoing == ("udp dport 443",)
    assert kind.rules.incoming == ("udp sport 443",)


def test_the_servers_name_is_resolved_by_the_runtime_and_not_by_the_kind(kind: Kind) -> None:
    assert kind.server == "oslo.provider.example"


def test_a_key_that_is_none_is_refused_without_being_told(built: Callable[[str], Topology]) -> None:
    with pytest.raises(ValueError, match="wg_private_key is no WireGuard key") as refused:
        kinds.create(built(TEXT).exits[0].settings, {"wg_private_key": Secret(f"PrivateKey = {KEY}")})
    assert KEY not in str(refused.value)
