from __future__ import annotations

from typing import TYPE_CHECKING

from chain.agent.routes import commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp, server: 192.0.2.1}
  oslo: {kind: l2tp, server: 192.0.2.2}
"""


def test_a_rule_is_added_once_and_routes_are_set_each_time(built: Callable[[str], Topology]) -> None:
    state = built(TEXT).state
    links = {"paris": "eth1", "oslo": "eth2"}
    first = commands(state, links, ())
    rules = [line for line in first if line.startswith("rule")]
    assert rules == [f"rule add priority 200 fwmark {exit_.mark} table {exit_.table}" for exit_ in state.exits]
    again = commands(state, links, {(exit_.mark, str(exit_.table)) for exit_ in state.exits})
    assert again == [line for line in first if line not in rules]


def test_what_leads_elsewhere_goes_first(built: Callable[[str], Topology]) -> None:
    state = built(TEXT).state
    paris, oslo = state.exits
    found = commands(state, {"paris": "eth1"}, {(oslo.mark, str(oslo.table)), (paris.mark, "77")})
    deleted = [line for line in found if line.startswith("rule del")]
    assert len(deleted) == 2
    assert found.index(deleted[-1]) < found.index(f"rule add priority 200 fwmark {paris.mark} table {paris.table}")
    assert f"route flush table {oslo.table}" in found
    assert not [line for line in found if line.startswith("rule add") and str(oslo.mark) in line]
