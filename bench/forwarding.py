"""Switches, drains and goes back under 10,000 packets a second, where no tunnel takes the processors.

In namespaces: a client, an entry with its real supervisor, agent, lock and routes, and two exits. The client's program
sends one UDP stream and 200 new flows a second, and has each packet back. Beside it the same for as long without any
order, and an exit that goes: a count that stays at nothing there counts nothing.

Then exits fall silent under 500 idle connections, and what is measured is when these are reset, after the verdict.
Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "providers"), str(CHECKOUT / "tests" / "scenarios")]

from dialogue import Dialogue  # noqa: E402 - the folders are put on the path above
from gaps import Stopwatch  # noqa: E402
from rich.table import Table  # noqa: E402
from switches import FLOWS, PAUSE, STEPS, Count, console, show, with_traffic  # noqa: E402

from tests.netns.fork import INTERNET, Fork  # noqa: E402
from tests.netns.ground import Namespace, eventually, namespaces  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IDLE = 500
PROGRAM = CHECKOUT / "tests" / "providers" / "toolbox" / "stopwatch.py"
ECHO_PORT = 7  # as stopwatch.py has it
# The supervisor, to which both exits say that they are up; a line is an order, or the name of an exit that goes.
SCENE = """\
async def scene():
    keeping = asyncio.create_task(supervisor._keep_agent())
    while not supervisor._agent_rules:
        await asyncio.sleep(0.02)
    for name in ("paris", "oslo"):
        supervisor._heard(name, up(name))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        if "heard" in asked:
            supervisor._heard(asked["heard"], up(asked["heard"]) if asked["up"] else None)
            answer = {}
        elif "since" in asked:
            answer = await supervisor._events_since(asked["since"])
        else:
            answer = await supervisor._ask_agent(lambda: asked)
        print(json.dumps(answer), flush=True)
    keeping.cancel()
    supervisor._agent.kill()
    await supervisor._agent.wait()
asyncio.run(scene())
"""


class Entry(Dialogue):
    """The supervisor in the entry's namespace."""

    def ask(self, **fields: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._asked(json.dumps(fields)))
        if "error" in found:
            raise SystemExit(f"{fields}: {found['error']}")
        return found

    def used(self) -> str | None:
        """Name the group's exit, if both are good."""
        found = self.ask(verb="status")
        well = all(each["health"] == "good" for each in found["exits"])
        return next((str(group["exit"]) for group in found["groups"] if group["exit"]), None) if well else None

    def follow(self, verb: str, fields: dict[str, str | None], exit_: str) -> None:
        self.ask(verb=verb, **fields)
        eventually(lambda: self.used() == exit_, f"{exit_} is used")


def program_of(place: Namespace) -> tuple[str, ...]:
    return ("ip", "netns", "exec", place.name, sys.executable, str(PROGRAM))


def under_traffic(place: Namespace, rate: int, title: str, act: Callable[[Count], None]) -> Count:
    """Do something under traffic; give what was lost."""
    count = Count(title)
    with Stopwatch(program_of(place), INTERNET, "bench", rate=rate, idle=0, flows=FLOWS) as watch:
        time.sleep(1)  # of traffic alone, at which the stream gets under way
        watch.look()
        act(count)
        time.sleep(1)  # for the last answers
        return with_traffic(count, watch.look())


def steps(entry: Entry, seconds: int) -> Callable[[Count], None]:
    """Do all steps again and again for so long; the last of them leave nothing pinned or drained."""

    def act(count: Count) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for verb, fields, exit_ in STEPS:
                entry.follow(verb, fields, exit_)
                count.done += 1
                time.sleep(PAUSE)

    return act


def goes(fork: Fork, entry: Entry) -> Callable[[Count], None]:
    """Have the exit that is used carry nothing any more, and then say so."""

    def act(count: Count) -> None:
        used = str(eventually(entry.used, "both exits are good", 60))
        with silence(fork.exits[used]):
            entry.ask(heard=used, up=False)
            time.sleep(2)  # in which the other one answers
        entry.ask(heard=used, up=True)
        count.done = 1

    return act


@contextmanager
def silence(place: Namespace) -> Iterator[None]:
    """Have an exit carry nothing while the block runs."""
    place.nft("table inet silence { chain hole { type filter hook prerouting priority -500; iifname link0 drop; }; }")
    yield
    place.nft("delete table inet silence")


def silences(fork: Fork, entry: Entry, faults: int) -> list[list[float]]:
    """Have exits fall silent that carry idle connections; give, for each time, when these were reset.

    Milliseconds after the dead verdict, in order.
    """
    found = []
    with Stopwatch(program_of(fork.client), INTERNET, "bench", rate=1000, idle=IDLE, flows=FLOWS) as watch:
        for _ in range(faults):
            used = str(eventually(entry.used, "both exits are good", 60))
            watch.look("anew")
            eventually(lambda: watch.look()["idle"] == IDLE, "all are connected")
            began = max((each["number"] for each in entry.ask(since=0)["events"]), default=0)
            with silence(fork.exits[used]):
                eventually(partial(judged_dead, entry, began), f"{used} is dead")
                time.sleep(1)  # a look takes the processors from what is measured
                look = watch.look()
            if len(look["resets"]) < IDLE:
                raise SystemExit(f"{IDLE - len(look['resets'])} connections were not reset")
            dead_at = judged_dead(entry, began)
            found.append(sorted(each["reset"] + look["epoch"] - dead_at * 1e3 for each in look["resets"]))
    return found


def judged_dead(entry: Entry, since: int) -> float:
    """Give when an exit was judged dead, after that event; 0 while none was."""
    time.sleep(0.1)  # between two questions, which take from what is measured
    told = entry.ask(since=since)["events"]
    deaths = (float(each["time"]) for each in told if (each["event"], each.get("target")) == ("exit", "dead"))
    return next(deaths, 0.0)


def show_resets(found: list[list[float]]) -> None:
    table = Table(title=f"{len(found)} silent exits, {IDLE} idle connections each", title_justify="left")
    for column in ("reset, ms after the verdict", "median", "lowest", "highest"):
        table.add_column(column, justify="right" if table.columns else "left")
    for what, place in (("the first", 0), ("half of them", IDLE // 2), ("the last", -1)):
        values = [each[place] for each in found]
        table.add_row(what, *(f"{value:.0f}" for value in (statistics.median(values), min(values), max(values))))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of switching, and of nothing")
    parser.add_argument("--rate", type=int, default=10_000, help="packets a second each way")
    parser.add_argument("--faults", type=int, default=30, help="exits that fall silent")
    given = parser.parse_args()
    if os.geteuid():
        raise SystemExit("forwarding.py: it makes network namespaces, which takes root: sudo make bench-switch")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fork = Fork(*stack.enter_context(namespaces("client", "entry", "paris", "oslo")))
        for place in fork.exits.values():
            place.serve("reflect", INTERNET, ECHO_PORT)
        # One that was left is not used again before it is asked for.
        groups = tuple(replace(each, fail_back=-1.0) for each in fork.state.groups)
        sensitivity = replace(fork.state.sensitivity, hold_down=0.01)
        fork.state = replace(fork.state, groups=groups, sensitivity=sensitivity)
        program = ("env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-c", *fork.supervised(folder, SCENE))
        entry = stack.enter_context(Entry("ip", "netns", "exec", fork.entry.name, *program))
        eventually(entry.used, "both exits are good", 60)
        for verb, fields, exit_ in STEPS[1:3]:  # whichever came up first
            entry.follow(verb, fields, exit_)
        counts = [
            under_traffic(fork.client, given.rate, "nothing", lambda _: time.sleep(given.seconds)),
            under_traffic(fork.client, given.rate, "switch, drain, back", steps(entry, given.seconds)),
            under_traffic(fork.client, given.rate, "an exit goes", goes(fork, entry)),
        ]
        resets = silences(fork, entry, given.faults)
    show(counts, given.rate)
    show_resets(resets)
    if not counts[-1].lost:
        raise SystemExit("not even an exit that went cost a packet: nothing is counted here")


if __name__ == "__main__":
    main()
