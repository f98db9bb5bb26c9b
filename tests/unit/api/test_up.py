from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chain.api import up
from chain.api.clients import ensure_entry_key
from chain.api.load import Loaded, load
from chain.api.preflight import HostTrial, check_owner
from chain.api.progress import Silent
from chain.api.project import write_atomic
from chain.api.up import dry_run, hint_for, observe, reconcile, services, stragglers, wait
from chain.checks import Publisher
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.api.project import Project
    from chain.config.models import Config
    from tests.unit.api.conftest import ScriptedEngine

SECONDS = 10.0


def load_first(project: Project, engine: ScriptedEngine) -> Loaded:
    """Load a project whose state is the generation that the scripted entry runs."""
    loaded = load(project, engine)
    state = replace(loaded.topology.state, generation="1")
    return replace(loaded, topology=replace(loaded.topology, state=state))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("Bind for 0.0.0.0:51820 failed: port is already allocated", "port: …"),
        ("listen udp4 0.0.0.0:51820: bind: address already in use", "port: …"),
        ("invalid pool request: Pool overlaps with other one on this address space", "pool: …/20"),
        ("network dsl declared as external, but could not be found", "is not there"),
        ("something else", "`chain down`"),
    ],
)
def test_composes_errors_that_people_meet_have_a_hint(words: str, hint: str) -> None:
    assert hint in hint_for(words)


def status(*drained: str, **exits: str) -> dict[str, Any]:
    """Give a status; each exit by its state, and the first one that is up and not drained for all clients."""
    usable = (name for name, state in exits.items() if state == "up" and name not in drained)
    return {
        "generation": "1",
        "exits": [
            {
                "name": name,
                "state": state,
                "cause": f"why {name}",
                "open": state == "up",
                "drained": ["by hand"] if name in drained else [],
            }
            for name, state in exits.items()
        ],
        "groups": [{"name": "default", "exit": next(usable, None), "exits": list(exits)}],
    }


def test_an_exit_that_is_not_open_is_named_with_its_cause() -> None:
    assert [str(problem) for problem in stragglers(status(oslo="up", paris="down"))] == [
        "exit paris: down: why paris\n    → `chain logs exit-paris` shows more"
    ]
    assert not stragglers(status(oslo="up"))


def test_what_to_try_stands_where_it_is_known_and_warnings_are_told_too() -> None:
    found = status(oslo="up", paris="down")
    found["exits"][0] |= {"warning": "packets get lost", "advice": "`mtu: 1280`"}
    found["exits"][1] |= {"warning": "", "advice": "`crypto: legacy`"}
    assert [str(problem) for problem in stragglers(found)] == [
        "exit paris: down: why paris\n    → `crypto: legacy`",
        "exit oslo: packets get lost\n    → `mtu: 1280`",
    ]


def test_it_waits_until_all_exits_are_open(project: Project, engine: ScriptedEngine) -> None:
    engine.statuses = [None, status(paris="locked"), status(paris="dialling"), status(paris="up")]
    assert wait(load_first(project, engine), engine, Silent(), SECONDS) == status(paris="up")


def test_who_is_blocked_by_order_is_not_waited_for_and_it_is_said(project: Project, engine: ScriptedEngine) -> None:
    found = status("paris", paris="up")
    engine.statuses = [found]
    assert wait(load_first(project, engine), engine, Silent(), SECONDS) == found
    (problem,) = stragglers(found)
    assert "paris (by hand)" in problem.what
    assert "`chain undrain paris`" in problem.hint
    engine.statuses = [status("paris", paris="up", oslo="down")]
    with pytest.raises(ChainError) as failed:
        wait(load_first(project, engine), engine, Silent(), 0.0)
    assert failed.value.code is ExitCode.NOT_UP
    assert [each.where for each in stragglers(status("paris", paris="up", oslo="down"))] == [
        "exit oslo",
        "group default",
    ]


def test_a_group_without_clients_is_not_waited_for(project: Project, engine: ScriptedEngine) -> None:
    found = status(paris="up")
    found["groups"].append({"name": "spare", "exit": None, "exits": ["paris"]})
    engine.statuses = [found]
    assert wait(load_first(project, engine), engine, Silent(), SECONDS) == found


def test_it_does_not_wait_for_a_straggler_for_ever(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "STRAGGLER_SECONDS", 0.05)
    engine.statuses = [status(paris="up", oslo="dialling")]
    assert wait(load_first(project, engine), engine, Silent(), SECONDS)["groups"][0]["exit"] == "paris"


def test_a_chain_that_does_not_come_up_is_explained_with_the_logs_of_those_to_blame(
    project: Project, engine: ScriptedEngine
) -> None:
    for service in ("entry", "exit-paris", "exit-oslo"):
        engine.runs(service)
    engine.statuses = [status(paris="down", oslo="dialling")]
    with pytest.raises(ChainError) as failed:
        wait(load_first(project, engine), engine, Silent(), 0.0)
    assert failed.value.code is ExitCode.NOT_UP
    assert [problem.where for problem in failed.value.problems] == ["exit paris", "exit oslo"]
    assert failed.value.detail == (
        "── exit-paris ──\nlast words of id-exit-paris\n\n── exit-oslo ──\nlast words of id-exit-oslo"
    )


@pytest.mark.parametrize("state", ["exited", "restarting"])
def test_a_container_that_does_not_stay_up_ends_the_waiting_at_once(
    project: Project, engine: ScriptedEngine, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.runs("exit-paris", state)
    engine.runs("entry")
    if state == "restarting":  # once more at every look; restarts of former times do not count
        restarts = itertools.count(40)
        monkeypatch.setattr(
            engine, "containers", lambda _: [replace(item, restarts=next(restarts)) for item in engine.states[:1]]
        )
    with pytest.raises(ChainError, match="container exit-paris: it ended with 1 and does not stay up") as failed:
        wait(load_first(project, engine), engine, Silent(), 3600.0)
    assert "last words of id-exit-paris" in failed.value.detail


def test_an_entry_that_never_answers_is_to_blame(project: Project, engine: ScriptedEngine) -> None:
    engine.runs("entry")
    with pytest.raises(ChainError, match="container entry: its runtime does not answer") as failed:
        wait(load_first(project, engine), engine, Silent(), 0.0)
    assert failed.value.detail == "── entry ──\nlast words of id-entry"


def test_what_is_there_is_observed(project: Project, engine: ScriptedEngine) -> None:
    loaded = load(project, engine)
    assert services(loaded) == ["entry", "exit-paris"]
    engine.runs("entry")
    engine.runs("exit-paris", "exited")
    engine.statuses = [status(paris="up")]
    (project.run / "entry").mkdir(parents=True)
    (project.run / "entry" / "state.json").write_text("{}")
    (project.run / "notes.txt").write_text("the user's own")
    observed = observe(loaded, engine)
    assert dict(observed.files) == {"entry/state.json": "{}"}
    assert (observed.generation, observed.running) == ("1", frozenset({"entry"}))


def test_a_container_of_an_image_that_was_built_anew_since_is_observed(
    project: Project, engine: ScriptedEngine
) -> None:
    loaded = load(project, engine)
    for service, folder in (("entry", "entry"), ("exit-paris", "exit-l2tp")):
        engine.runs(service, image=engine.image_id(loaded.images[folder].name) or "")
    assert not observe(loaded, engine).outdated
    engine.built = "second"
    assert observe(loaded, engine).outdated == {"entry", "exit-paris"}


def test_a_changed_state_is_applied_before_any_waiting(project: Project, engine: ScriptedEngine) -> None:
    old, new = status(paris="up") | {"generation": "0"}, status(paris="up")
    engine.statuses = [old, new]
    engine.applied = {"generation": "1"}
    assert wait(load_first(project, engine), engine, Silent(), SECONDS) == new
    assert engine.asked == ["apply"]


def test_a_state_that_another_command_applied_meanwhile_is_as_good(project: Project, engine: ScriptedEngine) -> None:
    theirs = status(paris="up") | {"generation": "2"}
    engine.statuses = [status(paris="dialling"), theirs]
    engine.applied = {"generation": "2"}
    assert wait(load_first(project, engine), engine, Silent(), 3600.0) == theirs


def test_an_entry_that_never_has_the_wanted_state_is_to_blame(project: Project, engine: ScriptedEngine) -> None:
    engine.runs("entry")
    engine.statuses = [status(paris="up") | {"generation": "0"}]
    engine.applied = {"generation": "1"}
    with pytest.raises(ChainError, match="did not say in time that it has what") as failed:
        wait(load_first(project, engine), engine, Silent(), 0.0)
    assert failed.value.code is ExitCode.NOT_UP


def test_a_dead_standby_is_no_failure_however_short_the_wait(project: Project, engine: ScriptedEngine) -> None:
    engine.statuses = [status(paris="up", oslo="dialling")]
    assert wait(load_first(project, engine), engine, Silent(), 0.0) == status(paris="up", oslo="dialling")


def test_a_client_that_was_kept_out_has_the_entry_look_again_once(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    progress = Silent()
    monkeypatch.setattr(progress, "note", notes.append)
    kept = status(paris="dialling") | {"kept_out": ["phone"]}
    engine.statuses = [kept, kept, status(paris="up")]
    engine.applied = {"generation": "1", "kept_out": ["phone"]}
    wait(load_first(project, engine), engine, progress, SECONDS)
    assert engine.asked == ["apply"]
    assert [note.partition("\n")[0] for note in notes] == [
        "warning: client phone: it is kept out: the entry found no key in secrets/peers/phone"
    ]
    engine.statuses = [kept]
    assert observe(load(project, engine), engine).kept_out == ("phone",)


def test_the_entry_gets_a_label_of_its_key_also_where_up_made_that(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "check_host", lambda *_: None)
    monkeypatch.setattr(up, "compose_up", lambda *_: None)
    reconcile(load(project, engine), engine, Silent(), HostTrial(engine))
    for service in ("entry", "exit-paris"):
        engine.runs(service)
    assert reconcile(load(project, engine), engine, Silent(), HostTrial(engine)) == ()
    assert project.kept.read_text() == project.file.read_text()
    project.entry_key.rename(project.secrets / "old")
    ensure_entry_key(load(project, engine))
    assert [str(step) for step in reconcile(load(project, engine), engine, Silent(), HostTrial(engine))] == [
        "write compose.yaml: changed",
        "compose up: changed: compose.yaml; made anew: entry; clients are away for some seconds",
    ]


def test_a_dry_run_looks_at_what_the_engine_lists(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.secrets.mkdir(mode=0o700)
    for role in ("vpn_server_ip", "vpn_ipsec_psk", "vpn_username", "vpn_password"):
        write_atomic(project.secrets / role, "value\n", 0o600)
    monkeypatch.setattr(engine, "check", lambda: None)  # there is no Docker behind it
    assert dry_run(project, engine, Silent())
    engine.published = [Publisher("wg-easy", "other")]
    with pytest.raises(ChainError, match="wg-easy"):
        dry_run(project, engine, Silent())
    assert not project.run.exists()


def test_a_chain_of_the_same_name_in_another_folder_is_not_taken_over(project: Project, engine: ScriptedEngine) -> None:
    loaded = load(project, engine)
    engine.runs("entry")
    engine.states = [replace(state, folder=str(project.run)) for state in engine.states]
    check_owner(loaded, engine)
    engine.states = [replace(state, folder="/srv/other/run") for state in engine.states]
    with pytest.raises(ChainError, match=r"runs from /srv/other/run\n.*`chain down` in /srv/other") as refused:
        check_owner(loaded, engine)
    assert refused.value.code is ExitCode.CONFIG
    engine.states = [replace(state, folder=str(project.run)) for state in engine.states]
    engine.project = "chain-former"
    with pytest.raises(ChainError, match="this folder's chain still runs as former"):
        check_owner(loaded, engine)


def test_what_a_killed_test_of_an_exit_left_goes_before_anything_is_started(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    monkeypatch.setattr(up, "end_tests", lambda *_: did.append("end"))
    monkeypatch.setattr(up, "check_host", lambda *_: did.append("check"))
    monkeypatch.setattr(up, "compose_up", lambda *_: did.append("compose"))
    project.test.run.mkdir(parents=True)
    (project.test.run / "compose.yaml").write_text('name: "chain-main_test"\n')
    loaded = load(project, engine)
    assert observe(loaded, engine).tests == ("chain-main_test",)
    steps = reconcile(loaded, engine, Silent(), HostTrial(engine))
    assert "end chain-main_test: a test of an exit goes on there, or was killed" in map(str, steps)
    assert did == ["end", "check", "compose"]


HOPS = """\
entry: {endpoint: vpn.example.org}
exits:
  hop: {kind: l2tp, server: 192.0.2.1}
  inner: {kind: l2tp, server: 192.0.2.2, via: hop}
  spare: {kind: l2tp, server: 192.0.2.3}
"""


def test_exits_are_replaced_in_an_order_that_serves_clients(configured: Callable[[str], Config]) -> None:
    services = ("exit-hop", "exit-inner", "exit-spare")
    assert up.in_turn(configured(HOPS), services, {"inner"}) == ["spare", "hop", "inner"]
    assert up.in_turn(configured(HOPS), services, {"spare"}) == ["hop", "inner", "spare"]
    assert up.in_turn(configured(HOPS), services, {"hop"}) == ["spare", "inner", "hop"]


def test_the_next_exit_is_replaced_when_the_one_before_is_open_again(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[str] = []
    monkeypatch.setattr(up, "_compose_up", lambda _loaded, _engine, service: composed.append(service))
    loaded = load_first(project, engine)
    before, away = status(paris="up"), status(paris="dialling")
    engine.statuses = [away, away, before]
    up.replace_exits(loaded, engine, Silent(), {"paris": {"paris", "oslo"}}, SECONDS)
    assert composed == ["exit-paris"]
    engine.statuses = [status(paris="down")]
    with pytest.raises(ChainError) as failed:
        up.replace_exits(loaded, engine, Silent(), {"paris": {"paris"}, "oslo": {"oslo"}}, 0.0)
    assert composed == ["exit-paris"] * 2, "the other one stays as it is"
    assert failed.value.code is ExitCode.NOT_UP
    assert failed.value.problems[0].where == "exit paris"
    up.replace_exits(loaded, engine, Silent(), {"paris": set()}, SECONDS)  # nobody waits for one that was not open
