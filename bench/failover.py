"""Breaks exits under a client's traffic, and measures how long users were without an answer.

Two exits stand in for each other; whichever is used is broken next. A client sends a stream that began before the
fault, a new flow every 10 ms, and holds idle TCP connections. A gap begins when the first packet is sent that will not
be answered, and ends when the stream and a new flow are both answered again. Each packet of the client holds a token,
which is looked for on every interface of the machine.
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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "providers"), str(CHECKOUT / "tests" / "scenarios")]
if lab := os.environ.get("CHAIN_LAB_HOST"):
    os.environ["DOCKER_HOST"] = lab  # before anything asks for an engine

from faults import dropping, dropping_rules, kill_program, uplinks_end  # noqa: E402 - the folders are put on the path above
from gaps import Stopwatch  # noqa: E402
from ground import here  # noqa: E402
from leftovers import alone, place, remove_leftovers  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scene import Capture, Chain, capturing, exit_at, new_token  # noqa: E402
from world import WIREGUARD_PORT, World, docker, eventually  # noqa: E402

from chain.api.project import write_atomic  # noqa: E402
from chain.engine.connection import Engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from ground import Ground
    from world import Provider

RESULTS = CHECKOUT / "bench" / "results" / "failover.json"
RATE, IDLE = 1000, 20
IN_LAB_RATE, IN_LAB_IDLE = 50, 5  # emulated, a packet takes milliseconds of both processors
RELAY_PORT = 51901
DAEMONS = {"wireguard": "wireguard-go", "xray": "xray", "l2tp": "pppd"}
# Low, since one fault follows the other: the usual value is 10 s.
SETTINGS = {"hold_down": "200ms"}
SETTLE_SECONDS = 1.2  # for resets to arrive, and for late answers
CALM_SECONDS = 1.0  # with all well, before the next fault

console = Console(highlight=False)


@dataclass(frozen=True)
class Site:
    """What a fault may need to know."""

    chain: Chain
    world: World
    exit: str  # that is used, and will be broken
    provider: Provider

    @property
    def container(self) -> str:
        return self.chain.container(f"exit-{self.exit}")

    def dropping(self, hook: str, match: str = "") -> AbstractContextManager[None]:
        """Have the provider drop packets while the block runs."""
        return dropping(self.world, self.provider, hook, match)


@contextmanager
def exit_killed(site: Site) -> Iterator[None]:
    site.chain.kill(f"exit-{site.exit}")
    yield


@contextmanager
def daemon_killed(site: Site) -> Iterator[None]:
    kill_program(site.container, DAEMONS[site.chain.exits[site.exit]["kind"]], site.world)
    yield


@contextmanager
def link_down(site: Site) -> Iterator[None]:
    name = uplinks_end(site.chain, site.world, site.exit, site.provider.network)
    site.world.exec("observer", "ip", "link", "set", name, "down")
    try:
        yield
    finally:
        site.world.exec("observer", "ip", "link", "set", name, "up")


@contextmanager
def black_hole(site: Site) -> Iterator[None]:
    with site.dropping("prerouting"):
        yield


@contextmanager
def one_way_out(site: Site) -> Iterator[None]:
    with site.dropping("prerouting", f"ip daddr {site.provider.wan}"):
        yield


@contextmanager
def one_way_back(site: Site) -> Iterator[None]:
    with site.dropping("postrouting", f"ip saddr {site.provider.wan}"):
        yield


@contextmanager
def internet_gone(site: Site) -> Iterator[None]:
    with site.dropping("postrouting", f"ip daddr {site.world.site.internet_host}"):
        yield


@contextmanager
def provider_restarted(site: Site) -> Iterator[None]:
    docker("restart", "-t", "0", site.world.container(site.provider.name))
    yield


@contextmanager
def slow_death(site: Site) -> Iterator[None]:
    """Lose more and more of what the customer sends, from 5 in a hundred to all of it within two seconds."""
    rules = "".join(
        dropping_rules(hook="prerouting", match=f"ip daddr {site.provider.wan} numgen random mod 100 < {percent}")
        + "EOF\nsleep 0.1\nnft -f - <<EOF\ndelete table inet fault\n"
        for percent in range(5, 100, 5)
    )
    last = dropping_rules(hook="prerouting", match=f"ip daddr {site.provider.wan}")
    provider = site.world.container(site.provider.name)
    site.world.inside(provider, "sh", "-e", stdin=f"nft -f - <<EOF\n{rules}{last}EOF\n")
    try:
        yield
    finally:
        site.world.inside(provider, "nft", "delete", "table", "inet", "fault")


FAULTS: dict[str, Callable[[Site], Any]] = {
    "exit container killed": exit_killed,
    "daemon killed": daemon_killed,
    "link down": link_down,
    "provider restarted": provider_restarted,
    "black hole": black_hole,
    "one-way loss, outward": one_way_out,
    "one-way loss, back": one_way_back,
    "internet gone, tunnel stands": internet_gone,
    "slow death": slow_death,
}
# Of these nothing and nobody tells, and the way's length matters.
SILENT = ("black hole", "one-way loss, outward", "one-way loss, back", "internet gone, tunnel stands", "slow death")


@dataclass
class Figures:
    """Of one kind of fault. Times in milliseconds."""

    blackouts: list[float] = field(default_factory=list)
    resets: list[float] = field(default_factory=list)  # since the fault was felt
    after_verdict: list[float] = field(default_factory=list)  # resets, since the exit was judged dead
    trips: list[float] = field(default_factory=list)  # to the internet and back, before the fault
    calm: float = 0.0  # the longest gap without a fault
    lost: int = 0
    missed: int = 0  # faults of which no gap was seen
    kept: int = 0  # connections that should have been reset, and were not
    false_switches: int = 0

    def take_calm(self, look: dict[str, Any]) -> None:
        """Add what was seen before a fault."""
        gaps = [*look["stream"]["gaps"], *look["flows"]["gaps"]]
        self.calm = max(self.calm, *(gap["until"] - gap["from"] for gap in gaps), 0.0)
        if look["stream"]["median_ms"]:
            self.trips.append(look["stream"]["median_ms"])

    def take(self, look: dict[str, Any], idle_before: int, dead_at: float | None) -> None:
        """Add what one fault did. `dead_at`: when the exit was judged dead, in milliseconds of the calendar."""
        gaps = [*look["stream"]["gaps"], *look["flows"]["gaps"]]
        if not gaps:
            self.missed += 1
            return
        begin = min(gap["from"] for gap in gaps)
        self.blackouts.append(max(gap["until"] for gap in gaps) - begin)
        self.lost += int(sum(gap["lost"] for gap in look["stream"]["gaps"]))
        resets = sorted(each["reset"] for each in look["resets"])[:idle_before]
        self.resets += [each - begin for each in resets]
        self.kept += idle_before - len(resets)
        if dead_at is not None:
            self.after_verdict += [each + look["epoch"] - dead_at for each in resets]


def percentile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) if ordered else None


def summary(name: str, where: str, figures: Figures, capture: Capture, allowed: set[str]) -> dict[str, Any]:
    """Give one row, in the form of bench/results/failover.json."""
    return {
        "fault": name,
        "where": where,
        "rtt_ms": round(statistics.median(figures.trips), 1) if figures.trips else None,
        "n": len(figures.blackouts),
        "missed": figures.missed,
        "blackout_ms": {
            "p50": percentile(figures.blackouts, 0.5),
            "p99": percentile(figures.blackouts, 0.99),
            "max": percentile(figures.blackouts, 1.0),
        },
        "calm_gap_ms": round(figures.calm, 1),
        "lost": figures.lost,
        "leaked": sum(capture.outside(allowed).values()) + capture.dropped,
        "reset_ms": {"p50": percentile(figures.resets, 0.5), "p99": percentile(figures.resets, 0.99)},
        "reset_after_verdict_ms": {
            "p50": percentile(figures.after_verdict, 0.5),
            "p99": percentile(figures.after_verdict, 0.99),
        },
        "connections": len(figures.resets) + figures.kept,
        "not_reset": figures.kept,
        "false_switches": figures.false_switches,
        "positive_control_seen": bool(capture.seen),
    }


def entry_of(chain: Chain, *question: str) -> dict[str, Any]:
    """Ask the entry itself, which is quicker than the whole command; an empty object while it can't be asked."""
    text = docker("exec", chain.container("entry"), "chain-node", *question, check=False)
    found: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
    return {} if "error" in found else found


def status_of(chain: Chain) -> tuple[str | None, dict[str, Any]]:
    """Give the group's exit, and each exit's status."""
    found = entry_of(chain, "status")
    exits = {each["name"]: each for each in found.get("exits", ())}
    return next((group["exit"] for group in found.get("groups", ())), None), exits


def all_is_well(chain: Chain, wanted: str | None) -> str | None:
    """Give the exit that is used, when both are good. `wanted`: only when it is this one."""
    used, exits = status_of(chain)
    well = used and all(each.get("health") == "good" for each in exits.values())
    return used if well and wanted in (None, used) else None


def another_is_used(site: Site) -> bool:
    return status_of(site.chain)[0] not in (site.exit, None)


def judged_dead_at(site: Site, since: int) -> tuple[float | None, int]:
    """Give when the exit was judged dead since that event, in milliseconds of the calendar; and the last event."""
    events = entry_of(site.chain, "events", str(since)).get("events", ())
    dead = [
        each["time"] * 1e3
        for each in events
        if each["event"] == "exit" and each["exit"] == site.exit and each["target"] == "dead"
    ]
    return next(iter(dead), None), max((each["number"] for each in events), default=since)


@dataclass
class Run:
    """The ground of all measurements of one run, at one length of the way."""

    chain: Chain
    ground: Ground
    providers: dict[str, Provider]
    always: str | None  # the exit that every fault hits; None: the one that is used
    rate: int
    idle: int

    def measure(self, name: str, repeats: int) -> dict[str, Any]:
        """Break exits so many times in one way."""
        world, patience = self.chain.world, self.ground.patience
        figures, token = Figures(), new_token()
        internet = docker("network", "inspect", "-f", "{{.Id}}", world.site.network("internet"))[:12]
        allowed = {f"br-{internet}"} | self.chain.link_bridges()
        _, number = judged_dead_at(Site(self.chain, world, "", self.ground.preferred), 0)
        with capturing(world, token) as capture, Stopwatch(world, token, self.rate, self.idle) as watch:
            for done in range(repeats):
                used = eventually(partial(all_is_well, self.chain, self.always), 120 * patience, "both exits are good")
                watch.look()
                time.sleep(CALM_SECONDS * patience)  # in which nothing may happen
                before = watch.look()
                figures.take_calm(before)
                now, _ = status_of(self.chain)
                figures.false_switches += now != used
                site = Site(self.chain, world, now or used, self.providers[now or used])
                with FAULTS[name](site):
                    eventually(partial(another_is_used, site), 30 * patience, "another exit is used")
                    time.sleep(SETTLE_SECONDS * patience)  # which is measured
                    dead_at, number = judged_dead_at(site, number)
                    figures.take(watch.look(), before["idle"], dead_at)
                console.print(f"{name}: {done + 1} of {repeats}", end="\r")
        where = f"{self.ground.kind}, {'in the virtual machine' if lab else 'native'}"
        return summary(name, where, figures, capture, allowed)


def show(rows: list[dict[str, Any]]) -> None:
    columns = ("fault", "round trip", "n", "p50", "p99", "max", "lost", "leaked", "reset p99", "of verdict", "false")
    table = Table(*columns, title="failover, times in ms")
    for row in rows:
        blackout = row["blackout_ms"]
        table.add_row(
            row["fault"],
            *map(str, (row["rtt_ms"], row["n"], blackout["p50"], blackout["p99"], blackout["max"])),
            *map(str, (row["lost"], row["leaked"], row["reset_ms"]["p99"], row["reset_after_verdict_ms"]["p99"])),
            str(row["false_switches"]),
        )
    console.print(table)


def save(rows: list[dict[str, Any]]) -> None:
    """Write what there is so far, so that a run that is ended early has not been in vain."""
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomic(RESULTS, json.dumps({"settings": SETTINGS, "faults": rows}, indent=2) + "\n", 0o644)


def chain_of(world: World, ground: Ground, *, delayed: bool) -> Chain:
    """Give a chain whose two exits stand in for each other. `delayed`: reached by the relays."""
    exits: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    for name, provider in (("paris", ground.preferred), ("oslo", world.site.wireguard2)):
        exits[name], more = exit_at(world, name, provider, provider.wan)
        files |= more
        if delayed:
            exits[name]["endpoint"] = f"{provider.wan}:{RELAY_PORT}"
    # One that was broken is not used again before the other one is, unless only one of them is to be broken.
    back = "never" if ground.kind == "wireguard" else "when-better"
    groups = {"default": {"exits": ["paris", "oslo"], "fail_back": back}}
    return Chain(
        world, world.folder / f"project-{delayed}", exits, files, extra={"failover": SETTINGS, "groups": groups}
    )


@contextmanager
def relays(world: World, providers: Iterable[Provider], milliseconds: int) -> Iterator[None]:
    """Make the way to these providers longer while the block runs, by half of that in each direction."""
    with ExitStack() as stack:
        for provider in providers if milliseconds else ():
            relay = ("python3", "delay.py", str(RELAY_PORT), str(WIREGUARD_PORT), str(milliseconds / 2))
            stack.enter_context(world.background(provider.name, *relay))
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--idle", type=int, default=IN_LAB_IDLE if lab else IDLE, help="connections that say nothing")
    parser.add_argument("--rtt", type=int, nargs="*", default=[0], help="milliseconds that are added to the way")
    parser.add_argument("--faults", nargs="*", choices=list(FAULTS))
    given = parser.parse_args()
    ground = here(lab, os.environ.get("CHAIN_FIRST_EXIT"))
    share = os.environ.get("CHAIN_LAB_SHARE")
    rows: list[dict[str, Any]] = []
    with alone(place()), tempfile.TemporaryDirectory(dir=share) as folder:
        engine = Engine()
        remove_leftovers(Path(share or tempfile.gettempdir()), frozenset({"chain-yard", ground.site.project}))
        world = World(
            Path(folder),
            engine,
            with_l2tp=ground.l2tp,
            with_xray=ground.xray,
            with_openvpn=ground.openvpn,
            site=ground.site,
        )
        world.build()
        try:
            world.start()
            for milliseconds in given.rtt:
                _at(world, ground, milliseconds, given, rows)
        finally:
            world.stop()
    show(rows)


def _at(world: World, ground: Ground, milliseconds: int, given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Measure all faults at one length of the way."""
    chain = chain_of(world, ground, delayed=bool(milliseconds))
    providers = {"paris": ground.preferred, "oslo": world.site.wireguard2}
    with relays(world, providers.values(), milliseconds):
        try:
            chain.up()
            chain.connect("phone")
            chain.answered()
            always = None if ground.kind == "wireguard" else "paris"
            run = Run(chain, ground, providers, always, IN_LAB_RATE if lab else RATE, given.idle)
            for name in given.faults or (SILENT if milliseconds else FAULTS):
                rows.append(run.measure(name, given.repeats))
                save(rows)
                show(rows[-1:])
        finally:
            chain.run("down", check=False)


if __name__ == "__main__":
    main()
