from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest

from chain.api.load import alone, load
from chain.api.preflight import HostTrial, check_folder, check_host, check_writable, look, together
from chain.api.progress import Silent
from chain.checks import DockerNetwork, Publisher
from chain.contract import HostFacts
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from chain.api.project import Project
    from tests.unit.api.conftest import ScriptedEngine

HERE = HostFacts(time=1_800_000_000.0, routes=(), addresses=(), udp_ports=())


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def able(engine: ScriptedEngine) -> ScriptedEngine:
    """An engine on a host that can run the chain."""
    engine.host = HERE
    engine.kernel = dict.fromkeys(("ppp", "l2tp", "xfrm", "esp"), True)
    return engine


def fail(*problems: Problem, code: ExitCode = ExitCode.ENGINE, detail: str = "") -> None:
    raise ChainError(list(problems), code, detail)


def test_what_fails_together_is_raised_together() -> None:
    one, two = Problem("engine", "too old"), Problem("Compose", "too old")
    with pytest.raises(ChainError) as refused:
        together(lambda: fail(one, detail="words"), lambda: None, lambda: fail(two, code=ExitCode.CONFIG))
    assert refused.value.problems == [one, two]
    assert (refused.value.code, refused.value.detail) == (ExitCode.ENGINE, "words")
    together(lambda: None)


def check(project: Project, engine: ScriptedEngine, progress: Silent) -> None:
    with HostTrial(engine) as trial:
        check_host(load(project, engine), engine, progress, trial)


def test_a_host_that_can_is_no_problem(project: Project, able: ScriptedEngine) -> None:
    check(project, able, Silent())


def test_all_that_stands_in_the_way_is_said_at_once(project: Project, able: ScriptedEngine) -> None:
    able.kernel["l2tp"] = False
    able.published = [Publisher("wg-easy", "other")]
    able.others = [DockerNetwork("shop", "", (IPv4Network("10.213.0.0/16"),), "br-ffffffffffff")]
    with pytest.raises(ChainError) as refused:
        check(project, able, Silent())
    assert [problem.where for problem in refused.value.problems] == ["kernel", "entry.port", "network.pool"]
    assert refused.value.code is ExitCode.ENGINE


def test_a_host_that_can_not_be_looked_at_is_told_and_used(project: Project, able: ScriptedEngine) -> None:
    able.host = None
    progress = Notes()
    check(project, able, progress)
    assert progress.notes == ["warning: engine's host: no; its routes and ports were not checked"]
    seen = look("image", able)
    assert (seen.host, seen.why_not) == (None, "engine's host: no")
    assert seen.before <= seen.after


def test_the_kernel_is_asked_for_what_the_kinds_need(project: Project, able: ScriptedEngine) -> None:
    able.kernel["esp"] = False
    with pytest.raises(ChainError, match="esp") as refused:
        check(project, able, Silent())
    assert [problem.where for problem in refused.value.problems] == ["kernel"]


def test_what_was_tried_early_serves_until_the_needs_change(project: Project, able: ScriptedEngine) -> None:
    loaded = load(project, able)
    only_wireguard = replace(
        loaded,
        topology=replace(
            loaded.topology, exits=tuple(exit_ for exit_ in loaded.topology.exits if exit_.kind == "wireguard")
        ),
    )
    with HostTrial(able) as trial:
        trial.begin(loaded)
        assert trial.result(loaded) == trial.result(loaded)
        assert len(able.tried) == 1
        _, found = trial.result(only_wireguard)
        assert ([finding.level for finding in found], len(able.tried)) == (["ok"], 1)
        trial.result(loaded)
    assert able.tried == [able.tried[0]] * 2


def test_a_folder_is_good_when_everything_in_it_can_be_written(project: Project) -> None:
    check_writable(project)
    (project.run / "exits" / "paris").mkdir(parents=True)
    check_writable(project)
    assert not project.secrets.exists()


@pytest.mark.parametrize("name", ["run", "secrets", "run/entry", "secrets/peers"])
def test_a_file_where_a_folder_is_needed_is_in_the_way(project: Project, name: str) -> None:
    path = project.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    with pytest.raises(ChainError) as refused:
        check_writable(project)
    assert refused.value.problems == [
        Problem(str(path), "this is no folder, and one is needed here", "move it away"),
    ]
    assert refused.value.code is ExitCode.CONFIG


def test_a_folder_that_can_not_be_written_to_is_named_beside_the_secrets(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests may run as root, to whom no mode says no.
    monkeypatch.setattr("os.access", lambda path, _: path != project.root)
    with pytest.raises(ChainError) as refused:
        check_folder(load(project, engine))
    said = [problem.what for problem in refused.value.problems]
    assert said[-1] == "this folder can't be written to"
    assert all("secret" in what for what in said[:-1])
    assert len(said) == 5


def test_an_exit_by_itself_needs_no_port_and_addresses_of_its_own(project: Project, able: ScriptedEngine) -> None:
    loaded = load(project, able)
    able.published = [Publisher("wg-easy", "other")]
    made = alone(loaded, able, "paris", ())
    with HostTrial(able) as trial:
        check_host(made, able, Silent(), trial)
    subnet = made.topology.exits[0].link.subnet
    able.others = [DockerNetwork("other", "", (subnet,), "br-0")]
    with HostTrial(able) as trial, pytest.raises(ChainError, match="Docker network other"):
        check_host(made, able, Silent(), trial)


def test_two_exits_at_one_server_are_warned_of_and_go_on(project: Project, able: ScriptedEngine) -> None:
    exits = "  paris: {kind: l2tp, server: a.example.com}\n  oslo: {kind: l2tp, server: a.example.com}\n"
    project.file.write_text("entry: {endpoint: vpn.example.org}\nexits:\n" + exits)
    notes = Notes()
    check(project, able, notes)
    assert [note.partition(":")[0] for note in notes.notes] == ["warning"]
    assert "exits paris and oslo dial one server" in notes.notes[0]
    project.file.write_text(project.file.read_text() + "  bern: {kind: l2tp, server: b.example.com}\n")
    notes, made = Notes(), alone(load(project, able), able, "bern", ())
    with HostTrial(able) as trial:
        check_host(made, able, notes, trial)
    assert notes.notes == []
