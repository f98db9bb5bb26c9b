from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from chain.agent import memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chain.topology import Topology


def test_what_is_saved_is_read_again_and_is_nobody_elses(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    assert memory.load(file) == {}
    memory.save(file, {"key": "203.0.113.7:4711"})
    assert memory.load(file) == {"key": "203.0.113.7:4711"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for broken in ("", "[]", "{"):
        file.write_text(broken)
        assert memory.load(file) == {}


def test_what_was_chosen_by_hand_is_read_again() -> None:
    steering = memory.Steering({"default": "oslo"}, ["paris"])
    assert memory.Steering.of(json.loads(json.dumps(vars(steering)))) == steering


@pytest.mark.parametrize("found", [{}, {"pins": [], "drains": {}}, {"pins": {"default": None}, "drains": [1, None]}])
def test_what_makes_no_sense_is_as_if_nothing_had_been_chosen(found: dict[str, Any]) -> None:
    assert memory.Steering.of(found) == memory.Steering()


def test_what_was_chosen_for_an_exit_or_a_group_that_is_gone_no_longer_holds(
    built: Callable[[str], Topology],
) -> None:
    state = built(
        "entry: {endpoint: vpn.example.org}\n"
        "exits: {paris: {kind: l2tp}, oslo: {kind: l2tp}}\n"
        "groups: {default: {exits: [paris, oslo]}, slow: {exits: [paris]}}\n"
    ).state
    steering = memory.Steering({"default": "oslo", "slow": "oslo", "fast": "paris"}, ["rome", "paris"])
    assert steering.holding(state) == memory.Steering({"default": "oslo"}, ["paris"])
