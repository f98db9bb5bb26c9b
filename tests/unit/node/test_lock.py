"""What holds for every ruleset as text. The kernel's own opinion is asked in tests/netns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chain.contract import MARK_TUNNEL
from chain.node import lock
from tests.choices import buckets

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.contract import ExitSettings
    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp}
  oslo: {kind: l2tp}
clients:
  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}
"""
RULES = lock.UplinkRules(("udp dport 51820",), ("udp sport 51820",))


@pytest.fixture
def topology(built: Callable[[str], Topology]) -> Topology:
    return built(TEXT)


def exit_lock(settings: ExitSettings, *, server: str | None = "203.0.113.7", entry_open: bool = True) -> str:
    entry = lock.Sender("eth1", settings.link, settings.routed, open=entry_open)
    return lock.exit_lock(settings, senders=[entry], uplink="eth0", way=lock.Way("vpn0"), server=server, rules=RULES)


def entry_lock(topology: Topology) -> str:
    return lock.entry_lock(topology.state, front="eth0", links={"paris": "eth1", "oslo": "eth2"})


def section(text: str, name: str) -> list[str]:
    """Give the rules of one chain."""
    found = re.search(rf"chain {name} \{{(.*?)\s+\}}\n", text, re.DOTALL)
    assert found, f"no chain {name}"
    return [line.strip() for line in re.split(r"[;\n]", found[1]) if line.strip()]


def test_every_lock_replaces_the_whole_table_in_one_transaction(topology: Topology) -> None:
    for text in (lock.closed(), entry_lock(topology), exit_lock(topology.exits[0].settings)):
        assert text.startswith("add table inet vpn\ndelete table inet vpn\ntable inet vpn {\n")
        assert text.count("{") == text.count("}")


def test_every_lock_drops_by_default_at_each_hook_and_in_both_families(topology: Topology) -> None:
    for text in (lock.closed(), entry_lock(topology), exit_lock(topology.exits[0].settings)):
        assert "table inet " in text
        for hook in ("input", "forward", "output"):
            assert section(text, hook)[:2] == [f"type filter hook {hook} priority filter", "policy drop"]


def test_before_anything_is_known_only_loopback_passes(topology: Topology) -> None:
    accepted = [rule for hook in ("input", "forward", "output") for rule in section(lock.closed(), hook)]
    assert [rule for rule in accepted if "accept" in rule] == ["iifname lo accept"]
    assert "vpn0" not in lock.closed()
    assert topology.name not in lock.closed()


def test_on_the_uplink_all_that_leaves_has_the_tunnels_mark(topology: Topology) -> None:
    leaving = [rule for rule in section(exit_lock(topology.exits[0].settings), "output") if "oifname eth0" in rule]
    assert len(leaving) == 2  # the tunnel, and the question for its server's address
    assert all(f"meta mark {MARK_TUNNEL} " in rule and " daddr " in rule for rule in leaving)
    front = [rule for rule in section(entry_lock(topology), "output") if "oifname eth0" in rule]
    assert len(front) == 1
    assert f"meta mark {MARK_TUNNEL} " in front[0]


def test_nothing_is_forwarded_to_or_from_the_uplink(topology: Topology) -> None:
    assert not [rule for rule in section(exit_lock(topology.exits[0].settings), "forward") if "eth0" in rule]
    assert not [rule for rule in section(entry_lock(topology), "forward") if "eth0" in rule]


def test_what_is_forwarded_goes_between_open_peers_and_the_tunnel_only(topology: Topology) -> None:
    rules = section(exit_lock(topology.exits[0].settings), "forward")[2:]
    assert all("@open" in rule for rule in rules if not rule.startswith("#"))
    back = [rule for rule in rules if rule.startswith("iifname vpn0")]
    assert len(back) == 1
    assert back[0].endswith("ct state established,related accept")


def test_a_server_that_is_not_known_yet_opens_nothing(topology: Topology) -> None:
    text = exit_lock(topology.exits[0].settings, server=None)
    assert "51820" not in text


def test_a_server_is_let_through_by_its_own_family(topology: Topology) -> None:
    assert "ip daddr 203.0.113.7 udp dport 51820" in exit_lock(topology.exits[0].settings)
    assert "ip6 daddr 2001:db8::7 udp dport 51820" in exit_lock(topology.exits[0].settings, server="2001:db8::7")


def test_the_entry_is_sent_nothing_until_it_is_known_to_be_locked(topology: Topology) -> None:
    settings = topology.exits[0].settings
    assert "elements" not in exit_lock(settings, entry_open=False)
    assert 'elements = { "eth1" }' in exit_lock(settings, entry_open=True)


def test_the_entry_starts_with_every_exit_closed(topology: Topology) -> None:
    for name in (
        "open_marks",
        "open_links",
        "open_pairs",
        "open_members",
        "resolver_members",
        "group_exit",
        "client_group",
    ):
        declared = re.search(rf"(?:set|map) {name} \{{(.*?)\}}", entry_lock(topology))
        assert declared
        assert "elements" not in declared[1]


def test_a_switch_costs_the_same_for_any_number_of_clients(topology: Topology) -> None:
    switch = lock.entry_switch(
        lock.Exits({0x1001: "eth1", 0x1002: "eth2", 0x1004: "eth4"}, frozenset({0x1001, 0x1002}), frozenset({0x1002})),
        lock.Choice({0x101: 0x1001}, {0x10100: 0x1001, 0x10101: 0x1002}),
        [(0x101, 0x1001), (0x101, 0x1003), (0x102, 0x1002)],
    )
    assert switch.splitlines() == [
        "flush set inet vpn open_marks",
        "flush set inet vpn open_links",
        "flush set inet vpn open_pairs",
        "flush set inet vpn open_members",
        "flush set inet vpn resolver_members",
        "flush set inet vpn up_pairs",
        "flush set inet vpn suspect_marks",
        "flush map inet vpn group_exit",
        "flush map inet vpn bucket_exit",
        'add element inet vpn up_pairs { 4097 . "eth1", 4098 . "eth2", 4100 . "eth4" }',
        "add element inet vpn suspect_marks { 4098 }",
        "add element inet vpn open_marks { 4097, 4098 }",
        'add element inet vpn open_links { "eth1", "eth2" }',
        'add element inet vpn open_pairs { 4097 . "eth1", 4098 . "eth2" }',
        "add element inet vpn open_members { 257 . 4097, 258 . 4098 }",
        "add element inet vpn resolver_members { 257 . 4097 }",
        "add element inet vpn group_exit { 257 : 4097 }",
        "add element inet vpn bucket_exit { 65792 : 4097, 65793 : 4098 }",
    ]
    assert "10.13.13.2" in lock.entry_clients(topology.state, buckets(topology.state), {})
    assert "10.13.13.2" not in switch + entry_lock(topology)


def test_a_resolver_stays_with_a_suspect_exit_only_where_no_other_is_chosen() -> None:
    exits = lock.Exits({0x1001: "eth1", 0x1002: "eth2"}, frozenset({0x1001, 0x1002}), suspect=frozenset({0x1001}))
    members = [(0x101, 0x1001), (0x101, 0x1002)]
    text = lock.entry_switch(exits, lock.Choice({0x101: 0x1001}, {}), members)
    assert "resolver_members { 257 . 4097, 257 . 4098 }" in text
    text = lock.entry_switch(exits, lock.Choice({0x101: 0x1002}, {}), members)
    assert "resolver_members { 257 . 4098 }" in text


def test_what_is_closed_is_closed_for_resolvers_too() -> None:
    text = lock.entry_close({0x1001: "eth1"}, [0x101, 0x102])
    for name in ("open_members", "resolver_members"):
        for group in (257, 258):
            assert f"delete element inet vpn {name} {{ {group} . 4097 }}" in text


def test_with_no_exit_open_a_switch_only_closes() -> None:
    assert "add" not in lock.entry_switch(lock.Exits.well({}), lock.Choice({}, {}), [(0x101, 0x1001)])


def test_clients_of_before_are_forgotten(built: Callable[[str], Topology]) -> None:
    without = built(TEXT.partition("clients:")[0])
    flushed = lock.entry_clients(without.state, buckets(without.state), {}).splitlines()
    assert flushed == [
        "flush map inet vpn client_group",
        "flush map inet vpn client_bucket",
        "flush chain inet vpn by_flow",
    ]


def test_what_clients_ask_others_is_redirected_unless_that_is_switched_off(built: Callable[[str], Topology]) -> None:
    def redirected(text: str) -> tuple[bool, bool]:
        lock_text = entry_lock(built(text))
        (rule,) = section(lock_text, "client_dns")[1:]
        return "goto to_resolver" in lock_text, "ip daddr 10.13.13.1 " not in rule

    assert redirected(TEXT) == (True, True)
    assert redirected(TEXT + "dns: {redirect: false}\n") == (False, False)
