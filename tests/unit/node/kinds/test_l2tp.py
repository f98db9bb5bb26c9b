from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chain.node import kinds, lock
from chain.node.kinds import causes, l2tp
from chain.node.kinds.base import DialError
from chain.node.kinds.l2tp.ipsec import Ipsec, Traffic
from chain.node.run import CommandError
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.contract import ExitSettings
    from chain.node.kinds.base import Kind, Tunnel
    from chain.node.kinds.causes import Cause, Diagnosis
    from chain.topology import Topology

SECRETS = {
    "vpn_server_ip": Secret(" vpn.provider.example "),
    "vpn_ipsec_psk": Secret("k"),
    "vpn_username": Secret("u"),
    "vpn_password": Secret("p"),
}


@pytest.fixture
def settings(built: Callable[[str], Topology], minimal: str) -> ExitSettings:
    return built(minimal).exits[0].settings


@pytest.fixture
def kind(settings: ExitSettings) -> Kind:
    return kinds.create(settings, SECRETS)


def test_the_server_is_the_configured_one_or_else_the_secret(
    kind: Kind, built: Callable[[str], Topology], minimal: str
) -> None:
    assert kind.server == "vpn.provider.example"
    text = minimal.replace("{kind: l2tp}", "{kind: l2tp, server: 192.0.2.7}")
    assert kinds.create(built(text).exits[0].settings, {}).server == "192.0.2.7"


def test_l2tp_passes_inside_ipsec_only(kind: Kind, settings: ExitSettings) -> None:
    """xl2tpd can't mark its packets: that they are inside IPsec is what lets them out, and nothing else does."""
    text = lock.exit_lock(
        settings,
        senders=[lock.Sender("eth0", settings.link, settings.routed)],
        uplink="eth1",
        way=lock.Way("ppp0"),
        server="192.0.2.7",
        rules=kind.rules,
    )
    about_l2tp = [line.strip() for line in text.splitlines() if "1701" in line]
    assert about_l2tp == [
        "iifname eth1 ip saddr 192.0.2.7 meta ipsec exists udp sport 1701 udp dport 1701 accept",
        "oifname eth1 ip daddr 192.0.2.7 rt ipsec exists udp sport 1701 udp dport 1701 accept",
    ]
    for statement in ("udp dport { 500, 4500 }", "meta l4proto esp"):
        assert f"    oifname eth1 meta mark 1 ip daddr 192.0.2.7 {statement} accept\n" in text


def test_esp_in_udp_alone_is_let_out_where_it_is_to_travel_so(built: Callable[[str], Topology], minimal: str) -> None:
    text = minimal.replace("{kind: l2tp}", "{kind: l2tp, esp: {encapsulation: udp}}")
    rules = kinds.create(built(text).exits[0].settings, SECRETS).rules
    assert rules.outgoing == ("udp dport { 500, 4500 }",)
    assert rules.incoming == ("udp sport { 500, 4500 }", "meta ipsec exists udp sport 1701 udp dport 1701")
    assert rules.unmarked == ("rt ipsec exists udp sport 1701 udp dport 1701",)


@pytest.mark.parametrize(
    ("before", "traffic", "after"),
    [
        (causes.L2TP_SILENT, Traffic(0, 672), causes.ESP_BLOCKED),
        (causes.L2TP_SILENT, Traffic(0, 672, in_udp=True), causes.NO_L2TP),
        (causes.L2TP_SILENT, Traffic(84, 672), causes.L2TP_SILENT),
        (causes.NO_ANSWER, Traffic(), causes.UNREACHABLE),
        (causes.CREDENTIALS, Traffic(), causes.CREDENTIALS),
    ],
)
def test_a_silence_is_told_by_what_came_back(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, before: Cause, traffic: Traffic, after: Cause
) -> None:
    async def seen(_: object) -> Traffic:
        return traffic

    async def objection(server: str, port: int) -> Diagnosis:
        assert (server, port) == ("192.0.2.7", 500)
        return causes.UNREACHABLE.found(sender="192.0.2.1", word="No route to host", protocol="UDP", port=port)

    async def dial(_: object, __: str) -> Tunnel:
        raise DialError(before.found(received=0, sent=0, line=""))

    monkeypatch.setattr(Ipsec, "traffic", seen)
    monkeypatch.setattr(l2tp, "objection", objection)
    monkeypatch.setattr(l2tp.L2tp, "_dial", dial)
    with pytest.raises(DialError) as failed:
        asyncio.run(kind.dial("192.0.2.7"))
    assert failed.value.found.key == after.key
    if after.key.startswith(("esp", "no-l2tp")):
        assert "(0 bytes received, 672 sent)" in failed.value.found.cause


@pytest.mark.parametrize(
    ("peer", "near"),
    [
        ("192.168.42.1", "192.168.42.1"),
        ("100.64.0.1", "100.64.0.1"),
        ("8.8.4.4", "8.8.4.4"),  # the server itself
        ("1.0.0.1", ""),  # SoftEther's, which is somebody else's in truth
    ],
)
def test_the_peer_is_probed_only_if_its_answer_is_the_servers(peer: str, near: str) -> None:
    assert l2tp._near(peer, "8.8.4.4") == near


def test_no_way_to_the_server_is_a_cause(kind: Kind, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    def run(*_: str) -> str:
        raise CommandError("ip route get: RTNETLINK answers: Network is unreachable")

    monkeypatch.setattr(l2tp, "FOLDER", tmp_path)
    monkeypatch.setattr(l2tp, "run", run)
    monkeypatch.setattr(l2tp, "succeeds", lambda *_: False)
    with pytest.raises(DialError, match=r"no way to the server by the uplink.*unreachable"):
        asyncio.run(kind.dial("192.0.2.7"))
