from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from chain.api.down import compose_project, down, end_tests, projects, running_tests
from chain.api.progress import Silent
from chain.api.project import changing
from chain.api.render import write
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from chain.api.project import Project
    from tests.unit.api.conftest import ScriptedEngine


def test_what_was_started_goes_before_what_chain_yaml_says_now(project: Project, engine: ScriptedEngine) -> None:
    assert compose_project(project) == "chain-main"
    write(project, engine, None)
    for text in ("name: other\n" + project.file.read_text(), "no: valid: yaml\n"):
        project.file.write_text(text)
        assert compose_project(project) == "chain-main"
    project.file.unlink()
    assert compose_project(project) == "chain-main"


@pytest.mark.parametrize("text", ["", "name:\n  - [", "[]", "services: {}"])
def test_a_rendered_file_that_tells_nothing_leaves_it_to_chain_yaml(project: Project, text: str) -> None:
    project.run.mkdir()
    (project.run / "compose.yaml").write_text(text)
    assert compose_project(project) == "chain-main"
    project.file.write_text("odd: 1\n")
    with pytest.raises(ChainError) as refused:
        compose_project(project)
    assert refused.value.code is ExitCode.CONFIG


def test_what_runs_from_this_folder_is_taken_down_whatever_its_name(project: Project, engine: ScriptedEngine) -> None:
    assert projects(project, engine) == ["chain-main"]
    engine.runs("entry", folder=str(project.run))
    engine.project = "chain-former"
    assert projects(project, engine) == ["chain-former"]


def test_another_folders_chain_of_this_name_is_left_alone(project: Project, engine: ScriptedEngine) -> None:
    engine.runs("entry", folder="/srv/other/run")
    with pytest.raises(ChainError, match="a chain of this name runs from /srv/other/run") as refused:
        down(project, engine, Silent())
    assert refused.value.code is ExitCode.CONFIG


def test_it_waits_for_a_command_that_changes_the_chain(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()

    def leftovers(_: str) -> list[str]:
        looked.set()
        return []

    monkeypatch.setattr(engine, "leftovers", leftovers)
    with changing(project):
        taking = threading.Thread(target=down, args=(project, engine, Silent()))
        taking.start()
        assert not looked.wait(0.2)
    taking.join(10)
    assert looked.is_set()


def test_tests_of_exits_are_known_by_their_containers_and_by_their_files(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def leftovers(name: str) -> list[str]:
        asked.append(name)
        return []

    monkeypatch.setattr(engine, "leftovers", leftovers)
    assert running_tests(project, engine) == set()
    project.test.run.mkdir(parents=True)
    (project.test.run / "compose.yaml").write_text('name: "chain-former_test"\n')  # killed before it had containers
    engine.project = "chain-main_test"
    engine.runs("exit-paris", folder=str(project.test.run))
    assert running_tests(project, engine) == {"chain-former_test", "chain-main_test"}
    assert end_tests(project, engine, Silent()) == []
    assert set(asked) == {"chain-former_test", "chain-main_test"}
    assert not project.run.exists()


def test_the_chains_own_files_stay_when_a_test_is_over(project: Project, engine: ScriptedEngine) -> None:
    write(project, engine, None)
    before = {path: path.read_bytes() for path in project.run.rglob("*.*")}
    project.test.run.mkdir()
    end_tests(project, engine, Silent())
    assert {path: path.read_bytes() for path in project.run.rglob("*.*")} == before
    assert not project.test.run.exists()
