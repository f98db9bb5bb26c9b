from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from docker.errors import DockerException

from chain.api import steer
from chain.api.load import load
from chain.api.progress import Silent
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.api.project import Project
    from chain.engine.connection import ContainerState
    from tests.unit.api.conftest import ScriptedEngine


def test_what_is_said_by_hand_reaches_the_entry(project: Project, engine: ScriptedEngine) -> None:
    loaded = load(project, engine)
    engine.applied = {"taken": True}
    engine.statuses = [{"groups": []}]
    name = loaded.topology.exits[0].name
    assert steer.switch(loaded, engine, "default", name) == {"groups": []}
    steer.switch(loaded, engine, "default", None)
    steer.drain(loaded, engine, name)
    steer.undrain(loaded, engine, name)
    asked = [f"switch default {name}", "switch default", f"drain {name}", f"undrain {name}"]
    assert engine.asked == [each for order in asked for each in (order, "status")]


def test_unknown_groups_and_exits_are_refused_before_anything_is_asked(
    project: Project, engine: ScriptedEngine
) -> None:
    loaded = load(project, engine)
    name = loaded.topology.exits[0].name
    attempts: list[Callable[[], object]] = [
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


def told(entry: int, *numbers: int) -> dict[str, Any]:
    return {"entry": entry, "events": [{"number": number} for number in numbers]}


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_events_are_told_once_also_over_restarts_of_the_entry(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer, "FIRST_PAUSE", 0.0)
    loaded = load(project, engine)
    engine.applied = told(5, 7, 9)
    assert list(steer.events(loaded, engine, Silent(), follow=False)) == [{"number": 7}, {"number": 9}]
    engine.told = [
        [told(5, 7, 9), told(5), told(5, 10)],
        [told(5, 7, 9, 10), {"error": "it does not answer"}, told(5, 11)],  # the connection was lost
        [told(3, 4), {"entry": 3, "events": ["nonsense", {}, {"number": 6}]}],  # another entry; a clock was set back
    ]
    events = steer.events(loaded, engine, Silent(), follow=True)
    assert [event["number"] for event in islice(events, 6)] == [7, 9, 10, 11, 4, 6]
    with pytest.raises(KeyboardInterrupt):  # there is no more
        next(events)


def test_an_entry_that_is_of_an_older_version_is_not_followed(project: Project, engine: ScriptedEngine) -> None:
    engine.applied = {"events": [{"number": 7}]}
    following = steer.events(load(project, engine), engine, Silent(), follow=True)
    assert next(following) == {"number": 7}
    with pytest.raises(ChainError, match="older version") as refused:
        next(following)
    assert refused.value.code is ExitCode.NOT_RUNNING


def test_an_entry_that_is_away_is_waited_for_and_that_is_said_once(project: Project, engine: ScriptedEngine) -> None:
    progress, pauses = Notes(), list[float]()
    engine.told = [[told(5)], *[[]] * 6, [told(6)], [told(6)]]
    with pytest.raises(KeyboardInterrupt):
        list(steer.listen(load(project, engine), engine, progress, pauses.append))
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 1, 1]
    assert progress.said == [
        "the entry can't be asked; waiting until it can (`chain status` shows why)",
        "the entry can be asked again",
    ]


def test_an_engine_that_goes_is_waited_for_and_another_folders_chain_is_not(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, looks = load(project, engine), iter([DockerException("gone"), engine_gone()])

    def containers(_: str) -> list[ContainerState]:
        for failure in looks:
            raise failure
        return engine.states

    monkeypatch.setattr(engine, "containers", containers)
    engine.told = [[], [], []]
    engine.runs("entry", folder="/another")
    with pytest.raises(ChainError, match="a chain of this name runs from /another") as refused:
        next(steer.listen(loaded, engine, Silent(), lambda _: None))
    assert refused.value.code is ExitCode.CONFIG
    monkeypatch.setattr(engine, "containers", None)
    engine.told = [[]]
    with pytest.raises(TypeError):  # a mistake is not waited for
        next(steer.listen(loaded, engine, Silent(), lambda _: None))


def engine_gone() -> ChainError:
    return ChainError(Problem("Docker engine", "it does not answer"), ExitCode.ENGINE)
