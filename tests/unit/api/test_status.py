from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chain.api.load import load
from chain.api.status import status

if TYPE_CHECKING:
    from chain.api.project import Project
    from tests.unit.api.conftest import ScriptedEngine


def test_a_chain_that_does_not_run_is_said_to(project: Project, engine: ScriptedEngine) -> None:
    engine.runs("entry", "exited")
    found = status(load(project, engine), engine)
    assert (found["running"], found["why"], found["exits"]) == (False, "the entry is not running", [])
    assert [container["state"] for container in found["containers"]] == ["exited"]
    json.dumps(found)


def test_the_entrys_own_words_come_with_what_chain_yaml_wants(project: Project, engine: ScriptedEngine) -> None:
    loaded = load(project, engine)
    engine.statuses = [{"generation": "0", "exits": [{"name": "paris"}]}]
    found = status(loaded, engine)
    assert (found["running"], found["generation"], found["exits"]) == (True, "0", [{"name": "paris"}])
    assert found["wanted"] == loaded.topology.state.generation
