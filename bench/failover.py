"""Breaks exits under a client's traffic, and measures how long users were without an answer.

Two exits stand in for each other; whichever is used is broken next. A client sends a stream that began before the
fault, new flows, and holds idle TCP connections. A gap begins when the first packet is sent that will not be answered
(of a loss that rises: when nothing comes through any more), and ends when the stream and a new flow are both answered
again. Each packet of the client holds a token, which is looked for on every interface of the machine.

What was measured is kept, so that a run that was ended goes on where it was; other code begins anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "providers"), str(CHECKOUT / "tests" / "scenarios")]
if lab := os.environ.get("CHAIN_LAB_HOST"):
    os.environ["DOCKER_HOST"] = lab  # before anything asks for an engine

import documents  # noqa: E402 - the folders are put on the path above
from dialogue import Dialogue, inside  # noqa: E402
from faults import dropping_rules, pids_of, uplinks_end  # noqa: E402
from gaps import Stopwatch  # noqa: E402
from ground import here  # noqa: E402
from kept import RUNNING, Log, log_of  # noqa: E402
from leftovers import alone, place, remove_leftovers  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scene import Chain, capturing, exit_at, from_afar, new_token  # noqa: E402
from world import WIREGUARD_PORT, Failed, World, docker, eventually  # noqa: E402

from chain.api.project import write_atomic  # noqa: E402
from chain.engine.connection import Engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ground import Ground
    from world import Provider

RESULTS = CHECKOUT / "bench" / "results" / "failover.json"
DOCS = CHECKOUT / "docs" / "tuning.md"
BEGIN = "<!-- From bench/failover.py, by `make bench-failover WRITE=1`. -->\n"
RELAY_PORT = 51901
TITLES = {"wireguard": "WireGuard", "xray": "Xray", "l2tp": "L2TP/IPsec", "openvpn": "OpenVPN"}
DAEMONS = {"wireguard": "wireguard-go", "xray": "xray", "l2tp": "pppd", "openvpn": "openvpn"}
# Low, since one fault follows the other: the usual value is 10 s.
SETTINGS = {"hold_down": "10ms"}
SETTLE_SECONDS = 1.5  # for resets to arrive, and answers; when all have, the next fault is due
SILENT_SECONDS = 3.0  # that a silence lasts: of those that end by themselves sooner the verdict learns to wait for them
RISING_SECONDS = 0.1  # that each step of a loss that rises takes
LOOK_SECONDS = 0.1  # between two looks at the client's program meanwhile
CALM_SECONDS = 0.6  # with all well, before the next fault
UNASKED_SECONDS = 0.3  # after a fault: whatever is asked meanwhile takes processors from what is measured
BATCH = 20  # faults under one capture
APART_MS = 10.0  # two gaps that are no farther apart than that and two new flows are one
FAILURES = 3  # in a row, after which the bench gives up

console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


class Load(NamedTuple):
    """What a client does all the time."""

    rate: int  # packets a second of the stream
    flows: int  # that begin each second
    idle: int  # connections that say nothing


NATIVE = Load(1000, 100, 20)
WITH_XRAY = Load(1000, 30, 20)  # each new flow begins with a TLS handshake of its own, which takes milliseconds
IN_LAB = Load(50, 20, 5)  # emulated, a packet takes milliseconds of both processors


class Hand(Dialogue):
    """A shell in the observer that stays: to start one takes as much of the machine as what is to be measured."""

    PROGRAM = 'while read -r line; do (eval "$line") >&2 </dev/null; echo $?; done'

    def __init__(self, world: World) -> None:
        super().__init__(*inside(world.container("observer"), "sh", "-c", self.PROGRAM))

    def do(self, *command: str) -> None:
        """Run one of the observer's programs."""
        if (code := self._asked(shlex.join(command))) != "0":
            raise Failed(f"{command[0]} ended with {code}")


@dataclass(frozen=True)
class Site:
    """What a fault may need to know."""

    chain: Chain
    world: World
    hand: Hand
    exit: str  # that is used, and will be broken
    provider: Provider

    @property
    def container(self) -> str:
        return self.chain.container(f"exit-{self.exit}")

    @contextmanager
    def dropping(self, hook: str, match: str = "") -> Iterator[None]:
        """Have the provider drop packets while the block runs."""
        pid = docker("inspect", "-f", "{{.State.Pid}}", self.world.container(self.provider.name)).strip()
        nft = "nsenter", "-t", pid, "-n", "nft"
        self.hand.do(*nft, dropping_rules(hook, match).strip())
        try:
            yield
        finally:
            self.hand.do(*nft, "delete table inet fault")


@contextmanager
def exit_killed(site: Site) -> Iterator[None]:
    """Kill its first process; then start it at once, for the engine waits longer before each start of many."""
    container = site.container
    docker("kill", container)
    try:
        yield
    finally:
        docker("start", container)


@contextmanager
def daemon_killed(site: Site) -> Iterator[None]:
    """Kill the tunnel's program; then start the exit anew, for it waits longer before each dial of many."""
    container = site.container
    site.hand.do("kill", "-KILL", *pids_of(container, DAEMONS[site.chain.exits[site.exit]["kind"]]))
    try:
        yield
    finally:
        # Not `restart`: of many in a row one crosses what the engine does by itself, and two processes are left of it.
        docker("kill", container)
        docker("start", container)


@contextmanager
def link_down(site: Site) -> Iterator[None]:
    """Take the cable out; then start the exit anew, as above."""
    name = uplinks_end(site.chain, site.world, site.exit, site.provider.network)
    site.hand.do("ip", "link", "set", name, "down")
    try:
        yield
    finally:
        docker("kill", site.container)
        docker("start", site.container)


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
    """Drop all that leaves for the internet, where more than one answers."""
    world = site.world
    look = "ip", "-json", "route", "get", world.site.internet_host
    (route,) = json.loads(world.inside(world.container(site.provider.name), *look))
    with site.dropping("postrouting", f"oifname {route['dev']}"):
        yield


@contextmanager
def provider_restarted(site: Site) -> Iterator[None]:
    container = site.world.container(site.provider.name)
    docker("kill", container)
    docker("start", container)
    yield


@contextmanager
def slow_death(site: Site) -> Iterator[None]:
    """Lose more and more of what the customer sends, from 5 in a hundred to all of it within two seconds."""
    wan = f"ip daddr {site.provider.wan}"
    for percent in range(5, 100, 5):
        with site.dropping("prerouting", f"{wan} numgen random mod 100 < {percent}"):
            time.sleep(RISING_SECONDS)
    with site.dropping("prerouting", wan):
        yield


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
RISING = ("slow death",)  # a blackout counts from where nothing comes through any more


class Entry(Dialogue):
    """The entry's runtime, asked by one process that stays, which takes milliseconds."""

    PROGRAM = (
        "import json, sys\nfrom chain.node.control import ask\n"
        "for line in sys.stdin: print(json.dumps(ask(json.loads(line))), flush=True)"
    )

    def __init__(self, chain: Chain) -> None:
        super().__init__(*inside(chain.container("entry"), "python3", "-c", self.PROGRAM))

    def ask(self, verb: str, **fields: object) -> dict[str, Any]:
        """Give the answer; an empty object instead of an error."""
        found = self._answer(verb, fields)
        return {} if "error" in found else found

    def order(self, verb: str, **fields: object) -> None:
        """Give an order. Raises Failed where it is refused."""
        if error := self._answer(verb, fields).get("error"):
            raise Failed(error)

    def _answer(self, verb: str, fields: Mapping[str, object]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._asked(json.dumps({"verb": verb, **fields})))
        return found

    def used(self) -> str | None:
        """Name the group's exit."""
        return next((group["exit"] for group in self.ask("status").get("groups", ())), None)

    def all_is_well(self, wanted: str | None) -> str | None:
        """Name the exit that is used, when both are good. `wanted`: only when it is this one."""
        found = self.ask("status")
        used = next((group["exit"] for group in found.get("groups", ())), None)
        well = used and all(each.get("health") == "good" for each in found["exits"])
        return used if well and wanted in (None, used) else None

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """Give those after that number. Of the agent's time they take less than its state does."""
        return list(self.ask("events", since=since).get("events", ()))

    def left(self, exit_: str, since: int) -> bool:
        """Tell whether clients were moved away from the exit since that event."""
        return any(each["event"] == "move" and each["source"] == exit_ != each["target"] for each in self.events(since))


def judged_dead_at(told: Iterable[dict[str, Any]], exit_: str) -> float | None:
    """Give when the exit was judged dead by these events, in milliseconds of the calendar."""
    deaths = (each for each in told if each["event"] == "exit" and each["target"] == "dead")
    return next((each["time"] * 1e3 for each in deaths if each["exit"] == exit_), None)


def gaps_in(looks: Iterable[dict[str, Any]]) -> list[dict[str, float]]:
    return [gap for look in looks for series in ("stream", "flows") for gap in look[series]["gaps"]]


def outage(gaps: Iterable[dict[str, float]], flows: int) -> tuple[float, float] | None:
    """Give begin and end of the longest time in which the stream or new flows had no answer; None without any.

    `flows`: how many of these began each second.
    """
    found: list[tuple[float, float]] = []
    for gap in sorted(gaps, key=lambda gap: gap["from"]):
        if found and gap["from"] <= found[-1][1] + 1000 / flows + APART_MS:
            found[-1] = found[-1][0], max(found[-1][1], gap["until"])
        else:
            found.append((gap["from"], gap["until"]))
    return max(found, key=lambda each: each[1] - each[0], default=None)


def calm_figures(look: dict[str, Any], load: Load) -> dict[str, Any]:
    """Give what a look before a fault says, in milliseconds: the longest gap, and the time to the internet and back.

    Where every packet was answered, the longest gap is the time between two of them.
    """
    begin, end = outage(gaps_in([look]), load.flows) or (0.0, 0.0)
    return {"calm": max(end - begin, 1000 / load.rate), "trip": look["stream"]["median_ms"]}


def fault_figures(
    before: dict[str, Any], looks: list[dict[str, Any]], flows: int, dead_at: float | None, whole_at: float | None
) -> dict[str, Any]:
    """Give what one fault did, in milliseconds.

    `flows`: as above. `dead_at`: when the exit was judged dead, by the calendar. `whole_at`: when a fault that grows
    was whole: what it did until then is no blackout.
    """
    gaps = gaps_in(looks)
    if whole_at is not None:
        gaps = [gap | {"from": max(gap["from"], whole_at)} for gap in gaps if gap["until"] > whole_at]
    found = outage(gaps, flows)
    if found is None and whole_at is not None:  # clients had left before
        found = whole_at, whole_at
    if found is None:
        return {"missed": True}
    begin, end = found
    resets = [each["reset"] for look in looks for each in look["resets"] if each["opened"] < before["now"]]
    return {
        "blackout": end - begin,
        # Of the stream and of new flows, for who looks into the log.
        "gaps": [{key: round(gap[key] - begin, 1) for key in ("from", "until")} for gap in gaps],
        "lost": int(sum(gap["lost"] for look in looks for gap in look["stream"]["gaps"])),
        "resets": [each - begin for each in resets],  # since the fault was felt
        "after_verdict": [] if dead_at is None else [each + before["epoch"] - dead_at for each in resets],
        "kept": before["idle"] - len(resets),  # connections that should have been reset, and were not
    }


def percentile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) if ordered else None


def rows_of(log: Log, where: str) -> list[dict[str, Any]]:
    """Give the table, in the form of bench/results/failover.json: by how much the way was longer, then by fault."""
    order, commit = [*FAULTS], described_commit()
    found = {(line["added_ms"], order.index(line["fault"])) for line in log.lines}
    return [
        row_of(
            [line for line in log.lines if (line["added_ms"], line["fault"]) == (added, order[fault])], where, commit
        )
        for added, fault in sorted(found)
    ]


def described_commit() -> str:
    """Name the commit that is here, and whether it is all that is."""
    command = "git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() or "unknown"


def row_of(lines: list[dict[str, Any]], where: str, commit: str) -> dict[str, Any]:
    events = [line for line in lines if "event" in line]
    felt = [line for line in events if "blackout" in line]
    captures = [line for line in lines if "leaked" in line]
    blackouts = [line["blackout"] for line in felt]
    resets = [each for line in felt for each in line["resets"]]
    after_verdict = [each for line in felt for each in line["after_verdict"]]
    trips = [line["trip"] for line in felt if line["trip"]]
    under_capture = sum(line["of"] for line in captures)
    return {
        "fault": lines[0]["fault"],
        "where": where,
        "commit": commit,
        "added_ms": lines[0]["added_ms"],
        "rtt_ms": round(statistics.median(trips), 1) if trips else None,
        "n": len(felt),
        "missed": sum("missed" in line for line in events),  # not felt by anybody
        "failed": sum("failed" in line for line in events),  # users were not answered within the bench's patience
        "blackout_ms": {
            "p50": percentile(blackouts, 0.5),
            "p99": percentile(blackouts, 0.99),
            "max": percentile(blackouts, 1.0),
        },
        "calm_gap_ms": max((round(line["calm"], 1) for line in felt), default=None),
        "lost": sum(line["lost"] for line in felt),
        "leaked": sum(line["leaked"] for line in captures),
        "capture_dropped": sum(line["dropped"] for line in captures),
        "reset_ms": {"p50": percentile(resets, 0.5), "p99": percentile(resets, 0.99)},
        "reset_after_verdict_ms": {"p50": percentile(after_verdict, 0.5), "p99": percentile(after_verdict, 0.99)},
        "connections": len(resets) + sum(line["kept"] for line in felt),
        "not_reset": sum(line["kept"] for line in felt),
        "false_switches": sum(line["false_switch"] for line in felt),
        "positive_control_seen": under_capture >= len(events)
        and all(line["seen"] and not line["dropped"] for line in captures),
    }


@dataclass
class Run:
    """The ground of all measurements of one run, at one length of the way."""

    chain: Chain
    ground: Ground
    providers: dict[str, Provider]
    always: str | None  # the exit that every fault hits; None: the one that is used
    load: Load
    added_ms: int

    def batch(self, name: str, count: int, log: Log) -> None:
        """Break exits so many times in one way, under one capture; add a line for each, and one of the capture."""
        world, token = self.chain.world, new_token()
        internet = docker("network", "inspect", "-f", "{{.Id}}", world.site.network("internet"))[:12]
        allowed = {f"br-{internet}"} | self.chain.link_bridges()
        of = {"fault": name, "added_ms": self.added_ms}
        done, found = 0, []
        with (
            capturing(world, token) as capture,
            Entry(self.chain) as entry,
            Hand(world) as hand,
            Stopwatch.of(world, token, self.load.rate, self.load.idle, self.load.flows) as watch,
        ):
            failures = 0
            for done in range(1, count + 1):
                figures = self.one(name, entry, hand, watch)
                found.append(figures)
                console.print(f"{time.strftime('%H:%M:%S')}  {name}: {done} of {count}", end="\r")
                failures = failures + 1 if "failed" in figures else 0
                if failures == FAILURES:
                    break
        # Only now: of a batch that is ended in its midst nobody knows whether anything got outside.
        for figures in found:
            log.add(event=f"{name} {self.added_ms}", **of, **figures)
        leaked = sum(capture.outside(allowed).values())
        log.add(**of, of=done, leaked=leaked, dropped=capture.dropped, seen=bool(capture.seen))
        if failures == FAILURES:
            raise SystemExit(f"{name}: {FAILURES} times in a row users were left without an answer")

    def one(self, name: str, entry: Entry, hand: Hand, watch: Stopwatch) -> dict[str, Any]:
        """Break the exit that is used once; give what it did, or what did not come about in time."""
        patience = self.ground.patience
        looks: list[dict[str, Any]] = []
        whole_at: float | None = None
        try:
            used = eventually(partial(entry.all_is_well, self.always), 120 * patience, "both exits are good")
            calm_from = max((each["number"] for each in entry.events()), default=0)
            # What began by the other exit stays there: all of it is to go by this one.
            watch.look("anew")
            eventually(lambda: watch.look()["idle"] == self.load.idle, 60 * patience, "all connections are open")
            time.sleep(CALM_SECONDS * patience)  # in which nothing may happen
            before = watch.look()
            now = entry.used() or used
            number = max((each["number"] for each in entry.events()), default=0)
            with FAULTS[name](Site(self.chain, self.chain.world, hand, now, self.providers[now])):
                least = time.monotonic() + (SILENT_SECONDS * patience if name in SILENT else 0)
                if name in RISING:
                    looks.append(watch.look())
                    whole_at = looks[-1]["now"]
                time.sleep(UNASKED_SECONDS * patience)
                eventually(lambda: entry.left(now, number), 30 * patience, "another exit is used")
                looks.append(watch.look())
                switched = looks[-1]["now"]
                eventually(lambda: self._answered(watch, looks, switched), 30 * patience, "users are answered")
                until = time.monotonic() + SETTLE_SECONDS * patience
                while time.monotonic() < until and _reset(looks, before) < before["idle"]:
                    time.sleep(LOOK_SECONDS)
                    looks.append(watch.look())
                time.sleep(max(0, least - time.monotonic()))
                told = entry.events(number)
                dead_at = judged_dead_at(told, now)
        except Failed as error:
            return {"failed": f"{error}; the entry says: {json.dumps(entry.ask('status'))}"}
        felt = fault_figures(before, looks, self.load.flows, dead_at, whole_at)
        calm = [each for each in entry.events(calm_from) if each["number"] <= number]  # for who looks into the log
        return calm_figures(before, self.load) | {"false_switch": now != used, "told": told, "calm_told": calm} | felt

    @staticmethod
    def _answered(watch: Stopwatch, looks: list[dict[str, Any]], since: float) -> bool:
        """Tell whether what was sent since then has been answered, of the stream and of new flows."""
        looks.append(watch.look())
        return all(looks[-1][series]["answered_at"] > since for series in ("stream", "flows"))


def _reset(looks: Iterable[dict[str, Any]], before: dict[str, Any]) -> int:
    return sum(each["opened"] < before["now"] for look in looks for each in look["resets"])


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
    """Write each of these over the one of the same fault, place and way; the others stay, each with its commit."""

    def key(row: dict[str, Any]) -> tuple[str, int, int]:
        return row["where"], row["added_ms"], [*FAULTS].index(row["fault"])

    found = json.loads(RESULTS.read_text())["faults"] if RESULTS.exists() else []
    by_key = {key(row): row for row in (*found, *rows) if row["fault"] in FAULTS}
    rows = [by_key[each] for each in sorted(by_key)]
    text = documented(rows)
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomic(RESULTS, json.dumps({"settings": SETTINGS, "faults": rows}, indent=2) + "\n", 0o644)
    documents.put(DOCS, BEGIN, text)


def documented(rows: list[dict[str, Any]]) -> str:
    """Give the tables of docs/tuning.md."""
    columns = (
        "",
        "RTT",
        "n",
        "blackout p50",
        "p99",
        "max",
        "ended p99",
        "of the verdict",
        "of calm",
        "failed",
        "false",
        "outside",
    )
    text = ""
    for where, found in itertools.groupby(rows, key=lambda row: row["where"]):
        lines = []
        for row in found:
            if not row["positive_control_seen"]:
                raise SystemExit(f"{where}, {row['fault']}: no capture that could have seen a leak; nothing is written")
            blackout, resets = row["blackout_ms"], (row["reset_ms"]["p99"], row["reset_after_verdict_ms"]["p99"])
            times = (row["rtt_ms"], row["n"], blackout["p50"], blackout["p99"], blackout["max"], *resets)
            shown = ["" if each is None else f"{each:,.0f}" for each in times]
            times_calm = f"{blackout['max'] / row['calm_gap_ms']:,.1f}" if row["calm_gap_ms"] else ""
            lines.append((row["fault"], *shown, times_calm, row["failed"], row["false_switches"], row["leaked"]))
        text += f"\n{where}:\n\n{documents.table(columns, lines)}"
    return text


def chain_of(world: World, ground: Ground, *, delayed: bool) -> Chain:
    """Give a chain whose two exits stand in for each other. `delayed`: reached by the relays."""
    exits: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    for name, provider in (("paris", ground.preferred), ("oslo", world.site.wireguard2)):
        exits[name], more = exit_at(world, name, provider, provider.wan)
        files |= more
        # Somebody beyond the provider who answers: only that tells when its internet is gone.
        exits[name].setdefault("probe", {"public": [world.site.internet_host]})
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


@dataclass
class Wanted:
    """What is to be measured in all, and what was so far."""

    repeats: int
    load: Load
    log: Log
    deadline: float

    def left(self, name: str, added_ms: int) -> int:
        """Give how many faults of that kind the next batch has."""
        if time.monotonic() > self.deadline:
            return 0
        return min(BATCH, max(0, self.repeats - self.log.done()[f"{name} {added_ms}"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20, help="faults of each kind, in all")
    kind = os.environ.get("CHAIN_FIRST_EXIT")
    usual = IN_LAB if lab else WITH_XRAY if kind == "xray" else NATIVE
    parser.add_argument("--rate", type=int, default=usual.rate, help="packets a second of the stream")
    parser.add_argument("--flows", type=int, default=usual.flows, help="new flows a second")
    parser.add_argument("--idle", type=int, default=usual.idle, help="connections that say nothing")
    parser.add_argument("--rtt", type=int, nargs="*", default=[0], help="milliseconds that are added to the way")
    parser.add_argument("--faults", nargs="*", choices=list(FAULTS))
    parser.add_argument("--minutes", type=float, default=600, help="end after so long; the next run goes on")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(CHECKOUT)}")
    given = parser.parse_args()
    ground = here(lab, kind)
    load = Load(given.rate, given.flows, given.idle)
    where = f"{TITLES[ground.kind]}, {'in the virtual machine' if lab else 'native'}, {load.idle} idle connections"
    if load._replace(idle=NATIVE.idle) != NATIVE:
        where += f", {load.rate} packets and {load.flows} new flows a second"
    log = log_of("bench-failover", place(), ground, (*RUNNING, "bench/failover.py"), load, SETTINGS)
    if given.fresh:
        log.forget()
    wanted = Wanted(given.repeats, load, log, time.monotonic() + 60 * given.minutes)
    with alone(place()):
        measure(ground, wanted, dict.fromkeys(given.rtt, given.faults))
    rows = rows_of(log, where)
    show(rows)
    if given.write:
        save(rows)


def measure(ground: Ground, wanted: Wanted, ways: dict[int, list[str] | None]) -> None:
    """Measure what is still wanted, on a ground of its own: at each length of the way these faults, or the usual."""
    share = os.environ.get("CHAIN_LAB_SHARE")
    with tempfile.TemporaryDirectory(dir=share) as folder:
        remove_leftovers(Path(share or tempfile.gettempdir()), frozenset({"chain-yard", ground.site.project}))
        world = World(
            Path(folder),
            Engine(),
            with_l2tp=ground.l2tp,
            with_xray=ground.xray,
            with_openvpn=ground.openvpn,
            site=ground.site,
        )
        world.build()
        try:
            world.start()
            for milliseconds, faults in ways.items():
                names = faults or (SILENT if milliseconds else [*FAULTS])
                if any(wanted.left(name, milliseconds) for name in names):
                    with delayed_chain(world, ground, milliseconds) as chain:
                        batches(chain, ground, wanted, milliseconds, names)
        finally:
            world.stop()


@contextmanager
def delayed_chain(world: World, ground: Ground, milliseconds: int) -> Iterator[Chain]:
    """Give a chain that runs, with the way to its providers longer by so much, there and back."""
    chain = chain_of(world, ground, delayed=bool(milliseconds))
    # The client comes from outside Docker's networks, as real ones do: within them a program carries each packet.
    with relays(world, (ground.preferred, world.site.wireguard2), milliseconds), from_afar(world, "client"):
        try:
            chain.up()
            chain.connect("phone")
            chain.answered()
            yield chain
        finally:
            chain.run("down", check=False)


def batches(chain: Chain, ground: Ground, wanted: Wanted, added_ms: int, names: Sequence[str]) -> None:
    """Measure a batch of each fault in turn, so that a run that is ended early has some of all."""
    providers = {"paris": ground.preferred, "oslo": chain.world.site.wireguard2}
    always = None if ground.kind == "wireguard" else "paris"
    run = Run(chain, ground, providers, always, wanted.load, added_ms)
    while any(wanted.left(name, added_ms) for name in names):
        for name in names:
            if count := wanted.left(name, added_ms):
                run.batch(name, count, wanted.log)
        show(rows_of(wanted.log, ""))


if __name__ == "__main__":
    main()
