"""How soon faults are noticed, and how often there is a false alarm: the real verdict code on a simulated clock.

`verdicts.py` prints the tables of docs/tuning.md; `--write` puts them there, and draws docs/tuning.svg anew. The same
seeds give the same figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "bench")]

import documents  # noqa: E402 - the neighbours and the package are put on the path above
import losses  # noqa: E402
from chart import Panel, Point, svg  # noqa: E402
from documents import table  # noqa: E402
from simulated import Scene, World  # noqa: E402

from chain.agent.verdict import COSTLY, NEAR, STRANGERS, TICK_IDLE, Sensitivity, State, Verdict  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOCS = CHECKOUT / "docs" / "tuning.md"
CHART = CHECKOUT / "docs" / "tuning.svg"
BEGIN = "<!-- From bench/verdicts.py, by `make bench-verdicts WRITE=1`. -->\n"

HOUR, DAY = 3600.0, 86400.0
RTTS = (0.0003, 0.02, 0.08)
OVERHEAD = 20 + 8 + 16 + 16  # bytes around a packet in a WireGuard tunnel: IPv4, UDP, header, tag
ECHO = 20 + 8 + 4  # bytes of a question: IPv4, ICMP, a token


# False alarms


def _both_ways(scene: Scene, make: Callable[[], losses.Way]) -> None:
    scene.out.append(make())
    scene.back.append(make())


def _rough(scene: Scene, random: Random) -> None:
    _both_ways(scene, lambda: losses.Independent(random, 0.05))
    _both_ways(scene, lambda: losses.Jitter(random, 0.3 * scene.rtt))
    scene.out += [losses.Bloat(60, 10, 0.3), losses.Stalls(random, 180, 0.5, waits=False)]
    _absent(scene, random)


def _absent(scene: Scene, _: Random) -> None:
    scene.absent_every, scene.absent = 30.0, 0.2


def _unanswered(scene: Scene, _: Random) -> None:
    scene.stream, scene.echoed = 1000.0, False


def _pages(scene: Scene, _: Random) -> None:
    scene.stream, scene.at_once, scene.thinking = 20.0, 10, 0.2


MODELS: dict[str, Callable[[Scene, Random], None]] = {
    "nothing wrong": lambda _scene, _random: None,
    "1 % lost each way": lambda scene, random: _both_ways(scene, lambda: losses.Independent(random, 0.01)),
    "5 % lost each way": lambda scene, random: _both_ways(scene, lambda: losses.Independent(random, 0.05)),
    "5 % lost each way, in bursts of 50 ms": lambda scene, random: _both_ways(
        scene, lambda: losses.Bursts(random, 0.05, 0.05)
    ),
    "5 % lost one way, in bursts of 50 ms": lambda scene, random: scene.out.append(losses.Bursts(random, 0.05, 0.05)),
    "5 % lost one way, in bursts of 200 ms": lambda scene, random: scene.out.append(losses.Bursts(random, 0.05, 0.2)),
    "stalls of 500 ms every 3 minutes, packets are lost": lambda scene, random: scene.out.append(
        losses.Stalls(random, 180, 0.5, waits=False)
    ),
    "stalls of 500 ms every 3 minutes, packets wait": lambda scene, random: scene.out.append(
        losses.Stalls(random, 180, 0.5, waits=True)
    ),
    "round trips that vary by 30 %": lambda scene, random: _both_ways(
        scene, lambda: losses.Jitter(random, 0.3 * scene.rtt)
    ),
    "a queue that grows to 300 ms every minute": lambda scene, _: scene.out.append(losses.Bloat(60, 10, 0.3)),
    "the agent is away for 200 ms twice a minute": _absent,
    "1,000 packets a second that nobody answers": _unanswered,
    "pages are loaded, 10 packets at once": _pages,
    "5 % each way, 30 %, queue, stalls and absence together": _rough,
}


@dataclass(frozen=True)
class Alarms:
    suspicions: float  # a day
    deaths: float
    near: float  # questions a second
    public: float


def alarms(
    model: str, rtt: float, *, busy: bool, near: bool, days: float, sensitivity: Sensitivity | None = None
) -> Alarms:
    """Count the false alarms of so many simulated days."""
    random = Random(f"{model} {rtt} {busy} {near}")  # noqa: S311 - nobody is to be surprised
    scene = Scene(rtt, stream=50.0 if busy else 0.0, near=near, where=random.random())
    MODELS[model](scene, random)
    world = World(scene, random, sensitivity)
    suspicions = deaths = 0
    for change in world.run(days * DAY):
        suspicions += change.before is State.GOOD
        deaths += change.state is State.DEAD
    asked = (count / days / DAY for count in world.asked.values())
    return Alarms(suspicions / days, deaths / days, *asked)


# Faults


def _everything(scene: Scene, _: Random, at: float) -> None:
    hole = losses.Hole(at)
    scene.out.append(hole)
    scene.back.append(hole)


def _rising(scene: Scene, random: Random, at: float) -> None:
    scene.out.append(losses.Rising(random, at, 10.0))


def _new_flow(scene: Scene, random: Random, at: float) -> None:
    _everything(scene, random, at)
    scene.stream_from = at + 0.01


@dataclass(frozen=True)
class Fault:
    what: str
    strikes: Callable[[Scene, Random, float], None]
    near: bool = True
    stream: float = 1000.0
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    before: str = "nothing wrong"


FAULTS = (
    Fault("black hole", _everything),
    Fault("only what is sent gets lost", lambda scene, _, at: scene.out.append(losses.Hole(at))),
    Fault("only what comes back gets lost", lambda scene, _, at: scene.back.append(losses.Hole(at))),
    Fault("the provider's internet is gone", lambda scene, _, at: scene.beyond.append(losses.Hole(at))),
    Fault("black hole, nobody sends", _everything, stream=0.0),
    Fault("black hole, somebody begins to send 10 ms later", _new_flow),
    Fault("loss that rises to all in 10 s", _rising),
    Fault("black hole, after 5 % lost each way", _everything, before="5 % lost each way"),
    Fault("black hole, after bursts of 50 ms", _everything, before="5 % lost each way, in bursts of 50 ms"),
    Fault("black hole, only strangers to ask", _everything, near=False),
    Fault("the same, somebody begins to send 10 ms later", _new_flow, near=False),
    Fault("black hole, costly questions", _everything, near=False, sensitivity=Sensitivity(public=COSTLY)),
)
WARM, WARM_LONG = 12.0, 60.0
GIVE_UP = 30.0


def times(fault: Fault, rtt: float, count: int) -> tuple[list[float], list[float]]:
    """Give the seconds from a fault to the first suspicion, and to the dead verdict, of so many tries."""
    suspected: list[float] = []
    dead: list[float] = []
    tries = 0
    while len(dead) < count and tries < 2 * count:
        tries += 1
        random = Random(f"{fault.what} {rtt} {tries}")  # noqa: S311 - see above
        at = (WARM if fault.before == "nothing wrong" else WARM_LONG) + random.uniform(0.0, 10.0)
        scene = Scene(rtt, stream=fault.stream, near=fault.near, where=random.random())
        scene.stream_from = at - 5.0 if fault.stream else 0.0
        MODELS[fault.before](scene, random)
        fault.strikes(scene, random, at)
        world = World(scene, random, fault.sensitivity)
        for _ in world.run(at):
            pass
        if world.verdict.state is not State.GOOD:
            continue  # a false alarm has come first
        changes = list(world.run(at + GIVE_UP))
        suspected.append(next((change.at - at for change in changes), GIVE_UP))
        dead.append(next((change.at - at for change in changes if change.state is State.DEAD), GIVE_UP))
    return suspected, dead


def _times(number: int, rtt: float, count: int) -> tuple[list[float], list[float]]:
    return times(FAULTS[number], rtt, count)  # which can't be handed to another process itself


def quantile(values: Sequence[float], share: float) -> float:
    """Give the smallest value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]


# Speed against false alarms

SUSPECT_AFTER = (0.04, 0.06, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4)
DEAD_AFTER = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.8, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Trade:
    """One setting, on one kind of path; the curve that it is part of."""

    curve: str
    model: str
    sensitivity: Sensitivity
    dead: bool


def trades() -> list[Trade]:
    """List all settings that are drawn."""
    found = []
    bursts, long = "5 % lost one way, in bursts of 50 ms", "5 % lost one way, in bursts of 200 ms"
    stalls, even = "stalls of 500 ms every 3 minutes, packets are lost", "5 % lost each way"
    for after in SUSPECT_AFTER:
        fixed = Sensitivity(suspect_after=after, suspect_at_most=after)
        found.append(Trade("bursts of 50 ms, fixed", bursts, fixed, dead=False))
        found.append(Trade("bursts of 50 ms, learned", bursts, Sensitivity(suspect_after=after), dead=False))
        found.append(Trade("5 % lost each way", even, fixed, dead=False))
    for after in DEAD_AFTER:
        fixed = Sensitivity(dead_after=after, dead_at_most=after)
        found.append(Trade("bursts of 200 ms, fixed", long, fixed, dead=True))
        found.append(Trade("bursts of 200 ms, learned", long, Sensitivity(dead_after=after), dead=True))
        found.append(Trade("stalls of 500 ms, fixed", stalls, fixed, dead=True))
    return found


def trade(asked: Trade, days: float, count: int) -> tuple[float, float]:
    """Give the seconds until a black hole on a sound path is noticed, 99 of 100 times, and the false alarms a day."""
    suspected, dead = times(replace(FAULTS[0], sensitivity=asked.sensitivity), 0.02, count)
    found = alarms(asked.model, 0.02, busy=False, near=True, days=days, sensitivity=asked.sensitivity)
    if asked.dead:
        return quantile(dead, 0.99), found.deaths
    return quantile(suspected, 0.99), found.suspicions


# What is printed


def figure(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def milliseconds(values: Sequence[float]) -> list[str]:
    return [f"{quantile(values, share) * 1000:,.0f}" for share in (0.5, 0.99, 1.0)]


def traffic() -> str:
    outer = OVERHEAD + (ECHO + 15) // 16 * 16
    rates = (
        ("near target, nobody sends", NEAR.idle),
        ("near target, while clients send", NEAR.busy),
        ("strangers", STRANGERS.idle),
    )
    rows = [(what, f"{1 / pace:.3g}", f"{outer / pace:,.0f}") for what, pace in rates]
    return table(("asked", "questions/s", "bytes/s each way"), rows)


def cost(exits: int = 100, ticks: int = 400) -> float:
    """Measure the share of one core that so many idle exits' verdicts take, without any input or output."""
    verdicts = [Verdict(0.0) for _ in range(exits)]
    for verdict in verdicts:
        verdict.said(0.0, up=True, cause="")
    began = time.process_time()
    for tick in range(ticks):
        now = tick * TICK_IDLE
        for verdict in verdicts:
            for target, number in verdict.tick(now, tick, tick):
                verdict.answered(target, number, now + 0.02)
    return (time.process_time() - began) / (ticks * TICK_IDLE)


class Bench:
    def __init__(self, pool: ProcessPoolExecutor, days: float, count: int) -> None:
        self._pool, self._days, self._count = pool, days, count

    def false_alarms(self) -> str:
        """Print how often each kind of path gives a false alarm."""
        scenes = [(rtt, busy, True) for rtt in (0.02, 0.08) for busy in (False, True)]
        scenes += [(0.02, False, False), (0.08, True, False)]
        found = {
            (model, scene): self._pool.submit(alarms, model, scene[0], busy=scene[1], near=scene[2], days=self._days)
            for model in MODELS
            for scene in scenes
        }
        rows = []
        for model in MODELS:
            counted = {scene: found[model, scene].result() for scene in scenes}
            near = [counted[scene] for scene in scenes if scene[2]]
            far = [counted[scene] for scene in scenes if not scene[2]]
            rows.append(
                [
                    model,
                    *(figure(one.suspicions) for one in near),
                    figure(max(one.deaths for one in near)),
                    figure(max(one.suspicions for one in far)),
                    figure(max(one.deaths for one in far)),
                    f"{max(one.public for one in counted.values()):.2f}",
                ]
            )
            say(f"false alarms: {model}")
        head = (
            "a day, on a path with",
            *(f"{rtt * 1000:.0f} ms, {'busy' if busy else 'quiet'}" for rtt, busy, near in scenes if near),
            "dead",
            "strangers only",
            "dead",
            "asked/s",
        )
        return table(head, rows)

    def speed(self) -> str:
        """Print how soon each fault is noticed."""
        found = {
            (number, rtt): self._pool.submit(_times, number, rtt, self._count)
            for number in range(len(FAULTS))
            for rtt in RTTS
        }
        rows = []
        for (number, rtt), running in found.items():
            fault = FAULTS[number]
            suspected, dead = running.result()
            rows.append([fault.what, f"{rtt * 1000:.3g}", *milliseconds(suspected), *milliseconds(dead)])
            say(f"faults: {fault.what}, {rtt * 1000:.3g} ms")
        head = ("ms from the fault", "RTT", "suspect p50", "p99", "max", "dead p50", "p99", "max")
        return table(head, rows)

    def draw(self) -> str:
        """Draw what a shorter wait costs."""
        found = {one: self._pool.submit(trade, one, self._days, max(self._count // 3, 10)) for one in trades()}
        curves: dict[bool, dict[str, list[Point]]] = {False: {}, True: {}}
        for one, running in found.items():
            speed, a_day = running.result()
            point = Point(speed * 1000, a_day, told_apart=one.sensitivity == Sensitivity())
            curves[one.dead].setdefault(one.curve, []).append(point)
            say(f"chart: {one.curve}, {speed * 1000:.0f} ms, {a_day:.1f} a day")
        return svg(
            [
                Panel("ms until a black hole makes suspect (99 of 100)", "suspicions a day", curves[False], 0.1, 1e5),
                Panel("ms until a black hole makes dead (99 of 100)", "dead verdicts a day", curves[True], 0.1, 1e4),
            ]
        )


def say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=1.0, help="simulated days of each kind of path")
    parser.add_argument("--count", type=int, default=300, help="faults of each kind")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how much at a time")
    parser.add_argument("--write", action="store_true", help="put the tables and the chart into docs/")
    wanted = parser.parse_args()
    with ProcessPoolExecutor(wanted.jobs) as pool:
        bench = Bench(pool, wanted.days, wanted.count)
        text = f"""
{bench.speed()}
{wanted.count} faults of each kind, each at a random moment and place of the path.

{bench.false_alarms()}
Simulated days of each kind of path and round-trip time, quiet and with 50 answered packets a second: {wanted.days:g}.

{traffic()}
In a WireGuard tunnel over IPv4, outer headers included.
"""
        print(text)
        print(f"100 idle exits take {cost() * 100:.1f} % of one core of this machine, but for sending and receiving.")
        if wanted.write:
            documents.put(DOCS, BEGIN, text)
            CHART.write_text(bench.draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
