from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.agent import choice, datapath, steering
from chain.agent import judge as judges
from chain.agent.datapath import Datapath
from chain.agent.failover import Drained, Judged
from chain.agent.judge import Judge
from chain.agent.verdict import State
from chain.contract import MARK_GROUP, Client, Group, Member
from chain.node import lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chain.contract import DesiredState
    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp, server: 192.0.2.1}
  oslo: {kind: l2tp, server: 192.0.2.2}
  rome: {kind: l2tp, server: 192.0.2.3}
"""
MEMBERS = "paris", "oslo", "rome"
# Of groups; the same one is there often enough that clients are counted anew in it.
ORDERS = *[("fast", "slow")] * 3, ("slow", "fast"), ("fast", "home"), ("fast",)


class Kernel:
    """Takes the binding's place, since a real one needs root: it knows of sets and maps what the agent says of them."""

    def __init__(self) -> None:
        self.has: dict[str, dict[str, str]] = defaultdict(dict)

    def cmd(self, text: str) -> tuple[int, str, str]:
        if text.startswith("list map"):
            elements = [[int(key), int(value)] for key, value in self.has[text.rsplit(maxsplit=1)[-1]].items()]
            return 0, json.dumps({"nftables": [{"map": {"elem": elements}}]}), ""
        for line in text.splitlines():
            words = line.split(maxsplit=5)
            if words[0] == "flush":
                self.has[words[4]].clear()
            elif words[:2] == ["add", "element"]:
                pairs = (each.partition(" : ") for each in words[5].strip("{} ").split(", "))
                self.has[words[4]].update({key: value for key, _, value in pairs})
        return 0, "", ""

    def set_json_output(self, on: bool) -> None:  # noqa: FBT001 - the binding's signature
        del on


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def judge(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    monkeypatch.setattr(datapath, "HEALTH", tmp_path / "healthy")
    monkeypatch.setattr(steering, "FILE", tmp_path / "steering.json")
    monkeypatch.setattr(judges, "WITNESSES", tmp_path / "witnesses.json")
    return Judge(Datapath(lambda: kernel))


def test_without_a_state_there_is_nothing_to_show(judge: Judge) -> None:
    with pytest.raises(RuntimeError, match="no state"):
        judge.status()
    assert judge.going() == {}


def test_where_no_exit_is_there_all_is_blocked_and_shown_so(
    judge: Judge, kernel: Kernel, built: Callable[[str], Topology]
) -> None:
    judge.take_over(built(TEXT).state, {}, {}, {})
    judge.placed()
    assert not datapath.HEALTH.exists()
    assert not any(kernel.has.values())
    found = judge.status()
    assert [exit_["state"] for exit_ in found["exits"]] == ["silent"] * 3
    assert [(group["name"], group["exit"]) for group in found["groups"]] == [("default", None)]


def test_an_order_is_remembered_for_the_next_agent(
    judge: Judge, built: Callable[[str], Topology], capsys: pytest.CaptureFixture[str]
) -> None:
    judge.take_over(built(TEXT).state, {}, {}, {})
    judge.steer({"verb": "switch", "group": "default", "exit": "oslo"})
    assert '"event": "switch"' in capsys.readouterr().out
    with pytest.raises(ValueError, match="no exit paris"):  # its link is not there
        judge.steer({"verb": "drain", "exit": "paris"})
    another = Judge(Datapath(Kernel))
    another.take_over(built(TEXT).state, {}, {}, {})
    assert another.status()["groups"][0]["pinned"] == "oslo"


@pytest.mark.usefixtures("judge")  # whose files are not the machine's
def test_who_answers_through_exits_is_kept_until_it_is_known_better(built: Callable[[str], Topology]) -> None:
    state, file = built(TEXT).state, judges.WITNESSES
    (paris,) = (f"paris {exit_.identity}" for exit_ in state.exits if exit_.name == "paris")
    saved = {paris: ["9.9.9.9"], "paris of before": ["9.9.9.9"]}
    file.write_text(json.dumps(saved))
    judge = Judge(Datapath(Kernel))
    judge._remember_witnesses(0.0)
    assert json.loads(file.read_text()) == saved, "an agent that knows of no exit yet forgets none"
    judge.take_over(state, {}, {}, {})
    file.unlink()
    file.mkdir()
    judge._remember_witnesses(1.0)
    file.rmdir()
    judge._remember_witnesses(2.0)
    assert json.loads(file.read_text()) == {paris: ["9.9.9.9"]}, "it could not be written before"
    judge.take_over(state, {"paris": "lo"}, {}, {})
    judge._remember_witnesses(3.0)
    judge.take_over(state, {}, {}, {})
    judge._remember_witnesses(4.0)
    assert json.loads(file.read_text()) == {paris: ["9.9.9.9"]}, "a link that is away says nothing against it"


def test_drains_are_told_when_the_first_reason_comes_and_the_last_one_goes(
    judge: Judge, built: Callable[[str], Topology], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge._endings, "begin", lambda *_: None)
    state, links = built(TEXT).state, {"paris": "eth1"}
    judge.take_over(state, links, {}, {})
    capsys.readouterr()
    windows: set[Drained] = set()
    monkeypatch.setattr(judge, "_windows", lambda _: set(windows))
    judge.steer({"verb": "drain", "exit": "paris"})
    for reasons in ({"a"}, {"b"}, {"b", "c"}, set[str]()):
        windows = {Drained("paris", reason) for reason in reasons}
        judge._review()
    judge.steer({"verb": "undrain", "exit": "paris"})
    told = [(each["event"], each["cause"]) for each in events(capsys.readouterr().out)]
    assert told == [("drain", "by hand"), ("undrain", "by hand")]
    windows = {Drained("paris", "a")}
    judge._review()
    judge.take_over(replace(state, generation="2"), links, {}, {})
    windows = {Drained("paris", "b")}
    judge._review()
    windows = set()
    judge._review()
    told = [(each["event"], each["cause"]) for each in events(capsys.readouterr().out)]
    assert told == [("drain", "a"), ("undrain", "b")]


def test_what_runs_through_a_drained_exit_is_drained_for_a_reason_of_its_own(
    judge: Judge, built: Callable[[str], Topology], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = built(TEXT.replace("{kind: l2tp, server: 192.0.2.2}", "{kind: l2tp, server: 192.0.2.2, via: paris}")).state
    monkeypatch.setattr(judge._endings, "begin", lambda *_: None)
    judge.take_over(state, {name: name for name in MEMBERS}, {}, {})

    def drained() -> dict[str, tuple[str, ...]]:
        return judge._failover.drained()

    for verb, name in (("drain", "oslo"), ("drain", "paris")):
        judge.steer({"verb": verb, "exit": name})
    assert drained() == {"oslo": ("by hand", "runs through paris (by hand)"), "paris": ("by hand",)}
    judge.take_over(state, {name: name for name in MEMBERS[:2]}, {}, {})
    assert set(drained()["oslo"]) == {"by hand", "runs through paris (by hand)"}
    judge.steer({"verb": "undrain", "exit": "oslo"})
    assert drained() == {"oslo": ("runs through paris (by hand)",), "paris": ("by hand",)}
    apart = replace(state, exits=tuple(replace(exit_, via="") for exit_ in state.exits))
    judge.take_over(apart, {name: name for name in MEMBERS[:2]}, {}, {})
    assert drained() == {"paris": ("by hand",)}
    judge.take_over(state, {name: name for name in MEMBERS[:2]}, {}, {})
    judge.steer({"verb": "undrain", "exit": "paris"})
    assert not drained()


def events(said: str) -> list[dict[str, Any]]:
    return [json.loads(line)["event"] for line in said.splitlines()]


def test_an_order_is_told_once_and_before_what_it_does(
    judge: Judge, built: Callable[[str], Topology], capsys: pytest.CaptureFixture[str]
) -> None:
    judge.take_over(built(TEXT).state, {}, {}, {})
    judge._review(*(Judged(name, State.GOOD, "") for name in MEMBERS))
    judge.placed()
    capsys.readouterr()
    for _ in range(2):
        judge.steer({"verb": "switch", "group": "default", "exit": "oslo"})
    told = [(each["event"], each.get("target", each.get("exit"))) for each in events(capsys.readouterr().out)]
    assert told == [("switch", "oslo"), ("move", "oslo")]


def test_without_a_pin_a_group_goes_back_at_once_when_it_is_told_to(
    judge: Judge, built: Callable[[str], Topology], capsys: pytest.CaptureFixture[str]
) -> None:
    judge.take_over(built(TEXT + "groups: {default: {exits: [paris, oslo], fail_back: never}}\n").state, {}, {}, {})
    judge._review(Judged("paris", State.GOOD, ""), Judged("oslo", State.GOOD, ""))
    for state in (State.SUSPECT, State.GOOD):
        judge._review(Judged("paris", state, ""))
    judge.placed()
    assert judge.status()["groups"][0]["exit"] == "oslo"
    capsys.readouterr()
    judge.steer({"verb": "switch", "group": "default", "exit": None})
    assert judge.status()["groups"][0]["exit"] == "paris"
    assert [each["event"] for each in events(capsys.readouterr().out)] == ["move"]


def test_traffic_may_flow_only_when_clients_are_placed(judge: Judge, built: Callable[[str], Topology]) -> None:
    judge.take_over(built(TEXT).state, {}, {}, {})
    judge._review(Judged("paris", State.GOOD, ""))
    assert not judge.going()
    assert not datapath.HEALTH.exists()
    judge.placed()
    assert set(judge.going().values()) == {"paris"}
    assert datapath.HEALTH.exists()


def test_a_move_says_how_long_clients_had_no_answer(
    judge: Judge, built: Callable[[str], Topology], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    async def play() -> None:
        judge.take_over(built(TEXT).state, {}, {}, {})
        judge.placed()
        judge._review(Judged("paris", State.GOOD, ""))
        judge._review(Judged("paris", State.DEAD, "its container is gone"))
        clock[0] = 107.5
        judge._review(Judged("oslo", State.GOOD, ""))

    asyncio.run(play())
    told = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines() if '"move"' in line]
    assert [(each["target"], each["blackout"]) for each in told] == [("paris", None), (None, None), ("oslo", 7.5)]


# While clients are placed, which takes a while, exits come and go, and another state may have to be meant.


@st.composite
def groups_of(draw: st.DrawFn) -> tuple[Group, ...]:
    names = draw(st.sampled_from(ORDERS))
    found = []
    for index, name in enumerate(names):
        members = draw(st.permutations(MEMBERS))[: draw(st.integers(1, 3))]
        weights = [draw(st.integers(1, 3)) for _ in members]
        found.append(
            Group(
                name=name,
                mark=MARK_GROUP + index,
                exits=tuple(members),
                policy=draw(st.sampled_from(("failover", "balance"))),
                sticky="client",
                members=tuple(map(Member, members, weights)),
                fail_back=0.0,
                resolver_address=f"192.0.2.{index}",
                resolver_port=5300 + index,
            )
        )
    return tuple(found)


def _actions() -> st.SearchStrategy[tuple[Any, ...]]:
    return st.one_of(
        st.tuples(st.just("judge"), st.sampled_from(MEMBERS), st.sampled_from((*State, State.GOOD))),
        st.tuples(st.just("apply"), groups_of()),
        st.tuples(st.sampled_from(("commit", "finish", "restart"))),
    )


class Scene:
    """An agent, what its supervisor does, and a copy that places clients."""

    def __init__(self, base: DesiredState) -> None:
        self.base, self.kernel = base, Kernel()
        self.exits = {exit_.mark: exit_.name for exit_ in base.exits}
        self.judged = dict.fromkeys(MEMBERS, State.DEAD)
        self.groups_before: dict[int, str] = {}  # as the supervisor knows
        self.state: DesiredState | None = None
        self.copy: DesiredState | None = None  # of which state it places clients, while it does
        self.placed: DesiredState | None = None  # whose clients the kernel has
        self.judge = Judge(Datapath(lambda: self.kernel))

    def act(self, what: str, *more: Any) -> None:
        getattr(self, what)(*more)

    def apply(self, groups: tuple[Group, ...]) -> None:
        clients = tuple(
            Client(f"c{number}", "", f"10.0.0.{number}", "", groups[number % len(groups)].name) for number in range(9)
        )
        if self.state is not None and len(self.state.groups) != len(groups):  # the supervisor loads another lock
            self.kernel.has.clear()
            self.placed = None
        self.state = replace(self.base, groups=groups, clients=clients)
        self._mean()

    def restart(self) -> None:
        if self.state is not None:
            self.judge = Judge(Datapath(lambda: self.kernel))
            self._mean()

    def _mean(self) -> None:
        assert self.state is not None
        groups = {group.mark: group.name for group in self.state.groups}
        before = self.groups_before
        self.groups_before = {mark: name for mark, name in before.items() if groups.get(mark) == name}
        self.copy = self.state
        self.judge.take_over(replace(self.state, clients=()), {}, {}, before)
        self.judge._review(*(Judged(name, state, "") for name, state in self.judged.items()))

    def commit(self) -> None:
        """Have the kernel take the clients, of which the agent does not know yet."""
        if self.copy is not None:
            counts = self.judge.buckets
            buckets = choice.client_buckets(self.copy, counts)
            self.kernel.cmd(lock.entry_clients(self.copy, buckets, choice.by_flow(self.copy, counts)))
            self.placed = self.copy

    def finish(self) -> None:
        if self.copy is not None and self.state is not None:
            self.commit()
            self.judge.placed()
            self.groups_before = {group.mark: group.name for group in self.state.groups}
            self.copy = None

    def judge_(self, name: str, state: State) -> None:
        self.judged[name] = state
        if self.state is not None:
            self.judge._review(Judged(name, state, ""))

    def clients(self) -> Iterator[tuple[str, str, list[str | None]]]:
        """Give each client's group in the kernel, that group's name when it was put there, and where both lead."""
        if self.placed is None:
            return
        names = {client.address: client.group for client in self.placed.clients}
        has = self.kernel.has
        for address, group in has["client_group"].items():
            bucket = has["client_bucket"][address]
            marks = has["bucket_exit"].get(bucket), has["group_exit"].get(group)
            yield group, names[address], [None if mark is None else self.exits[int(mark)] for mark in marks]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(_actions(), max_size=14))
def test_no_decision_is_lost_or_undone_and_no_client_goes_by_another_groups_exit(
    actions: list[tuple[Any, ...]], judge: Judge, built_once: DesiredState
) -> None:
    del judge  # but for the files that it made its own
    steering.FILE.unlink(missing_ok=True)
    asyncio.run(played(built_once, actions))


async def played(base: DesiredState, actions: list[tuple[Any, ...]]) -> None:
    scene = Scene(base)
    for what, *more in actions:
        scene.act("judge_" if what == "judge" else what, *more)
        if scene.state is None:
            continue
        groups = {group.name: group for group in scene.state.groups}
        chosen = scene.judge._failover.chosen
        for mark, name, exits in scene.clients():
            for exit_ in filter(None, exits):
                assert name in groups, f"{name} is gone, and its clients go by {exit_}"
                assert exit_ in groups[name].exits
                assert scene.judged[exit_] is not State.DEAD
            if scene.judge._placement.names.get(int(mark)) == name and (choice.key(name), 0) in chosen:
                assert all(exits), "nobody is refused by being counted anew"
        told = scene.kernel.has["bucket_exit"]
        for (key, bucket), exit_ in chosen.items():
            group = groups[choice.name(key)]
            if scene.judge._placement.names.get(group.mark) == group.name:
                assert scene.exits[int(told[str(choice.bucket_of(group, bucket))])] == exit_
        if scene.copy is None:  # all is in force
            assert scene.judge._placement.names == {group.mark: group.name for group in groups.values()}


@pytest.fixture(scope="module")
def built_once() -> DesiredState:
    from chain import topology
    from chain.config.models import Config
    from chain.exits import REGISTRY

    exits = {name: REGISTRY["l2tp"].settings.model_validate({"kind": "l2tp"}) for name in MEMBERS}
    config = {"entry": {"endpoint": "vpn.example.org"}, "exits": exits}
    return topology.build(Config.model_validate(config), REGISTRY).state
