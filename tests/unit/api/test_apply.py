from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from chain.api.apply import apply_if_running
from chain.api.load import load
from chain.api.render import write
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from chain.api.project import Project
    from tests.unit.api.conftest import ScriptedEngine

CLIENT = "clients:\n  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}\n"


def test_a_chain_that_does_not_run_is_left_alone(project: Project, engine: ScriptedEngine) -> None:
    assert apply_if_running(project, engine) is False
    assert not project.run.exists()


def test_a_running_entry_gets_its_own_file_and_no_other_is_touched(project: Project, engine: ScriptedEngine) -> None:
    write(load(project, engine), None)
    compose = (project.run / "compose.yaml").read_text()
    project.file.write_text(project.file.read_text().replace("kind: l2tp", "kind: l2tp, mtu: 1300") + CLIENT)
    engine.statuses = [{"generation": "0"}]
    engine.applied = {"generation": load(project, engine).topology.state.generation}
    assert apply_if_running(project, engine) is True
    assert engine.asked == ["apply"]
    state = json.loads((project.run / "entry" / "state.json").read_text())
    assert [client["name"] for client in state["clients"]] == ["phone"]
    assert (project.run / "compose.yaml").read_text() == compose
    assert json.loads((project.run / "exits" / "paris" / "settings.json").read_text())["mtu"] != 1300


def test_an_entry_that_did_not_take_it_is_told(project: Project, engine: ScriptedEngine) -> None:
    engine.statuses = [{"generation": "0"}]
    engine.applied = {"generation": "0"}
    with pytest.raises(ChainError, match="it runs generation 0") as refused:
        apply_if_running(project, engine)
    assert refused.value.code is ExitCode.NOT_UP
