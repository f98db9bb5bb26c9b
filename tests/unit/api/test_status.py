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


def test_of_an_exit_whose_container_ended_that_is_said(project: Project, engine: ScriptedEngine) -> None:
    loaded = load(project, engine)
    silent = {"name": "paris", "state": "silent", "cause": "its container does not report", "advice": "look"}

    def said() -> tuple[str, str]:
        engine.statuses = [{"generation": "0", "exits": [dict(silent)]}]
        (exit_,) = status(loaded, engine)["exits"]
        return exit_["cause"], exit_["advice"]

    logs = "`chain logs exit-paris` shows why"
    assert said() == ("there is no container of it", "`chain up` makes it")
    for state, words in {
        "exited": ("its container ended with 1", f"`chain up` starts it again; {logs}"),
        "created": ("its container was never started", "`chain up` starts it"),
        "restarting": ("its container ends with 1, again and again", logs),
        "running": ("its container does not report", "look"),
    }.items():
        engine.states.clear()
        engine.runs("exit-paris", state)
        assert said() == words


def test_of_two_at_one_server_the_one_that_is_not_open_is_told_so(project: Project, engine: ScriptedEngine) -> None:
    exits = "  paris: {kind: l2tp, server: a.example.com}\n  oslo: {kind: l2tp, server: a.example.com}\n"
    project.file.write_text("entry: {endpoint: vpn.example.org}\nexits:\n" + exits)
    names = [{"name": "paris", "open": True}, {"name": "oslo", "open": False, "cause": "silence"}]
    engine.statuses = [{"generation": "0", "exits": names}]
    open_, closed = status(load(project, engine), engine)["exits"]
    assert open_ == names[0]
    assert closed["cause"] == "silence"
    assert closed["warning"].startswith("exits paris and oslo dial one server from one address: behind a NAT")
