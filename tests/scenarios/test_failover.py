"""Two exits stand in for each other: what clients notice of it, with the usual settings."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from faults import dropping, kill_program
from gaps import Stopwatch
from ground import LONG
from leaks import assert_no_leak
from scene import PATIENT, Chain, capturing, new_token, packets_on
from world import World, docker, eventually

from chain.agent.judge import WITNESSES
from chain.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground

pytestmark = [pytest.mark.docker, pytest.mark.long]

# Of each ground's first exit, and what it is called there.
PROGRAMS = {"wireguard": ("wireguard-go", "wireguard-go"), "l2tp": ("charon-systemd", "charon")}


HOLD_DOWN = 1


@pytest.fixture(scope="module")
def quick(chain: Chain) -> Iterator[Chain]:
    """The scenarios' chain, as quick as it usually is."""
    usual = chain.file.read_text()
    config = yaml.safe_load(usual) | {
        "failover": {"hold_down": f"{HOLD_DOWN}s"},
        "groups": {"default": {"exits": ["paris", "oslo"], "fail_back": "never"}},
    }
    chain.file.write_text(yaml.safe_dump(config, sort_keys=False))
    try:
        chain.up()
        yield chain
    finally:
        chain.file.write_text(usual)
        chain.up()


def group_of(chain: Chain) -> dict[str, Any]:
    return next(iter(chain.entry_status().get("groups", ())), {})


def uses(chain: Chain, exit_: str) -> bool:
    return bool(group_of(chain).get("exit") == exit_)


def all_good(chain: Chain) -> bool:
    exits = chain.entry_status().get("exits", ())
    return bool(exits) and all(each.get("health") == "good" for each in exits)


@pytest.fixture
def watch(quick: Chain, world: World, ground: Ground) -> Iterator[Stopwatch]:
    """A client's stream, new flows and idle connections by the first exit; all is well, hiccups apart."""
    usual = quick.file.read_text()
    quick.file.write_text(yaml.safe_dump(yaml.safe_load(usual) | {"failover": PATIENT}, sort_keys=False))
    quick.up()
    eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good")
    quick.run("switch", "default", "paris")
    quick.run("switch", "default")
    eventually(partial(uses, quick, "paris"), 30, "paris is used")
    with Stopwatch.of(world, new_token(), 500 if ground.patience == 1 else 40, IDLE) as begun:
        eventually(lambda: begun.look()["idle"] == IDLE, 60 * ground.patience, "all connections are open")
        yield begun
    quick.file.write_text(usual)
    quick.up()


IDLE = 30


def test_an_exit_that_falls_silent_is_left_and_its_connections_end(
    quick: Chain, world: World, ground: Ground, tell: Callable[[str], None]
) -> None:
    eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good")
    quick.run("switch", "default", "paris")
    quick.run("switch", "default")
    token, since = new_token(), events_of(quick)[-1]["number"]
    internet = docker("network", "inspect", "-f", "{{.Id}}", world.site.network("internet"))[:12]
    allowed = {f"br-{internet}"} | quick.link_bridges()
    with capturing(world, token) as capture, Stopwatch.of(world, token, 100, IDLE) as watch:
        eventually(lambda: watch.look()["idle"] == IDLE, 60 * ground.patience, "all connections are open")
        with dropping(world, ground.preferred, "prerouting"):
            eventually(partial(uses, quick, "oslo"), 60 * ground.patience, "oslo is used")
            seen = [watch.look()]

            def all_ended() -> bool:
                seen.append(watch.look())
                return sum(len(each["resets"]) for each in seen) >= IDLE and bool(seen[-1]["stream"]["median_ms"])

            eventually(all_ended, 60 * ground.patience, "all connections by paris have ended")
    assert_no_leak(capture, allowed)
    assert capture.seen.get(f"br-{internet}")
    gaps = [gap for each in seen for gap in each["stream"]["gaps"]]
    tell(f"silent: the stream's gaps {[round(gap['until'] - gap['from']) for gap in gaps]} ms")
    assert gaps, "the fault was not felt: this run proves nothing"
    told = [event for event in events_of(quick) if event["number"] > since]
    assert any(event["event"] == "exit" and event["target"] == "suspect" for event in told)
    moves = [event for event in told if event["event"] == "move" and event["source"] == "paris"]
    assert [move["target"] for move in moves] == ["oslo"]
    blackout = moves[0]["blackout"]
    tell(f"silent: the event says {blackout * 1000:.0f} ms")
    assert 0.05 < blackout < max(gap["until"] - gap["from"] for gap in gaps) / 1000 + 0.2


def events_of(chain: Chain) -> list[dict[str, Any]]:
    return [json.loads(line) for line in chain.run("events", "--json").stdout.splitlines()]


def test_a_tunnel_program_that_dies_is_noticed_at_once_and_named(quick: Chain, world: World, ground: Ground) -> None:
    eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good")
    quick.run("switch", "default", "paris")
    quick.run("switch", "default")
    eventually(partial(uses, quick, "paris"), 30, "paris is used")
    since = events_of(quick)[-1]["number"]
    program, named = PROGRAMS[ground.kind]
    kill_program(quick.container("exit-paris"), program, world)
    eventually(partial(uses, quick, "oslo"), 10, "oslo is used")
    died = next(event for event in events_of(quick) if event["number"] > since and event["event"] == "exit")
    assert died["target"] == "dead"
    assert died["cause"] == f"a program of the exit ended by itself: {named} died"
    eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good again")
    quick.answered()


def test_what_is_planned_costs_no_packet(
    quick: Chain, watch: Stopwatch, ground: Ground, tell: Callable[[str], None]
) -> None:
    watch.look()
    for command, exit_ in (
        (("switch", "default", "oslo"), "oslo"),
        (("switch", "default", "paris"), "paris"),
        (("switch", "default"), "paris"),
        (("drain", "paris"), "oslo"),
        (("undrain", "paris"), "oslo"),
    ):
        assert quick.run(*command).stdout.startswith(f"group default: {exit_}")
        eventually(partial(uses, quick, exit_), 30 * ground.patience, f"{exit_} is used")
    found = watch.look()
    tell(f"planned: {found['stream']}, new flows {found['flows']}")
    assert (found["stream"]["gaps"], found["stream"]["late"]) == ([], 0)
    assert found["stream"]["answered"] > 0
    assert found["flows"]["gaps"] == [], "a new flow had no answer"
    assert (found["idle"], found["resets"]) == (IDLE, []), "connections that an exit carries stay with it"
    told = events_of(quick)
    by_hand = [event for event in told if event["event"] == "move" and "by hand" in event["cause"]]
    assert {(event["source"], event["target"]) for event in by_hand} >= {("paris", "oslo"), ("oslo", "paris")}
    assert not any(event["blackout"] for event in by_hand), "nothing was broken"
    assert [event["number"] for event in told] == sorted(event["number"] for event in told)
    assert "by hand" in quick.run("events").stdout


def test_orders_are_taken_while_chain_yaml_is_half_edited(quick: Chain) -> None:
    text = quick.file.read_text()
    quick.file.write_text(f"{text}exits: [")
    try:
        for verb in ("drain", "undrain"):
            done = quick.run(verb, "paris")
            assert done.stdout.startswith("group default: oslo")
            assert "it can't be used as it is" in done.stderr
        assert quick.run("up", check=False).returncode == ExitCode.CONFIG
        assert quick.status()["wanted"] is None
    finally:
        quick.file.write_text(text)
    assert quick.status()["wanted"] is not None


def test_who_watches_sees_what_becomes_of_chain_yaml(quick: Chain) -> None:
    text = quick.file.read_text()
    process = quick.start("status", "--watch", "--json")

    def shown(*, wanted: bool) -> bool:
        """Read what it shows until chain.yaml is what is in force, or can't be used."""
        found = (json.loads(line) for line in process.stdout or () if line.startswith("{"))  # among warnings
        return any((status["wanted"] is not None) is wanted for status in found)

    try:
        assert shown(wanted=True)
        quick.file.write_text(f"{text}exits: [")
        assert shown(wanted=False)
        quick.file.write_text(text)
        assert shown(wanted=True)
    finally:
        quick.file.write_text(text)
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def listening(chain: Chain) -> Iterator[None]:
    """Run the chain's hooks meanwhile."""
    process = chain.start("hooks")
    try:
        yield
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_hooks_are_told_what_happens_while_they_are_run(quick: Chain, ground: Ground) -> None:
    usual, told = quick.file.read_text(), quick.folder / "told"
    hook = {"events": ["drain", "undrain"], "command": ["sh", "-c", "cat >>told"]}
    quick.file.write_text(yaml.safe_dump(yaml.safe_load(usual) | {"hooks": [hook]}, sort_keys=False))

    def drain() -> None:
        for command in ("drain", "undrain"):
            quick.run(command, "oslo")

    def all_told(wanted: int) -> bool:
        return told.exists() and len(told.read_text().splitlines()) == wanted

    try:
        with listening(quick):
            eventually((quick.folder / "run" / "hooks.json").exists, 60 * ground.patience, "they listen")
            drain()
            eventually(partial(all_told, 2), 60 * ground.patience, "both are told")
        drain()  # while nobody listens
        with listening(quick):
            eventually(partial(all_told, 4), 60 * ground.patience, "these are told too, and no other once more")
        entry = quick.container("entry")
        eventually(lambda: "follow" not in docker("top", entry), 30 * ground.patience, "nothing stays in the entry")
    finally:
        quick.file.write_text(usual)
    events = [json.loads(line) for line in told.read_text().splitlines()]
    assert [event["event"] for event in events] == ["drain", "undrain"] * 2
    assert {(event["chain"], event["exit"], event["cause"]) for event in events} == {(quick.name, "oslo", "by hand")}


def test_a_balance_shares_as_its_weights_say(quick: Chain, ground: Ground) -> None:
    config = yaml.safe_load(quick.file.read_text())
    shared = {"exits": ["paris", "oslo"], "policy": "balance", "weights": {"paris": 3, "oslo": 1}}
    quick.file.write_text(yaml.safe_dump(config | {"groups": {"default": shared}}, sort_keys=False))
    try:
        quick.up()
        eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good")
        wanted = {"paris": 0.75, "oslo": 0.25}
        eventually(lambda: group_of(quick).get("shares") == wanted, 60 * ground.patience, "three shares and one")
        quick.run("drain", "paris")
        eventually(lambda: group_of(quick).get("shares") == {"oslo": 1.0}, 30 * ground.patience, "oslo has all")
    finally:
        quick.run("undrain", "paris")
        quick.file.write_text(yaml.safe_dump(config, sort_keys=False))
        quick.up()


def test_a_group_comes_and_goes_and_other_groups_connections_stay(
    quick: Chain, world: World, ground: Ground, tell: Callable[[str], None]
) -> None:
    usual = quick.file.read_text()

    def groups(*names: str) -> None:
        config = yaml.safe_load(usual)
        config["groups"] |= {name: {"exits": ["oslo"]} for name in names}
        config["failover"] = PATIENT
        quick.file.write_text(yaml.safe_dump(config, sort_keys=False))
        quick.up()
        eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good")

    try:
        groups("second")
        quick.answered()
        with Stopwatch.of(world, new_token(), 500 if ground.patience == 1 else 40, IDLE) as watch:
            eventually(lambda: watch.look()["idle"] == IDLE, 60 * ground.patience, "all connections are open")
            watch.look()
            for names in (("a-third", "second"), ("second", "z-fourth")):
                groups(*names)
            found = watch.look()
        tell(f"groups: {found['stream']}, new flows {found['flows']}")
        assert (found["stream"]["gaps"], found["flows"]["gaps"]) == ([], [])
        assert (found["idle"], found["resets"]) == (IDLE, [])
    finally:
        quick.file.write_text(usual)
        quick.up()


def test_new_agents_and_entries_know_whose_internet_is_gone(quick: Chain, world: World, ground: Ground) -> None:
    usual = quick.file.read_text()
    config = yaml.safe_load(usual)
    config["exits"]["paris"]["probe"] = {"public": [world.site.internet_host]}
    config["groups"]["default"]["fail_back"] = "when-better"
    entry = quick.container("entry")

    def remembered() -> bool:
        return world.site.internet_host in docker("exec", entry, "cat", str(WITNESSES), check=False)

    def stays_bad(since: int) -> Callable[[], bool]:
        """Tell whether a new agent has judged paris, which is up, and for many hold-downs has not found it good."""
        seen: dict[int, float] = {}

        def look() -> bool:
            status = quick.entry_status()
            up = any(each["name"] == "paris" and each["state"] == "up" for each in status.get("exits", ()))
            events = events_of(quick) if up else []
            told = [each for each in events if each["number"] > since and each.get("exit") == "paris"]
            if not told or told[-1]["target"] not in ("suspect", "dead"):
                return False
            return time.monotonic() - seen.setdefault(told[-1]["number"], time.monotonic()) > 8 * HOLD_DOWN

        return look

    try:
        quick.file.write_text(yaml.safe_dump(config, sort_keys=False))
        quick.up()
        eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good")
        eventually(partial(uses, quick, "paris"), 60 * ground.patience, "paris is used")
        eventually(remembered, 60 * ground.patience, "it is kept who answers through paris")
        look = "ip", "-json", "route", "get", world.site.internet_host
        (route,) = json.loads(world.inside(world.container(ground.preferred.name), *look))
        with dropping(world, ground.preferred, "postrouting", f"oifname {route['dev']}"):
            eventually(partial(uses, quick, "oslo"), 60 * ground.patience, "oslo is used")
            for begin_anew in (partial(kill_program, entry, "chain.agent", world), partial(docker, "restart", entry)):
                since = events_of(quick)[-1]["number"]
                begin_anew()
                eventually(stays_bad(since), 120 * ground.patience, "paris answers, and is not trusted")
                eventually(partial(uses, quick, "oslo"), 60 * ground.patience, "oslo is used")
            quick.answered()
        eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good again")
    finally:
        quick.file.write_text(usual)
        quick.up()


def test_changed_exits_are_replaced_one_after_the_other(
    quick: Chain, world: World, ground: Ground, tell: Callable[[str], None]
) -> None:
    usual = quick.file.read_text()
    config = yaml.safe_load(usual)
    for exit_ in config["exits"].values():
        exit_["probe"] = {"public": [world.site.internet_host]}
    eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good")
    since = events_of(quick)[-1]["number"]
    try:
        with Stopwatch.of(world, new_token(), 100 if ground.patience == 1 else 20, 0) as watch:
            eventually(lambda: watch.look()["stream"]["answered"] > 0, 60 * ground.patience, "the client is answered")
            quick.file.write_text(yaml.safe_dump(config, sort_keys=False))
            planned, done = quick.run("up", "--dry-run").stdout, quick.run("up").stderr
            eventually(partial(all_good, quick), 120 * ground.patience, "both exits are good")
            found = watch.look()
        assert "one after the other" in planned
        assert "Replacing exit" in done
        moves = [each for each in events_of(quick) if each["number"] > since and each["event"] == "move"]
        assert moves, "no exit was replaced that clients used"
        assert not [each for each in moves if each["target"] is None], "clients always have one of the two"
        tell(f"replaced: the stream's gaps {[round(gap['until'] - gap['from']) for gap in found['stream']['gaps']]} ms")
    finally:
        quick.file.write_text(usual)
        quick.up()


def says(chain: Chain, exit_: str, state: str) -> bool:
    return any(each["name"] == exit_ and each["state"] == state for each in chain.entry_status().get("exits", ()))


def test_a_cold_exit_dials_when_it_is_needed(
    quick: Chain, world: World, ground: Ground, tell: Callable[[str], None]
) -> None:
    usual = quick.file.read_text()
    config = yaml.safe_load(usual)
    config["exits"]["oslo"]["standby"] = "cold"
    config["groups"]["default"]["fail_back"] = "when-better"
    provider = world.site.wireguard2
    asked = f"dst host {provider.wan} and udp"
    try:
        quick.file.write_text(yaml.safe_dump(config, sort_keys=False))
        assert "oslo" not in quick.run("up", "--wait", "240").stderr, "that it rests is no warning"
        assert says(quick, "oslo", "resting")
        with packets_on(world, provider.network) as count:
            quick.answered()
            assert not count(asked), "who rests sends nothing"
            with dropping(world, ground.preferred, "prerouting"):
                began = time.monotonic()
                eventually(partial(uses, quick, "oslo"), 60 * ground.patience, "oslo is used")
                quick.answered()
                tell(f"cold: clients are answered {time.monotonic() - began:.1f} s after the other exit fell silent")
                eventually(lambda: count(asked), 30, "what it sends is seen")
            eventually(partial(uses, quick, "paris"), 60 * ground.patience, "paris is used again")
            quick.answered()
        assert says(quick, "oslo", "up"), "it stays connected for a while"
        if LONG:
            eventually(partial(says, quick, "oslo", "resting"), 90, "oslo rests again")
        quick.run("switch", "default", "oslo")
        eventually(partial(uses, quick, "oslo"), 60 * ground.patience, "a cold exit is chosen by hand")
        quick.run("switch", "default")
    finally:
        quick.file.write_text(usual)
        quick.up()
