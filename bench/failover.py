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
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "providers"), str(CHECKOUT / "tests" / "scenarios")]
if lab := os.environ.get("CHAIN_LAB_HOST"):
    os.environ["DOCKER_HOST"] = lab  # before anything asks for an engine

from faults import kill_program, uplinks_end  # noqa: E402 - the folders are put on the path above
from ground import here  # noqa: E402
from leftovers import alone, place, remove_leftovers  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scene import Capture, Chain, capturing, new_token, two_exits  # noqa: E402
from world import World, docker, eventually  # noqa: E402

from chain.engine.connection import Engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground
    from world import Provider

RESULTS = CHECKOUT / "bench" / "results" / "failover.json"
RATE, IDLE = 1000, 20
# Low, since one fault follows the other: the usual value is 10 s.
SETTINGS = {"hold_down": "200ms"}
SETTLE_SECONDS = 1.2  # for resets to arrive, and for late answers
CALM_SECONDS = 1.0  # with all well, before the next fault
DROP = "table inet fault {{ chain c {{ type filter hook {hook} priority -400; policy accept; {match} drop; }}; }}\n"

console = Console(highlight=False)


class Stopwatch:
    """The client's program, which notices every gap."""

    def __init__(self, world: World, token: str) -> None:
        command = ("python3", "stopwatch.py", world.site.internet_host, str(RATE), str(IDLE), token)
        self._process = subprocess.Popen(
            ["docker", "exec", "-i", world.container("client"), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._read() != "ready":
            raise RuntimeError("the client's program did not start")

    def look(self) -> dict[str, Any]:
        """Give what happened since the last look."""
        if self._process.stdin is None:
            raise RuntimeError("no input")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._read())
        return found

    def end(self) -> None:
        self._process.communicate(timeout=30)

    def _read(self) -> str:
        return self._process.stdout.readline().strip() if self._process.stdout else ""


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

    @contextmanager
    def dropping(self, hook: str, match: str = "") -> Iterator[None]:
        """Have the provider drop packets while the block runs, and its kernel say nothing of it."""
        provider = self.world.container(self.provider.name)
        self.world.inside(provider, "nft", "-f", "-", stdin=DROP.format(hook=hook, match=match))
        try:
            yield
        finally:
            self.world.inside(provider, "nft", "delete", "table", "inet", "fault")


@contextmanager
def exit_killed(site: Site) -> Iterator[None]:
    site.chain.kill(f"exit-{site.exit}")
    yield


@contextmanager
def daemon_killed(site: Site) -> Iterator[None]:
    kill_program(site.container, "wireguard-go", site.world)
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
    with site.dropping("prerouting", "iifname != wg0 udp dport 51900"):
        yield


@contextmanager
def one_way_back(site: Site) -> Iterator[None]:
    with site.dropping("postrouting", "oifname != wg0 udp sport 51900"):
        yield


@contextmanager
def internet_gone(site: Site) -> Iterator[None]:
    with site.dropping("forward"):
        yield


@contextmanager
def provider_restarted(site: Site) -> Iterator[None]:
    docker("restart", "-t", "0", site.world.container(site.provider.name))
    yield


FAULTS: dict[str, Callable[[Site], Any]] = {
    "exit container killed": exit_killed,
    "daemon killed": daemon_killed,
    "link down": link_down,
    "black hole": black_hole,
    "one-way loss, outward": one_way_out,
    "one-way loss, back": one_way_back,
    "provider restarted": provider_restarted,
    "internet gone, tunnel stands": internet_gone,
}


@dataclass
class Figures:
    """Of one kind of fault."""

    blackouts: list[float] = field(default_factory=list)
    resets: list[float] = field(default_factory=list)
    lost: int = 0
    missed: int = 0  # faults of which no gap was seen
    false_switches: int = 0

    def take(self, look: dict[str, Any], idle_before: int) -> None:
        """Add what one fault did."""
        gaps = [*look["stream"]["gaps"], *look["flows"]["gaps"]]
        if not gaps:
            self.missed += 1
            return
        begin = min(gap["from"] for gap in gaps)
        self.blackouts.append(max(gap["until"] for gap in gaps) - begin)
        self.lost += int(sum(gap["lost"] for gap in look["stream"]["gaps"]))
        resets = sorted(each["reset"] - begin for each in look["resets"])
        if idle_before:
            self.resets += resets[:idle_before]


def percentile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) if ordered else None


def summary(name: str, where: str, figures: Figures, capture: Capture, allowed: set[str]) -> dict[str, Any]:
    """Give one row, in the form of bench/results/failover.json."""
    return {
        "fault": name,
        "where": where,
        "rtt_ms": 0,
        "n": len(figures.blackouts),
        "blackout_ms": {
            "p50": percentile(figures.blackouts, 0.5),
            "p99": percentile(figures.blackouts, 0.99),
            "max": percentile(figures.blackouts, 1.0),
        },
        "lost": figures.lost,
        "leaked": sum(capture.outside(allowed).values()) + capture.dropped,
        "reset_ms": {"p50": percentile(figures.resets, 0.5), "p99": percentile(figures.resets, 0.99)},
        "false_switches": figures.false_switches,
        "positive_control_seen": bool(capture.seen),
    }


def status_of(chain: Chain) -> tuple[str | None, dict[str, Any]]:
    """Give the group's exit, and each exit's status."""
    found = chain.entry_status()
    exits = {each["name"]: each for each in found.get("exits", ())}
    return next((group["exit"] for group in found.get("groups", ())), None), exits


def all_is_well(chain: Chain) -> str | None:
    """Give the exit that is used, when both are good."""
    used, exits = status_of(chain)
    return used if used and all(each.get("health") == "good" for each in exits.values()) else None


def another_is_used(site: Site) -> bool:
    return status_of(site.chain)[0] not in (site.exit, None)


def measure(name: str, repeats: int, chain: Chain, providers: dict[str, Provider], ground: Ground) -> dict[str, Any]:
    """Break exits so many times in one way."""
    world = chain.world
    figures, token = Figures(), new_token()
    internet = docker("network", "inspect", "-f", "{{.Id}}", world.site.network("internet"))[:12]
    allowed = {f"br-{internet}"} | chain.link_bridges()
    with capturing(world, token) as capture:
        watch = Stopwatch(world, token)
        for number in range(repeats):
            used = eventually(partial(all_is_well, chain), 120 * ground.patience, "both exits are good")
            time.sleep(CALM_SECONDS)  # in which nothing may happen
            before = watch.look()
            now, _ = status_of(chain)
            figures.false_switches += now != used
            site = Site(chain, world, now or used, providers[now or used])
            with FAULTS[name](site):
                eventually(partial(another_is_used, site), 30, "another exit is used")
                time.sleep(SETTLE_SECONDS)  # which is measured
                figures.take(watch.look(), before["idle"])
            console.print(f"{name}: {number + 1} of {repeats}", end="\r")
        watch.end()
    return summary(name, "in the virtual machine" if ground.l2tp else "native", figures, capture, allowed)


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "fault", "n", "p50 ms", "p99 ms", "max ms", "lost", "leaked", "reset p99 ms", "false", title="failover"
    )
    for row in rows:
        blackout = row["blackout_ms"]
        table.add_row(
            row["fault"],
            *map(str, (row["n"], blackout["p50"], blackout["p99"], blackout["max"], row["lost"], row["leaked"])),
            str(row["reset_ms"]["p99"]),
            str(row["false_switches"]),
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=list(FAULTS))
    given = parser.parse_args()
    ground = here(lab, os.environ.get("CHAIN_FIRST_EXIT"))
    share = os.environ.get("CHAIN_LAB_SHARE")
    with alone(place()), tempfile.TemporaryDirectory(dir=share) as folder:
        engine = Engine()
        remove_leftovers(Path(share or tempfile.gettempdir()), frozenset({"chain-yard", ground.site.project}))
        world = World(
            Path(folder), engine, with_l2tp=ground.l2tp, with_xray=ground.xray, site=ground.site, with_names=True
        )
        world.build()
        try:
            world.start()
            chain = two_exits(world, ground, {"failover": SETTINGS, "groups": GROUPS})
            try:
                chain.up()
                chain.connect("phone")
                chain.answered()
                providers = {"paris": ground.preferred, "oslo": world.site.wireguard2}
                rows = [measure(name, given.repeats, chain, providers, ground) for name in given.faults]
            finally:
                chain.run("down", check=False)
        finally:
            world.stop()
    show(rows)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"faults": rows}, indent=2) + "\n")


# An exit that was broken is not used again before the other one is.
GROUPS = {"default": {"exits": ["paris", "oslo"], "fail_back": "never"}}

if __name__ == "__main__":
    main()
