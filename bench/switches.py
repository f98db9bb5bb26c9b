"""Switches, drains and goes back while clients send, and counts what they lose: packets, order, new flows.

One stream each way, by iperf3, and 200 new flows a second, through tunnels; forwarding.py has more packets and no
tunnels. Beside it the same for as long without any switch, and in the end an exit killed: a count that stays at nothing
there counts nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "providers"), str(CHECKOUT / "tests" / "scenarios")]

from failover import Entry, delayed_chain  # noqa: E402 - the folders are put on the path above
from gaps import Stopwatch, lost_of  # noqa: E402
from ground import NATIVE  # noqa: E402
from leftovers import alone, place, remove_leftovers  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scene import new_token  # noqa: E402
from world import World, docker, eventually  # noqa: E402

from chain.engine.connection import Engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scene import Chain

SIZE = 200  # bytes of a packet of the stream
FLOWS = 200  # a second
PAUSE = 0.2  # seconds after each order, in which flows begin
STREAM, RATE = 100, 1000  # packets a second of the flows' own program, beside iperf3 and alone
# Orders as the entry takes them, and the exit that is used then. `chain switch` would take both processors besides.
STEPS: tuple[tuple[str, dict[str, str | None], str], ...] = (
    ("switch", {"group": "default", "exit": "oslo"}, "oslo"),
    ("switch", {"group": "default", "exit": "paris"}, "paris"),
    ("switch", {"group": "default", "exit": None}, "paris"),  # by policy again, which leaves what is good
    ("drain", {"exit": "paris"}, "oslo"),
    ("undrain", {"exit": "paris"}, "oslo"),
    ("switch", {"group": "default", "exit": "paris"}, "paris"),
    ("switch", {"group": "default", "exit": None}, "paris"),
)

console = Console(highlight=False)


@dataclass
class Count:
    """What clients sent while something was done, and what came of it."""

    title: str
    done: int = 0
    packets: int = 0
    lost: int = 0
    reordered: int = 0
    flows: int = 0
    failed_flows: int = 0
    longest_gap: float = 0.0


@contextmanager
def stream(world: World, rate: int, seconds: int) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Send that many packets a second each way for so long; what is given waits for the end, and says what arrived."""
    with world.background("internet", "iperf3", "--server", "--json"):
        eventually(lambda: ":5201" in world.exec("internet", "ss", "-Hltn"), 30, "the receiver listens")
        arguments = ("-u", "--bidir", "-l", str(SIZE), "-b", str(rate * SIZE * 8), "-t", str(seconds))
        command = ("iperf3", "-c", world.site.internet_host, *arguments, "--json", "--get-server-output")
        process = subprocess.Popen(
            ["docker", "exec", world.container("client"), *command], stdout=subprocess.PIPE, text=True
        )

        def end() -> list[dict[str, Any]]:
            said, _ = process.communicate(timeout=seconds + 60)
            found = json.loads(said)
            if "error" in found:
                raise SystemExit(f"iperf3: {found['error']}")
            # Each end counts what it receives.
            return [_received(found), _received(found["server_output_json"])]

        yield end


def _received(found: dict[str, Any]) -> dict[str, Any]:
    """Give what one end says of the stream that it received."""
    return next(each["udp"] for each in found["end"]["streams"] if not each["udp"]["sender"])


def under_traffic(chain: Chain, rate: int, seconds: int, count: Count, act: Callable[[Count, float], None]) -> Count:
    """Do something for so long under traffic; give what was lost."""
    with Stopwatch.of(chain.world, new_token(), STREAM, 0, FLOWS) as watch, stream(chain.world, rate, seconds) as end:
        time.sleep(2)  # of traffic alone, at which the stream gets under way
        watch.look()
        act(count, time.monotonic() + seconds - 12)  # the last round takes some
        time.sleep(1)  # for the last flows' answers
        look = watch.look()
        for received in end():
            count.packets += received["packets"]
            count.lost += received["lost_packets"]
            count.reordered += received["out_of_order"]
    return with_flows(count, look)


def with_traffic(count: Count, look: dict[str, Any]) -> Count:
    """Add what the client's own program saw of its stream and flows."""
    stream = look["stream"]
    count.packets, count.reordered, count.lost = stream["sent"], stream["late"], lost_of(stream)
    return with_flows(count, look)


def with_flows(count: Count, look: dict[str, Any]) -> Count:
    """Add what the client's own program saw of its flows, and the longest gap."""
    # Two flows by two exits may be answered in another order than they began in.
    count.flows, count.failed_flows = look["flows"]["sent"], lost_of(look["flows"])
    count.longest_gap = max((gap["until"] - gap["from"] for gap in look["stream"]["gaps"]), default=0.0)
    return count


def killed(chain: Chain, entry: Entry) -> Count:
    """Kill the exit that is used, as a control: by that program alone, since iperf3's own connection would be ended."""
    count = Count("an exit killed", done=1)
    used = eventually(lambda: entry.all_is_well(None), 60, "both exits are good")
    with Stopwatch.of(chain.world, new_token(), RATE, 0, FLOWS) as watch:
        time.sleep(1)  # of traffic alone
        watch.look()
        docker("kill", chain.container(f"exit-{used}"))
        time.sleep(5)  # in which it is answered again
        look = watch.look()
    return with_traffic(count, look)


def nothing(_: Count, until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))


def steps(entry: Entry) -> Callable[[Count, float], None]:
    """Do all steps again and again; the last of them leave nothing pinned or drained."""

    def act(count: Count, until: float) -> None:
        while time.monotonic() < until:
            for verb, fields, exit_ in STEPS:
                follow(entry, verb, fields, exit_)
                count.done += 1
                time.sleep(PAUSE)

    return act


def follow(entry: Entry, verb: str, fields: dict[str, str | None], exit_: str) -> None:
    entry.order(verb, **fields)
    eventually(partial(uses, entry, exit_), 30, f"{exit_} is used")


def uses(entry: Entry, exit_: str) -> bool:
    return entry.used() == exit_


def show(counts: list[Count], rate: int) -> None:
    table = Table(title=f"{rate} packets a second each way, {FLOWS} new flows a second", title_justify="left")
    for column in ("", "times", "packets", "lost", "reordered", "new flows", "failed", "longest gap, ms"):
        table.add_column(column, justify="right" if column else "left")
    for count in counts:
        figures = (count.done, count.packets, count.lost, count.reordered, count.flows)
        table.add_row(count.title, *map(str, (*figures, count.failed_flows, round(count.longest_gap))))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of switching, and of nothing")
    parser.add_argument("--rate", type=int, default=2_000, help="packets a second each way")
    given = parser.parse_args()
    with alone(place()), tempfile.TemporaryDirectory() as folder:
        remove_leftovers(Path(tempfile.gettempdir()), frozenset({"chain-yard", NATIVE.site.project}))
        world = World(Path(folder), Engine(), site=NATIVE.site)
        world.build()
        try:
            world.start()
            with delayed_chain(world, NATIVE, 0) as chain, Entry(chain) as entry:
                eventually(lambda: entry.all_is_well(None), 60, "both exits are good")
                for verb, fields, exit_ in STEPS[1:3]:  # whichever came up first
                    follow(entry, verb, fields, exit_)
                rate, seconds = given.rate, given.seconds
                counts = [
                    under_traffic(chain, rate, seconds, Count("nothing"), nothing),
                    under_traffic(chain, rate, seconds, Count("switch, drain, back"), steps(entry)),
                    killed(chain, entry),
                ]
        finally:
            world.stop()
    show(counts, given.rate)
    if not counts[-1].lost:
        raise SystemExit("not even a killed exit cost a packet: nothing is counted here")


if __name__ == "__main__":
    main()
