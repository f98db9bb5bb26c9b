from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.contract import (
    CONTRACT,
    MARK_EXIT,
    MARK_GROUP,
    DesiredState,
    ExitReport,
    ExitSettings,
    HostAddress,
    HostFacts,
    HostRoute,
    from_json,
    to_json,
)
from chain.topology import EXIT_SLOTS, GROUP_SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

REPORT = ExitReport(exit="paris", state="up", since=1.5, cause="a probe was answered", latency_ms=12.25)

TWO = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp}
  oslo:
    kind: wireguard
    endpoint: oslo.provider.example
    public_key: 3hSkUNaT6/OFOBQR2O6IevrHpJzR6t8xSDnCikOJbTM=
    address: 10.64.12.7/32
clients:
  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}
"""


def test_facts_about_a_host_survive_whether_known_or_not() -> None:
    for facts in (
        HostFacts(time=1.5),
        HostFacts(
            time=1.5,
            routes=(HostRoute("10.0.0.0/8", "eth0"),),
            addresses=(HostAddress("10.0.0.2/8", "eth0"),),
            udp_ports=(53,),
            rp_filter={"all": 1},
            firewalls=(),
        ),
    ):
        assert from_json(HostFacts, to_json(facts)) == facts


def test_state_and_settings_survive_the_way_through_json(built: Callable[[str], Topology]) -> None:
    topology = built(TWO)
    assert from_json(DesiredState, to_json(topology.state)) == topology.state
    for exit_ in topology.exits:
        assert from_json(ExitSettings, to_json(exit_.settings)) == exit_.settings


@given(
    st.builds(
        ExitReport,
        exit=st.text(),
        state=st.text(),
        since=st.floats(allow_nan=False, allow_infinity=False),
        cause=st.text(),
        latency_ms=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        rx_bytes=st.integers(min_value=0),
    )
)
def test_any_report_survives_and_is_one_line(report: ExitReport) -> None:
    text = to_json(report)
    assert "\n" not in text
    assert from_json(ExitReport, text) == report


def test_equal_values_are_equal_text() -> None:
    assert to_json(REPORT) == to_json(replace(REPORT))


@pytest.mark.parametrize("version", [CONTRACT + 1, CONTRACT - 1, None, str(CONTRACT)])
def test_another_version_is_refused(version: object) -> None:
    data = json.loads(to_json(REPORT)) | {"version": version}
    with pytest.raises(ValueError, match=f"version {version}, this runtime speaks {CONTRACT}"):
        from_json(ExitReport, json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stat": "up"}, "ExitReport: unknown field stat"),
        ({"state": 3}, "ExitReport.state: not a text"),
        ({"since": "now"}, "ExitReport.since: not a number"),
        ({"since": True}, "ExitReport.since: not a number"),
        ({"rx_bytes": 1.5}, "ExitReport.rx_bytes: not an integer"),
        ({"rx_bytes": True}, "ExitReport.rx_bytes: not an integer"),
        ({"latency_ms": "fast"}, "ExitReport.latency_ms: not a number"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        from_json(ExitReport, json.dumps(json.loads(to_json(REPORT)) | change))


def test_a_missing_field_is_named() -> None:
    data = json.loads(to_json(REPORT))
    del data["cause"]
    with pytest.raises(ValueError, match=r"^ExitReport: cause is missing$"):
        from_json(ExitReport, json.dumps(data))


def test_wrong_fields_deep_inside_are_named(built: Callable[[str], Topology]) -> None:
    data = json.loads(to_json(built(TWO).state))
    data["exits"][1]["link"]["subnet"] = 7
    with pytest.raises(ValueError, match=r"DesiredState\.exits\[1\]\.link\.subnet: not a text"):
        from_json(DesiredState, json.dumps(data))
    data["exits"] = {}
    with pytest.raises(ValueError, match=r"DesiredState\.exits: not a list"):
        from_json(DesiredState, json.dumps(data))


def test_values_of_a_mapping_are_checked(built: Callable[[str], Topology]) -> None:
    data = json.loads(to_json(built(TWO).exits[0].settings))
    data["options"]["anything"] = {"goes": [1, None]}
    assert from_json(ExitSettings, json.dumps(data)).options["anything"] == {"goes": [1, None]}
    data["secrets"]["vpn_password"] = 5
    with pytest.raises(ValueError, match=r"ExitSettings\.secrets\.vpn_password: not a text"):
        from_json(ExitSettings, json.dumps(data))


@pytest.mark.parametrize("text", ["[]", "null", "7", '"up"'])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ExitReport: not an object"):
        from_json(ExitReport, text)


@given(st.binary())
def test_nothing_but_value_errors_come_of_garbage(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        from_json(ExitReport, data)


def test_marks_of_groups_and_exits_never_meet() -> None:
    groups = {MARK_GROUP + index for index in GROUP_SLOTS}
    exits = {MARK_EXIT + slot for slot in EXIT_SLOTS}
    assert not groups & exits
    assert min(groups | exits) > 2  # those of tunnels and probes


def test_what_nests_too_deep_is_refused() -> None:
    with pytest.raises(ValueError, match="ExitReport: too deep"):
        from_json(ExitReport, "[" * 50_000)  # less than a line of an exit's may have
