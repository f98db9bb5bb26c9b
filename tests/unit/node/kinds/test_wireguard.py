from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chain.node import kinds
from chain.node.kinds import causes, wireguard
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.node.kinds.base import Kind
    from chain.node.kinds.causes import Cause, Diagnosis
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


@pytest.mark.parametrize(
    ("stood", "handshakes", "said", "cause"),
    [
        (False, ["0", "0"], None, causes.NO_HANDSHAKE),
        (False, ["0", "0"], causes.UNREACHABLE, causes.UNREACHABLE),
        (False, ["0", "1700000000"], None, causes.HANDSHAKE_ONLY),
        (False, ["1700000000", "0"], None, causes.HANDSHAKE_ONLY),  # the last revival came too late for one
        (True, ["1700000000", "0"], None, causes.HANDSHAKE_LOST),
        (True, ["1700000000", "0"], causes.UNREACHABLE, causes.HANDSHAKE_LOST),  # at once
        (True, ["1700000000", "1700000009"], None, causes.LOST),
    ],
)
def test_why_nothing_answers_shows_in_the_handshakes(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, *, stood: bool, handshakes: list[str], said: Cause, cause: Cause
) -> None:
    """`handshakes`: the peer's last one, when it is revived and when it is asked about."""
    last = iter(handshakes)

    def run(*command: str, **_: object) -> str:
        match command[-1]:
            case "latest-handshakes":
                return f"KEY=\t{next(last)}\n"
            case "transfer":
                return "KEY=\t0\t148\n"
        return ""

    async def objection(*_: object) -> Diagnosis | None:
        return said.found(sender="192.0.2.1", word="No route to host", protocol="UDP", port=443) if said else None

    monkeypatch.setattr(wireguard, "run", run)
    monkeypatch.setattr(wireguard, "objection", objection)
    monkeypatch.setattr(wireguard.WireGuard, "_configure", lambda _: None)

    async def scene() -> Diagnosis:
        await kind.revive()
        return await kind.mute("10.64.0.1", stood=stood)

    found = asyncio.run(scene())
    assert found.key == cause.key
    if cause is causes.NO_HANDSHAKE:
        assert "(148 bytes were sent in the last seconds)" in found.cause
        assert "UDP port 443" in found.advice


def test_a_key_that_is_none_is_refused_without_being_told(built: Callable[[str], Topology]) -> None:
    with pytest.raises(ValueError, match="wg_private_key is no WireGuard key") as refused:
        kinds.create(built(TEXT).exits[0].settings, {"wg_private_key": Secret(f"PrivateKey = {KEY}")})
    assert KEY not in str(refused.value)
