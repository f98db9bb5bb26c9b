from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from chain.exits.wireguard import WireGuard, WireGuardExit

KIND = WireGuard()
LEAST = {
    "kind": "wireguard",
    "endpoint": "203.0.113.7",
    "public_key": "3hSkUNaT6/OFOBQR2O6IevrHpJzR6t8xSDnCikOJbTM=",
    "address": "10.64.12.7/32",
}


def settings(**fields: Any) -> WireGuardExit:
    return WireGuardExit.model_validate({**LEAST, **fields})


@pytest.mark.parametrize(("link", "mtu"), [(1420, 1360), (1480, 1420), (1500, 1420), (9000, 1420)])
def test_mtu_leaves_room_for_the_outer_packet_and_is_no_larger_than_servers(link: int, mtu: int) -> None:
    assert KIND.tunnel_mtu(settings(), link) == mtu


def test_a_server_over_ipv6_is_refused() -> None:
    with pytest.raises(ValidationError, match="over IPv4 only"):
        settings(endpoint="[2001:db8::7]:51820")


def test_the_port_has_a_default() -> None:
    assert KIND.options(settings())["port"] == 51820
    assert KIND.options(settings(endpoint="203.0.113.7:443"))["port"] == 443


@pytest.mark.parametrize(
    ("dns", "near"),
    [
        (None, ""),
        ("10.64.0.1", "10.64.0.1"),
        ("100.64.0.7", "100.64.0.7"),
        ("172.31.255.1", "172.31.255.1"),
        ("9.9.9.9", ""),  # anybody answers for this one, by whatever way
        ("172.32.0.1", ""),
    ],
)
def test_only_a_private_resolver_shows_that_the_tunnels_far_end_lives(dns: str | None, near: str) -> None:
    assert KIND.options(settings(dns=dns))["near"] == near


@pytest.mark.parametrize(
    ("preshared", "secrets"),
    [
        (None, [("wg_private_key", None)]),
        (False, [("wg_private_key", None)]),
        (True, [("wg_private_key", None), ("wg_preshared_key", None)]),
        ({"file": "secrets/x"}, [("wg_private_key", None), ("wg_preshared_key", "secrets/x")]),
    ],
)
def test_a_preshared_key_is_there_when_the_configuration_says_so(
    preshared: object, secrets: list[tuple[str, str | None]]
) -> None:
    found = KIND.secrets(settings(preshared_key=preshared))
    assert [(spec.role, spec.override) for spec in found] == secrets


@pytest.mark.parametrize("preshared", ["3hSkUNaT6/OFOBQR2O6IevrHpJzR6t8xSDnCikOJbTM=", {"file": ""}, {}, 1])
def test_a_preshared_key_itself_is_refused(preshared: object) -> None:
    with pytest.raises(ValidationError):
        settings(preshared_key=preshared)
