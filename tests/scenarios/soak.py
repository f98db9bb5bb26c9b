"""Breaks a running chain again and again, in random order, under a client's traffic; prints a table.

Every packet that shows up outside a tunnel counts as a leak; how long traffic was away is measured for each fault.
What was done is kept, so that a run that was ended goes on where it was; other code begins anew.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "providers"), str(CHECKOUT / "tests" / "scenarios")]
if lab := os.environ.get("CHAIN_LAB_HOST"):
    os.environ["DOCKER_HOST"] = lab  # before anything asks for an engine

from faults import faults_for  # noqa: E402 - the folders are put on the path above
from ground import Ground, here  # noqa: E402
from kept import RUNNING, Log, folder_of, log_of  # noqa: E402
from leaks import ENOUGH, leaked_through, watched  # noqa: E402
from leftovers import alone, place, remove_leftovers  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scene import Chain, deaf_providers, from_afar, new_token, two_exits  # noqa: E402
from world import INTERNET_HOST, World, eventually  # noqa: E402

from chain.engine.connection import Engine  # noqa: E402

START = "cold start"
BATCH = 10  # events under one capture
CALM_SECONDS = 1.0  # of answers without a break, before the next event
NOTICE_SECONDS = 2.0  # that a break may take to show at the client
RATE = 20  # a client's packets in a second, of which the breaks are measured
MOMENT = 0.3  # seconds without answers after which the client says so: tests/providers/toolbox/client.py

console = Console(highlight=False)


class Watcher:
    """One flow of a client that never stops, and what it says of its answers, stamped as it comes."""

    def __init__(self, world: World, service: str) -> None:
        command = ("python3", "client.py", "watch", INTERNET_HOST, "7", str(RATE), new_token())
        self._process = subprocess.Popen(
            ["docker", "exec", world.container(service), *command], stdout=subprocess.PIPE, text=True
        )
        self.events: list[tuple[float, str]] = [(time.monotonic(), "ready")]
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.events.append((time.monotonic(), line.strip()))

    def calm(self) -> bool:
        """Tell whether answers come, and have come for a moment."""
        at, what = self.events[-1]
        return what != "silent" and time.monotonic() - at > CALM_SECONDS

    def away(self, since: float) -> tuple[float, float] | None:
        """Give when answers first stayed away after `since`, and were last back; None if they never stayed away."""
        begun = min((at for at, what in self.events if what == "silent" and at > since), default=None)
        back = max((at for at, what in self.events if what == "back" and at > since), default=None)
        return None if begun is None or back is None else (begun - MOMENT, back)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(60)


def plan(log: Log, names: list[str], starts: int, kills: int) -> list[str]:
    """Give what is still to be done, in random order, the kills shared evenly among the faults."""
    done = log.done()
    wanted = {name: kills // len(names) + (index < kills % len(names)) for index, name in enumerate(names)}
    wanted[START] = starts
    left = [name for name, count in wanted.items() for _ in range(count - done[name])]
    random.shuffle(left)
    return left


def cold_start(chain: Chain, ground: Ground) -> None:
    """Take the chain down and up, with a client that sends before any exit is there."""
    chain.down()
    with deaf_providers(chain.world):
        starting = chain.start("up", "--wait", "240")
        chain.knock()
        eventually(lambda: chain.refused() >= ENOUGH, 120, f"{ENOUGH} packets of clients refused")
    output, _ = starting.communicate(timeout=60 * ground.patience + 240)
    assert starting.returncode == 0, output


def only_paris(chain: Chain, ground: Ground) -> None:
    """Keep the other exit out of it, so that the way back is measured and not the way around."""
    if chain.is_open("oslo"):
        chain.silence("oslo")
        eventually(lambda: not chain.is_open("oslo"), 60 * ground.patience, "oslo is closed")


def one(name: str, chain: Chain, ground: Ground, watcher: Watcher) -> dict[str, Any]:
    """Do one thing; give how long traffic was away, how long beyond what was broken, and what the exit's dials took."""
    if name == START:
        began = time.monotonic()
        cold_start(chain, ground)
        chain.answered()
        return {"away": time.monotonic() - began}
    only_paris(chain, ground)
    chain.answered()
    eventually(watcher.calm, 120 * ground.patience, "answers without a break")
    began, calendar = time.monotonic(), time.time()
    faults_for(ground)[name](chain, chain.world, ground)
    whole = time.monotonic()
    eventually(
        lambda: watcher.calm() and time.monotonic() - whole > NOTICE_SECONDS * ground.patience,
        180 * ground.patience,
        f"answers after: {name}",
    )
    found: dict[str, Any] = {"dials": dials(chain, calendar)}
    away = watcher.away(began)
    if away is None:
        return {**found, "away": 0.0, "beyond": 0.0}
    begun, back = away
    return {**found, "away": back - begun, "beyond": max(0.0, back - max(whole, begun))}


def dials(chain: Chain, since: float) -> list[float]:
    """Give the seconds from each dial of the first exit's to its first answer, since that time of the calendar."""
    command = ["docker", "logs", "--timestamps", "--since", f"{since:.3f}", chain.container("exit-paris")]
    lines = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
    found, begun = [], None
    for line in lines.splitlines():
        at, _, text = line.partition(" ")
        if text.startswith(("exit: dialling", "exit: up")):
            # The engine's nine digits are more than are read here.
            moment = datetime.fromisoformat(at[:26] + "+00:00")
            if text.startswith("exit: dialling"):
                begun = moment
            elif begun is not None:
                found.append((moment - begun).total_seconds())
                begun = None
    return found


def soak(chain: Chain, ground: Ground, log: Log, todo: list[str], deadline: float) -> None:
    """Work off what is to be done, a batch under each capture."""
    while todo and time.monotonic() < deadline:
        batch, todo = todo[:BATCH], todo[BATCH:]
        results = []
        with watched(chain.world, chain, ground, restarting=True) as (capture, allowed):
            watcher = Watcher(chain.world, "client")
            try:
                for name in batch:
                    results.append({"event": name} | one(name, chain, ground, watcher))
                    allowed.update(chain.link_bridges())
                    away = results[-1]["away"]
                    left = len(todo) + len(batch) - len(results)
                    console.print(f"{time.strftime('%H:%M:%S')}  {name:32} {away:6.2f} s  ({left} left)")
                    if time.monotonic() > deadline:
                        break
            finally:
                watcher.end()
        outside = capture.outside(allowed)
        for result in results:
            log.add(**result)
        log.add(packets=capture.packets, leaked=sum(outside.values()))
        if outside:
            console.print(f"LEAKED: {outside}", [capture.samples[place] for place in outside], style="bold red")


def show(log: Log) -> int:
    """Print what was found so far; give the number of leaked packets."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in log.lines:
        if "event" in line:
            found[line["event"]].append(line)
    table = Table(title="How long a client's traffic was away, in seconds", title_justify="left")
    for column in ("event", "times", "p50", "p99", "max", "max beyond its own absence"):
        table.add_column(column, justify="left" if column == "event" else "right")
    for name, lines in sorted(found.items()):
        away = sorted(line["away"] for line in lines)
        beyond = [line["beyond"] for line in lines if "beyond" in line]
        figures = (away[len(away) // 2], away[min(len(away) - 1, len(away) * 99 // 100)], away[-1])
        last = f"{max(beyond):.2f}" if beyond else ""
        table.add_row(name, str(len(lines)), *(f"{figure:.2f}" for figure in figures), last)
    console.print(table)
    if warm := sorted(dial for line in log.lines for dial in line.get("dials", ())):
        middle, most = warm[len(warm) // 2], warm[-1]
        console.print(f"The exit's {len(warm)} dials after faults: {middle:.2f} s (median), {most:.2f} s at most.")
    batches = [line for line in log.lines if "leaked" in line]
    controls = [line for line in log.lines if "control" in line]
    leaked: int = sum(line["leaked"] for line in batches)
    console.print(
        f"Leaked packets: {leaked}, of {sum(line['packets'] for line in batches)} seen in {len(batches)} captures."
    )
    console.print(f"Seen with every barrier taken away, as a control: {[line['control'] for line in controls]}")
    return leaked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=20, help="cold starts in all")
    parser.add_argument("--kills", type=int, default=60, help="faults in all")
    parser.add_argument("--minutes", type=float, default=60, help="end after so long; the next run goes on")
    parser.add_argument("--only", nargs="+", metavar="FAULT", help="these faults alone")
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    options = parser.parse_args()
    ground = here(lab, os.environ.get("CHAIN_FIRST_EXIT"))
    names = options.only or list(faults_for(ground))
    deadline = time.monotonic() + 60 * options.minutes
    engine = place()
    judging = ("tests/scenarios/leaks.py", "tests/scenarios/soak.py")
    log = log_of("soak", engine, ground, ("chain", *RUNNING, *judging))
    if options.fresh:
        log.forget()
    folder = Path(os.environ.get("CHAIN_LAB_SHARE") or folder_of("soak"), f"soak-world-{engine}")
    todo = plan(log, names, options.starts, options.kills)
    with alone(engine):
        remove_leftovers(folder, frozenset({"chain-yard", ground.site.project}))
        shutil.rmtree(folder, ignore_errors=True)
        if todo:
            run(folder, ground, log, todo, deadline)
            shutil.rmtree(folder)
    return 1 if show(log) else 0


def run(folder: Path, ground: Ground, log: Log, todo: list[str], deadline: float) -> None:
    """Build the ground, show that a leak would be seen, and work."""
    world = World(
        folder / "world",
        Engine(),
        with_l2tp=ground.l2tp,
        with_xray=ground.xray,
        with_openvpn=ground.openvpn,
        clients=("client", "client2"),
        site=ground.site,
        with_names=True,
    )
    world.build()
    world.start()
    chain = two_exits(world, ground)
    try:
        with from_afar(world, "client"):
            chain.up()
            chain.connect("phone")
            control = leaked_through(world, chain, ground, set(), restarts=2)
            chain.up()
            log.add(control=control)
            if not all(control.values()):
                raise SystemExit(
                    f"without any barrier nothing was seen at some place: {control}; this can't see a leak"
                )
            soak(chain, ground, log, todo, deadline)
    finally:
        chain.run("down", check=False)
        world.stop()


if __name__ == "__main__":
    sys.exit(main())
