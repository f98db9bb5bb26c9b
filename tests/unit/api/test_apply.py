from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chain.api.apply import apply_if_running, check_applicable
from chain.api.load import load
from chain.api.render import write
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from chain.api.project import Project
    from tests.unit.api.conftest import ScriptedEngine

CLIENT = "clients:\n  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}\n"
GROUP = "groups: {far: {exits: [paris]}}\n"
# What waits for `chain up`, whoever comes or goes.
PENDING = "network: {pool: 10.217.0.0/20}\ndns: {upstreams: [192.0.2.53]}\n" + GROUP


@pytest.fixture
def running(project: Project, engine: ScriptedEngine) -> Project:
    """A project whose chain runs as its file is."""
    write(project, engine, None)
    engine.statuses = [{"generation": state_of(project)["generation"]}]
    return project


def state_of(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.run / "entry" / "state.json").read_text())
    return found


def change(project: Project, text: str) -> None:
    project.file.write_text(project.file.read_text() + text)


def test_a_chain_that_does_not_run_is_left_alone(project: Project, engine: ScriptedEngine) -> None:
    check_applicable(project, engine, None)
    assert apply_if_running(project, engine) is None
    assert not project.run.exists()


def test_a_running_entry_gets_the_clients_and_nothing_else_that_has_changed(
    running: Project, engine: ScriptedEngine
) -> None:
    before, compose = state_of(running), (running.run / "compose.yaml").read_text()
    change(running, CLIENT)
    wanted = load(running, engine).topology.state
    running.file.write_text(running.file.read_text().replace("kind: l2tp", "kind: l2tp, mtu: 1300") + PENDING)
    engine.applied = {"generation": wanted.generation}
    check_applicable(running, engine, None)
    assert apply_if_running(running, engine) == []
    assert engine.asked[-1] == "apply"
    after = state_of(running)
    assert [client["name"] for client in after["clients"]] == ["phone"]
    assert {key for key in after if after[key] != before[key]} == {"clients", "generation"}
    assert after["generation"] == wanted.generation
    assert (running.run / "compose.yaml").read_text() == compose
    assert json.loads((running.run / "exits" / "paris" / "settings.json").read_text())["mtu"] != 1300


@pytest.mark.parametrize(
    ("text", "group", "words"),
    [
        (PENDING, "far", "group far: the running chain does not have it yet"),
        (
            CLIENT.replace("=}", "=, group: far}") + GROUP,
            None,
            "client phone: the running chain does not have its group",
        ),
        ("", None, r"entry\.subnet: the running chain's clients are in 10\.13\.13\.0/24, chain.yaml's in 10\.9\.0\.0"),
    ],
)
def test_what_does_not_fit_the_running_chain_is_refused_and_nothing_is_touched(
    running: Project, engine: ScriptedEngine, text: str, group: str | None, words: str
) -> None:
    change(running, text)
    if not text:
        running.file.write_text(running.file.read_text().replace("exits", "  subnet: 10.9.0.0/24\nexits"))
    before = state_of(running)
    with pytest.raises(ChainError, match=words) as refused:
        check_applicable(running, engine, group)
    assert refused.value.code is ExitCode.CONFIG
    assert "`chain up` takes over" in str(refused.value)
    if group is None:
        with pytest.raises(ChainError, match=words):
            apply_if_running(running, engine)
    assert state_of(running) == before
    assert "apply" not in engine.asked


def test_a_group_that_nobody_has_is_left_to_who_adds_the_client(running: Project, engine: ScriptedEngine) -> None:
    check_applicable(running, engine, "no-such-group")


def test_files_that_are_not_what_runs_are_not_built_upon(running: Project, engine: ScriptedEngine) -> None:
    change(running, PENDING)
    write(running, engine, None)  # as `chain render` does
    with pytest.raises(ChainError, match="this is not what the entry runs"):
        check_applicable(running, engine, None)
    (running.run / "entry" / "state.json").write_text("{}")
    with pytest.raises(ChainError, match="this is not what the entry runs"):
        apply_if_running(running, engine)


def test_a_change_of_clients_that_was_cut_off_is_gone_on_with(running: Project, engine: ScriptedEngine) -> None:
    change(running, CLIENT)
    write(running, engine, None)  # the file is there, and the entry was not told
    engine.applied = {"generation": state_of(running)["generation"]}
    assert apply_if_running(running, engine) == []


def test_an_entry_that_can_not_be_asked_keeps_nobody_from_adding_clients(
    running: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ChainError([], ExitCode.ENGINE)

    monkeypatch.setattr(engine, "entry", refuse)
    check_applicable(running, engine, None)


def test_a_client_that_the_entry_keeps_out_is_told(running: Project, engine: ScriptedEngine) -> None:
    engine.applied = {"generation": state_of(running)["generation"], "kept_out": ["phone"]}
    assert [problem.what for problem in apply_if_running(running, engine) or ()] == [
        "it is kept out: the entry found no key in secrets/peers/phone"
    ]


def test_an_entry_that_did_not_take_it_is_told(running: Project, engine: ScriptedEngine) -> None:
    engine.applied = {"generation": "0"}
    with pytest.raises(ChainError, match="it runs generation 0") as refused:
        apply_if_running(running, engine)
    assert refused.value.code is ExitCode.NOT_UP
