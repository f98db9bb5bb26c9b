from __future__ import annotations

from typing import TYPE_CHECKING

from chain.agent import choice, status
from chain.agent.clients import Placed
from chain.agent.failover import Failover, Pinned
from chain.agent.verdict import Sensitivity
from chain.agent.watch import Watch
from chain.contract import ExitReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp, server: 192.0.2.1}
  oslo: {kind: l2tp, server: 192.0.2.2}
groups:
  default: {exits: [paris, oslo], policy: balance, weights: {paris: 3}}
  slow: {exits: [oslo]}
"""
DUMP = (
    "private\tpublic\t51820\t0x1\n"
    "posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=\t(none)\t198.51.100.7:4711\t10.13.13.2/32\t1700000000\t12\t34\toff\n"
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\t(none)\t(none)\t10.13.13.3/32\t0\t0\t0\toff\n"
)


def test_a_group_is_shown_with_the_share_of_each_exit(built: Callable[[str], Topology]) -> None:
    state = built(TEXT).state
    failover = Failover(choice.groups(state))
    count = failover.buckets["@default"]
    chosen = {("@default", bucket): "oslo" if bucket < count // 4 else "paris" for bucket in range(count)}
    failover.handle(0.0, Pinned("@slow", "oslo"))
    assert status.groups(state, failover, chosen) == [
        {
            "name": "default",
            "exit": "paris",
            "shares": {"paris": 0.75, "oslo": 0.25},
            "exits": ["paris", "oslo"],
            "policy": "balance",
            "pinned": None,
        },
        {"name": "slow", "exit": None, "shares": {}, "exits": ["oslo"], "policy": "failover", "pinned": "oslo"},
    ]


def test_clients_are_shown_with_their_exits_and_what_wireguard_knows() -> None:
    phone = Placed("phone", "posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=", "10.13.13.2", "default", 0x10000)
    tv = Placed("tv", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "10.13.13.3", "slow", 0x10100)
    seen, unseen = status.clients([phone, tv], {0x10000: "paris"}, DUMP)
    assert seen == {
        "name": "phone",
        "address": "10.13.13.2",
        "group": "default",
        "exit": "paris",
        "endpoint": "198.51.100.7:4711",
        "last_handshake": 1_700_000_000,
        "rx_bytes": 12,
        "tx_bytes": 34,
    }
    assert (unseen["exit"], unseen["endpoint"], unseen["last_handshake"]) == (None, None, None)
    assert [each["endpoint"] for each in status.clients([phone, tv], {}, "")] == [None, None]


def test_an_exit_is_shown_by_its_own_words_while_nothing_else_is_known(built: Callable[[str], Topology]) -> None:
    exit_ = built(TEXT).state.exits[0]
    silent = status.silent(exit_, 7.0, drained=("by hand",))
    assert (silent["state"], silent["health"], silent["drained"]) == ("silent", "dead", ("by hand",))
    report = ExitReport("paris", "down", 1.0, "the server refuses it", advice="look there", latency_ms=3.5)
    watch = Watch(exit_, "10.13.13.1", Sensitivity())
    for seen in (watch, None):
        shown = status.reporting(exit_, report, seen, is_open=False, drained=("by hand",))
        assert (shown["state"], shown["cause"], shown["advice"]) == ("down", "the server refuses it", "look there")
        assert (shown["health"], shown["latency_ms"], shown["drained"]) == ("dead", 3.5, ("by hand",))
