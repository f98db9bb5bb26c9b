from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest

from chain.api import steer
from chain.api.load import load
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.api.project import Project
    from tests.unit.api.conftest import ScriptedEngine


def test_what_is_said_by_hand_reaches_the_entry(project: Project, engine: ScriptedEngine) -> None:
    loaded = load(project, engine)
    engine.applied = {"taken": True}
    name = loaded.topology.exits[0].name
    steer.switch(loaded, engine, "default", name)
    steer.switch(loaded, engine, "default", None)
    steer.drain(loaded, engine, name)
    steer.undrain(loaded, engine, name)
    assert engine.asked == [f"switch default {name}", "switch default", f"drain {name}", f"undrain {name}"]


def test_unknown_groups_and_exits_are_refused_before_anything_is_asked(
    project: Project, engine: ScriptedEngine
) -> None:
    loaded = load(project, engine)
    name = loaded.topology.exits[0].name
    attempts: list[Callable[[], None]] = [
        lambda: steer.switch(loaded, engine, "nobody", name),
        lambda: steer.switch(loaded, engine, "default", "nobody"),
        lambda: steer.drain(loaded, engine, "nobody"),
        lambda: steer.undrain(loaded, engine, "nobody"),
    ]
    for refused in attempts:
        with pytest.raises(ChainError) as error:
            refused()
        assert error.value.code is ExitCode.CONFIG
        assert name in error.value.problems[0].hint or "default" in error.value.problems[0].hint
    assert engine.asked == []


def test_events_are_asked_for_from_where_one_has_read(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer, "LOOK_SECONDS", 0)
    loaded = load(project, engine)
    engine.applied = {"events": [{"number": 7}, {"number": 9}]}
    assert [event["number"] for event in steer.events(loaded, engine, follow=False)] == [7, 9]
    assert [event["number"] for event in islice(steer.events(loaded, engine, follow=True), 4)] == [7, 9, 7, 9]
    assert engine.asked == ["events 0", "events 0", "events 9"]
