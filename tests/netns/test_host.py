"""A look at a host, with a namespace for the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chain.contract import HostAddress, HostFacts, HostRoute, from_json
from tests.netns.ground import Namespace, acquaint, join, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK = "from chain.node.host import report; report()"


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces("host", "router") as (host, router):
        join(host, "eth0", router, "lan0")
        acquaint(host, "eth0", router, "lan0", ("198.51.100.2", "198.51.100.1"))
        yield host, router


def test_a_bare_namespace_is_no_reason_to_fail() -> None:
    with namespaces("bare") as (bare,):
        found = from_json(HostFacts, bare.python(LOOK))
    assert (found.routes, found.udp_ports, found.uplink_device, found.uplink_mtu) == ((), (), None, None)


def test_routes_ports_and_settings_are_seen(pair: tuple[Namespace, Namespace]) -> None:
    host, router = pair
    host.ip(
        "link set dev eth0 mtu 1400",
        "route add default via 198.51.100.1",
        "route add 10.219.0.0/16 via 198.51.100.1 table 77",
        "route add unreachable 10.0.0.0/8",
        "route add 10.9.0.0/16 nexthop via 198.51.100.3 nexthop via 198.51.100.4",
    )
    host.sysctl(ipv4__ip_forward=1, ipv4__conf__default__rp_filter=2)
    host.nft("add table inet firewalld; add chain inet firewalld filter_INPUT")
    host.nft("add table ip filter; add chain ip filter ufw-user-input")
    code = "import socket; held = socket.socket(type=socket.SOCK_DGRAM); held.bind(('127.0.0.1', 51999)); "
    found = from_json(HostFacts, host.python(code + LOOK))
    networks = ("198.51.100.0/24", "10.219.0.0/16", "10.9.0.0/16")
    assert set(found.routes or ()) == {HostRoute(network, "eth0") for network in networks}
    assert HostAddress("198.51.100.2/24", "eth0") in (found.addresses or ())
    assert found.udp_ports == (51999,)
    assert (found.uplink_device, found.uplink_mtu, found.ip_forward) == ("eth0", 1400, 1)
    assert (found.rp_filter or {})["default"] == 2
    assert found.firewalls is not None
    assert {"firewalld", "ufw"} <= set(found.firewalls)
    assert from_json(HostFacts, router.python(LOOK)).uplink_device is None


def test_the_kernels_own_sockets_are_ports_in_use_too(pair: tuple[Namespace, Namespace]) -> None:
    host, _ = pair
    host.ip("link add vxlan0 type vxlan id 5 dstport 51998 dev eth0", "link set vxlan0 up")
    assert 51998 in (from_json(HostFacts, host.python(LOOK)).udp_ports or ())
