"""Restarts the entry under a thousand clients, and measures how soon all are answered again.

Docker's part ends when the entry's process runs; ours, when the last client was answered. The clients are played by one
program on the same machine, whose own share of the processors is shown beside the entry's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "providers"), str(CHECKOUT / "tests" / "scenarios")]

from crowds import PROGRAMS, SOURCES, Crowd, admit, members, restart_entry  # noqa: E402 - found by the path above
from ground import NATIVE  # noqa: E402
from leftovers import alone, place, remove_leftovers  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scene import from_afar, two_exits  # noqa: E402
from world import World  # noqa: E402

from chain.engine.connection import Engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from crowds import Restart

INTERVAL = 1.0  # seconds between two questions of a client

console = Console(highlight=False)

ROWS: dict[str, Callable[[Restart], float]] = {
    "all are answered again": lambda found: found.total,
    "Docker's part": lambda found: found.started,
    "… of it the former entry's end": lambda found: found.ended,
    "ours": lambda found: found.ours,
    "… until the first client has keys": lambda found: found.sessions[0] - found.started,
    "… until half of them have": lambda found: found.sessions[len(found.sessions) // 2] - found.started,
    "… until all have": lambda found: found.sessions[-1] - found.started,
    "… until the first is answered": lambda found: found.back[0] - found.started,
    "… until half of them are": lambda found: found.back[len(found.back) // 2] - found.started,
    **{
        f"processors: {name}": lambda found, name=name: found.processors.get(name, 0.0)  # type: ignore[misc]
        for name in (*PROGRAMS, "the crowd")
    },
    "clients called by the entry": lambda found: found.called,
    "… asked for a proof of their address": lambda found: found.cookies,
    "clients that noticed by themselves": lambda found: found.silences,
}


def show(clients: int, runs: list[Restart]) -> None:
    table = Table(title=f"{len(runs)} restarts under {clients} clients, in ms", title_justify="left")
    for column in ("since the restart was asked for; ours, since the process runs", "median", "lowest", "highest"):
        table.add_column(column, justify="right" if table.columns else "left")
    for name, figure in ROWS.items():
        values = [figure(found) for found in runs]
        table.add_row(name, *(f"{value:.0f}" for value in (statistics.median(values), min(values), max(values))))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--clients", type=int, default=1000)
    given = parser.parse_args()
    with alone(place()), tempfile.TemporaryDirectory() as folder:
        engine = Engine()
        remove_leftovers(Path(tempfile.gettempdir()), frozenset({"chain-yard", NATIVE.site.project}))
        world = World(Path(folder), engine, site=NATIVE.site, with_names=True)
        world.build()
        chain = None
        try:
            world.start()
            chain, crowd = two_exits(world, NATIVE), members(given.clients)
            chain.run("render")  # makes the entry's key
            admit(chain, crowd, {"exits": list(chain.exits)})
            console.print(f"Bringing up a chain with {given.clients} clients …")
            chain.up()
            with (
                from_afar(world, "client", SOURCES),
                Crowd(chain, crowd, "client", interval=INTERVAL, begin_within=4.0) as begun,
            ):
                begun.all_are("answered", 60)
                runs: list[Restart] = []
                while len(runs) < given.repeats:
                    runs.append(restart_entry(chain, begun))
                    console.print(f"{len(runs)} of {given.repeats}: {runs[-1]}")
            show(given.clients, runs)
        finally:
            if chain is not None:
                chain.run("down", check=False)
            world.stop()


if __name__ == "__main__":
    main()
