from __future__ import annotations

import time
from typing import Any

import pytest

from chain import drained, show

EXIT: dict[str, Any] = {"kind": "l2tp", "since": None, "open": True, "latency_ms": 2.5}


@pytest.mark.parametrize(("seconds", "text"), [(None, ""), (0.0, ""), (5.5, "5 s"), (-3, "0 s")])
def test_times_are_shown_as_ages(seconds: float | None, text: str) -> None:
    assert show.ago(time.time() - seconds if seconds else seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_500_000, "2 MB"), (7 * 10**12, "7.0 TB")]
)
def test_sizes_are_shown_in_units(count: int, text: str) -> None:
    assert show.size(count) == text


def test_tables_are_as_wide_as_what_stands_in_them() -> None:
    found = show.table(["exit", "state"], [["paris", "up"], ["a", "down"]])
    assert found == ["exit   state", "paris  up", "a      down"]


def test_below_an_exit_stands_what_to_try() -> None:
    exits = [
        EXIT | {"name": "bern", "state": "up", "cause": "answered", "warning": "too small", "advice": "`mtu: 1280`"},
        EXIT | {"name": "oslo", "state": "down", "cause": "no key", "warning": "", "advice": "look"},
        EXIT | {"name": "rome", "state": "up", "cause": "answered"},  # of an older entry
    ]
    assert show.exits({"exits": exits, "groups": []})[1:] == [
        "bern  l2tp  up            2.5 ms         answered",
        "    warning: too small",
        "    → `mtu: 1280`",
        "oslo  l2tp  down          2.5 ms         no key",
        "    → look",
        "rome  l2tp  up            2.5 ms         answered",
    ]


def test_how_clients_fare_by_an_exit_says_more_than_that_it_is_up() -> None:
    exits = [
        EXIT | {"name": "bern", "state": "up", "health": "good", "cause": "answered", "loss": 0.25},
        EXIT | {"name": "oslo", "state": "up", "health": "suspect", "cause": "answered", "loss": 0.0},
        EXIT | {"name": "rome", "state": "down", "health": "dead", "cause": "no key", "drained": ["by hand"]},
    ]
    groups = [
        {"name": "default", "exit": "bern", "pinned": "bern", "shares": {"bern": 0.75, "oslo": 0.25}},
        {"name": "guests", "exit": "bern", "shares": {"bern": 1.0}},
        {"name": "nobody", "exit": None, "shares": {}},
    ]
    found = show.exits({"exits": exits, "groups": groups})
    assert [line.split("  ")[2].strip() for line in found[1:4]] == [
        "up, in use (default 75%, guests)",
        "suspect, in use (default 25%)",
        "down, drained (by hand)",
    ]
    assert "25%   answered" in found[1]
    assert found[4:] == [
        "group default: bern 75%, oslo 25%, chosen by hand",
        "group guests: bern",
        "group nobody: blocked, no exit is open",
    ]
    only = show.exits({"exits": exits[:1], "groups": groups[1:2]})
    assert "up, in use " in only[1]


def test_why_clients_are_blocked_or_use_another_exit_than_was_chosen_is_said() -> None:
    by_hand, by_clock = ["by hand"], ["maintenance until 04:00 UTC"]
    exits = [
        {"name": "bern", "open": True, "health": "good", "drained": by_hand},
        {"name": "oslo", "open": True, "health": "good", "drained": by_clock},
        {"name": "rome", "open": False, "health": "dead", "drained": []},
    ]

    def said(**group: Any) -> str:
        whole = {"name": "default", "exit": next(iter(group["shares"]), None), **group}
        (line,) = show.groups({"exits": exits, "groups": [whole]}, ["default"])
        return line.removeprefix("group default: ")

    assert said(shares={}, exits=["bern", "oslo", "rome"]) == (
        "blocked, all exits that could be used are drained: bern (by hand), oslo (maintenance until 04:00 UTC);"
        " `chain undrain bern` lets clients out again"
    )
    assert said(shares={}, exits=["oslo"]).endswith("drained: oslo (maintenance until 04:00 UTC)")
    assert said(shares={}, exits=["rome"]) == "blocked, no exit is open"
    through = "runs through bern (by hand)"
    assert drained.undoing({"hop": [through]}) == "`chain undrain bern`"
    assert drained.undoing({"hop": [through, *by_hand]}) == "`chain undrain bern` and `chain undrain hop`"
    assert drained.undoing({"hop": [through, *by_clock], "bern": by_hand}) == "`chain undrain bern`"
    assert drained.undoing({"hop": [through, *by_clock]}) == "", "time has to pass too"
    able = {"name": "lima", "open": True, "drained": []}
    assert drained.keeping_in({"exits": ["bern", "lima"]}, [*exits, able]) == {}, "one of them could be used"
    assert said(shares={}) == "blocked, no exit is open"  # of an older entry
    chosen = {"shares": {"oslo": 1.0}, "exits": ["bern", "oslo", "rome"]}
    assert said(pinned="bern", **chosen) == "oslo; bern was chosen by hand, but is drained"
    assert said(pinned="rome", **chosen) == "oslo; rome was chosen by hand, but is dead"
    assert said(pinned=None, **chosen) == "oslo"
    exits.append({"name": "lima", "open": False, "state": "resting", "health": "resting", "drained": by_hand})
    assert said(shares={}, exits=["rome", "lima"]).endswith(
        ": lima (by hand); `chain undrain lima` lets clients out again"
    )
    exits[-1]["drained"] = []
    assert said(pinned="lima", shares={"oslo": 1.0}, exits=["oslo", "lima"]).endswith("by hand, but is not up yet")
    assert said(pinned="rome", shares={}, exits=["rome"]) == "blocked, no exit is open; rome was chosen by hand"


def test_what_passes_is_the_difference_between_two_looks() -> None:
    def look(received: int, sent: int) -> dict[str, Any]:
        each = EXIT | {"name": "bern", "state": "up", "cause": "", "rx_bytes": received, "tx_bytes": sent}
        return {"exits": [each], "groups": []}

    header, line = show.exits(look(5_000_000, 100), look(1_000_000, 500), 2.0)
    assert header.split()[-3:-1] == ["in", "out"]
    assert line.split()[-4:] == ["2", "MB/s", "0", "B/s"]


def test_a_client_that_was_never_there_is_shown_so() -> None:
    client = {"name": "phone", "address": "10.13.13.2", "exit": None, "last_handshake": None}
    found = show.clients({"clients": [client | {"rx_bytes": 0, "tx_bytes": 2000}]})
    assert found[2].split() == ["phone", "10.13.13.2", "blocked", "never", "0", "B", "2", "kB"]
    assert show.clients({"clients": []}) == []
    guest = client | {"name": "guest", "rx_bytes": 0, "tx_bytes": 0, "group": "guests"}
    found = show.clients({"clients": [guest], "groups": [{}, {}]})
    assert found[1].split()[2] == "group"
    assert found[2].split()[2] == "guests"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (
            {"event": "exit", "exit": "bern", "source": "good", "target": "suspect", "cause": "no answer"},
            "exit bern: good → suspect (no answer)",
        ),
        (
            {"event": "move", "group": "all", "source": None, "target": "bern", "share": 0.25, "cause": "it is better"},
            "group all, 25% of its clients: blocked → bern (it is better)",
        ),
        (
            {
                "event": "move",
                "group": "all",
                "source": "oslo",
                "target": "bern",
                "share": 1,
                "blackout": 0.151,
                "cause": "x",
            },
            "group all: oslo → bern, after 151 ms without answers (x)",
        ),
        (
            {
                "event": "move",
                "group": "all",
                "source": None,
                "target": "bern",
                "share": 1,
                "blackout": 33.5,
                "cause": "x",
            },
            "group all: blocked → bern, after 34 s without answers (x)",
        ),
        (
            {"event": "switch", "group": "all", "exit": None, "cause": "by hand"},
            "group all: as its policy says (by hand)",
        ),
        ({"event": "drain", "exit": "bern", "cause": "by hand"}, "exit bern: drained (by hand)"),
        (
            {"event": "undrain", "exit": "bern", "cause": "maintenance until 04:00 UTC"},
            "exit bern: no longer drained (it was: maintenance until 04:00 UTC)",
        ),
    ],
)
def test_events_are_lines(told: dict[str, Any], text: str) -> None:
    assert show.event(told | {"time": 1.0}).endswith(f"  {text}")
