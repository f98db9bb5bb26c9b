"""The entry's supervisor and its agent, in a real kernel: what is open while one of them rules, or nobody."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chain.node import lock
from tests.netns.fork import Fork
from tests.netns.ground import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fork() -> Iterator[Fork]:
    with namespaces("client", "entry", "paris", "oslo") as found:
        yield Fork(*found)


def play(fork: Fork, folder: Path, scene: str) -> list[dict[str, Any]]:
    """Play a scene with the supervisor; give what it said, each with what the kernel had then."""
    output = fork.entry.python(*fork.supervised(folder, scene))
    found: list[dict[str, Any]] = json.loads(output.splitlines()[-1])
    return found


def test_exits_are_closed_together_whatever_was_open_and_others_stay(fork: Fork) -> None:
    paris, oslo = fork.mark("paris"), fork.mark("oslo")
    groups = [group.mark for group in fork.state.groups]
    sets = ("open_marks", "open_links", "open_pairs", "up_pairs", "open_members")

    def sizes() -> list[int]:
        listed = [json.loads(fork.entry.run("nft", "-j", "list", "set", *lock.TABLE.split(), name)) for name in sets]
        return [sum(len(item.get("set", {}).get("elem", ())) for item in each["nftables"]) for each in listed]

    fork.use("paris", "paris", "oslo")
    assert sizes() == [2] * 5
    for _ in range(2):  # it repeats harmlessly
        fork.entry.nft(lock.entry_close({paris: "link1"}, groups))
        assert sizes() == [1] * 5
    fork.use("paris", "paris", "oslo")
    for _ in range(2):
        fork.entry.nft(lock.entry_close({paris: "link1", oslo: "link2"}, groups))
        assert sizes() == [0] * 5
    assert fork.ask() in ("EHOSTUNREACH", "EACCES")


ALONE = """\
entry.HEARTBEAT = 3600.0
entry.HEALTH.touch()
for name in ("paris", "oslo"):
    supervisor._heard_of[name] = up(name)
supervisor._closed_at = time.monotonic()
say("both")
for _ in range(20):
    supervisor._heard("paris", up("paris"))
    supervisor._heard("oslo", up("oslo"))
say("both again and again")
supervisor._heard("paris", None)
say("one is gone")
for _ in range(20):
    supervisor._heard("oslo", up("oslo"))
say("the other goes on")
supervisor._heard("paris", up("paris"))
say("it comes back")
supervisor._heard("oslo", ExitReport(exit="oslo", state="down", since=1.0, cause="it is"))
supervisor._heard("paris", ExitReport(exit="paris", state="locked", since=1.0, cause="it is"))
say("both are down")
entry.HEARTBEAT = 0.0
supervisor._heard("paris", up("paris"))
say("much later")
print(json.dumps(said))
"""


def test_without_an_agent_exits_that_go_are_closed_at_once_and_none_is_opened(fork: Fork, tmp_path: Path) -> None:
    fork.use("paris", "paris", "oslo")
    paris, oslo = fork.mark("paris"), fork.mark("oslo")
    found = play(fork, tmp_path, ALONE)
    assert [(each["what"], sorted(each["open"]), each["healthy"], each["loaded"]) for each in found] == [
        ("both", [paris, oslo], True, 0),
        ("both again and again", [paris, oslo], True, 0),  # no program is started for what is no news
        ("one is gone", [oslo], True, 1),
        ("the other goes on", [oslo], True, 1),
        ("it comes back", [oslo], True, 1),
        ("both are down", [], False, 3),
        ("much later", [], False, 4),  # an agent that woke up may have opened something meanwhile
    ]
    assert [len(each["links"]) for each in found] == [len(each["open"]) for each in found]
    assert (found[-1]["pairs"], found[-1]["members"]) == (0, 0)


CARRIED = """\
from dataclasses import replace
group = replace(supervisor._state.groups[0], exits=("oslo",))
supervisor._state = replace(supervisor._state, groups=(group,))
entry.HEALTH.touch()
for name in ("paris", "oslo"):
    supervisor._heard_of[name] = up(name)
supervisor._heard("oslo", None)
say("left is one that only others run through")
print(json.dumps(said))
"""


def test_an_exit_that_only_others_run_through_is_no_way_out(fork: Fork, tmp_path: Path) -> None:
    fork.use("oslo", "paris", "oslo")
    (found,) = play(fork, tmp_path, CARRIED)
    assert (found["open"], found["healthy"]) == ([fork.mark("paris")], False)


PLACED = """\
def clients():
    listed = subprocess.run(["nft", "-j", "list", "map", "inet", "vpn", "client_bucket"], capture_output=True).stdout
    return [address for item in json.loads(listed)["nftables"] for address, _ in item.get("map", {}).get("elem", ())]
async def scene():
    keeping = asyncio.create_task(supervisor._keep_agent())
    await eventually(lambda: supervisor._agent_rules, "it rules")
    say("one client", clients=clients(), groups=supervisor._groups_placed)
    told = json.loads(supervisor._clients)
    told["clients"] += [{**told["clients"][0], "name": "tv", "address": "10.13.13.3"}]
    supervisor._clients = json.dumps(told).encode()
    answer = await supervisor._tell_agent()
    shown = await supervisor._ask_agent(lambda: {"verb": "status"})
    say("two clients", clients=clients(), answer=answer, shown=shown)
    told["clients"][0]["group"] = "nobody's"
    supervisor._clients = json.dumps(told).encode()
    answer = await supervisor._tell_agent()
    say("what makes no sense", clients=clients(), answer=answer, agent=supervisor._agent.returncode)
    keeping.cancel()
    supervisor._agent.kill()
    await supervisor._agent.wait()
asyncio.run(scene())
print(json.dumps(said))
"""


def test_clients_are_placed_when_a_state_is_told_and_stay_when_one_is_refused(fork: Fork, tmp_path: Path) -> None:
    found = {each["what"]: each for each in play(fork, tmp_path, PLACED)}
    assert found["one client"]["clients"] == ["10.13.13.2"]
    assert list(found["one client"]["groups"].values()) == [group.name for group in fork.state.groups]
    both = ["10.13.13.2", "10.13.13.3"]
    assert sorted(found["two clients"]["clients"]) == both
    # Neither has the key that it should share.
    assert found["two clients"]["answer"] == {"generation": fork.state.generation, "kept_out": ["phone", "tv"]}
    shown = found["two clients"]["shown"]
    assert [(client["name"], client["group"], client["exit"]) for client in shown["clients"]] == [
        ("phone", "default", None),
        ("tv", "default", None),
    ]
    refused = found["what makes no sense"]
    assert "nobody's" in refused["answer"]["error"]
    assert (sorted(refused["clients"]), refused["agent"]) == (both, None)


WITH_AN_AGENT = """\
entry.HEARTBEAT, entry.SILENCE, entry.AGENT_PATIENCE = 0.1, 0.5, 2.0
async def scene():
    keeping = asyncio.create_task(supervisor._keep_agent())
    await eventually(lambda: supervisor._agent_rules, "it rules")
    supervisor._heard("paris", up("paris"))
    await eventually(lambda: elements("open_marks"), "it opens what says that it is up, and answers")
    supervisor._heard("paris", None)
    await eventually(lambda: not elements("open_marks"), "it closes what is gone")
    supervisor._heard("oslo", up("oslo"))
    await eventually(lambda: elements("open_marks"), "it opens the other")
    say("the supervisor did nothing yet", agent=supervisor._agent.pid)

    supervisor._agent.send_signal(signal.SIGSTOP)
    await eventually(lambda: not supervisor._agent_rules, "it hangs")
    supervisor._heard("oslo", None)
    say("what goes is closed for it")
    supervisor._agent.send_signal(signal.SIGCONT)
    await eventually(lambda: supervisor._agent_rules, "it rules again")
    supervisor._heard("oslo", up("oslo"))
    await eventually(lambda: elements("open_marks"), "and opens again")
    say("it is the same", agent=supervisor._agent.pid)

    supervisor._agent.send_signal(signal.SIGSTOP)
    before = supervisor._agent
    await eventually(lambda: supervisor._agent is not before, "one that hangs for long is ended")
    await eventually(lambda: supervisor._agent_rules, "another rules")
    say("what was open stayed open", agent=supervisor._agent.pid, ended=before.returncode)
    before = supervisor._agent
    before.kill()
    supervisor._heard("oslo", None)
    await eventually(lambda: not elements("open_marks"), "what goes with the agent is closed")
    await eventually(lambda: supervisor._agent is not before and supervisor._agent_rules, "a third one rules")
    say("and it stays so")
    keeping.cancel()
    supervisor._agent.kill()
    await supervisor._agent.wait()
asyncio.run(scene())
print(json.dumps(said))
"""


def test_an_agent_is_told_of_exits_and_replaced_when_it_hangs_or_dies(fork: Fork, tmp_path: Path) -> None:
    paris, oslo = fork.mark("paris"), fork.mark("oslo")
    found = {each["what"]: each for each in play(fork, tmp_path, WITH_AN_AGENT)}
    opened = {what: each["open"] for what, each in found.items()}
    assert opened["it opens what says that it is up, and answers"] == [paris]
    first = found["the supervisor did nothing yet"]
    assert (first["open"], first["loaded"], first["healthy"]) == ([oslo], 0, True)
    assert opened["it hangs"] == [oslo]
    assert opened["what goes is closed for it"] == []
    assert not found["what goes is closed for it"]["healthy"]
    assert (opened["it is the same"], found["it is the same"]["agent"]) == ([oslo], first["agent"])
    another = found["what was open stayed open"]
    assert another["open"] == [oslo]
    assert another["agent"] != first["agent"]
    assert another["ended"] == -9
    assert opened["and it stays so"] == []
