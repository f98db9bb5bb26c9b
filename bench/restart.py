"""Restarts the entry under a thousand clients, and measures how soon all are answered again.

Docker's part ends when the server's process runs; the server's, when the last client was answered. The clients are
played by one program on the same machine, whose own share of the processors is shown beside the entry's. The baseline
is a bare wireguard-go in a container, restarted under the same clients, with the same keys and port.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "providers"), str(CHECKOUT / "tests" / "scenarios")]

import yaml  # noqa: E402
from crowds import (  # noqa: E402 - the folders are put on the path above
    PROGRAMS,
    SOURCES,
    SUBNET,
    Crowd,
    admit,
    members,
    restart,
    restart_entry,
)
from ground import NATIVE  # noqa: E402
from leftovers import alone, place, remove_leftovers  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scene import from_afar, two_exits  # noqa: E402
from world import World, docker  # noqa: E402

from chain.api import keys  # noqa: E402
from chain.api.project import write_atomic  # noqa: E402
from chain.engine import images  # noqa: E402
from chain.engine.connection import Engine  # noqa: E402
from chain.node import wireguard  # noqa: E402
from chain.secret import Secret  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crowds import Member, Restart
    from scene import Chain

INTERVAL = 1.0  # seconds between two questions of a client

console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)

ROWS: dict[str, Callable[[Restart], float]] = {
    "all are answered again": lambda found: found.total,
    "Docker's part": lambda found: found.started,
    "… of it the former process' end": lambda found: found.ended,
    "the server's": lambda found: found.ours,
    "… until the first client has keys": lambda found: found.sessions[0] - found.started,
    "… until half of them have": lambda found: found.sessions[len(found.sessions) // 2] - found.started,
    "… until all have": lambda found: found.sessions[-1] - found.started,
    "… until the first is answered": lambda found: found.back[0] - found.started,
    "… until half of them are": lambda found: found.back[len(found.back) // 2] - found.started,
    **{
        f"processors: {name}": lambda found, name=name: found.processors.get(name, 0.0)  # type: ignore[misc]
        for name in (*PROGRAMS, "the crowd")
    },
    "clients called by the server": lambda found: found.called,
    "… asked for a proof of their address": lambda found: found.cookies,
    "clients that noticed by themselves": lambda found: found.silences,
}


BARE = "chain-test-bare"
BARE_SECONDS = 300.0  # it calls nobody, and of a thousand who call at once it hears few
BARE_CONFIG = "/bare.conf"
# All that a WireGuard server needs for these clients, where the kernel has none.
BARE_SERVER = f"""
trap 'exit 0' TERM
wireguard-go --foreground wg0 &
until wg setconf wg0 {BARE_CONFIG}; do sleep 0.01; done 2>/dev/null
ip address add {next(ip_network(SUBNET).hosts())}/22 dev wg0
ip link set wg0 mtu 1420 up
nft 'table ip bare {{ chain out {{ type nat hook postrouting priority 100; oifname != "wg0" masquerade; }}; }}'
wait
"""


@contextmanager
def bare(chain: Chain, crowd: list[Member]) -> Iterator[str]:
    """Run wireguard-go by itself with the keys and the port of an entry, which does not run; give the container."""
    key = (chain.folder / "secrets" / "entry_private_key").read_text().strip()
    port = yaml.safe_load(chain.file.read_text())["entry"]["port"]
    peers = (
        wireguard.peer(keys.public_key(Secret(member.private_key)), member.preshared_key, [f"{member.address}/32"])
        for member in crowd
    )
    file = chain.world.folder / "bare.conf"
    write_atomic(file, wireguard.config(key, port, 0, peers), 0o600)
    image = images.describe(["entry"])["entry"].name
    docker(
        *("create", "--name", BARE, "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun"),
        *("--sysctl", "net.ipv4.ip_forward=1", "-p", f"{port}:{port}/udp", "-v", f"{file}:{BARE_CONFIG}:ro"),
        *("--entrypoint", "sh", image, "-c", BARE_SERVER),
    )
    try:
        docker("network", "connect", chain.world.site.network("internet"), BARE)
        docker("start", BARE)
        yield BARE
    finally:
        docker("rm", "-f", BARE)


def show(clients: int, runs: list[Restart], baseline: list[Restart]) -> None:
    table = Table(
        title=f"{len(runs)} restarts of a chain's entry under {clients} clients, and {len(baseline)} of a bare"
        " wireguard-go, in ms",
        title_justify="left",
    )
    for column in ("since the restart was asked for; the server's, since its process runs", "entry: median", "lowest"):
        table.add_column(column, justify="right" if table.columns else "left")
    for column in ("highest", "bare: median", "lowest", "highest"):
        table.add_column(column, justify="right")
    for name, figure in ROWS.items():
        cells = []
        for values in ([figure(found) for found in runs], [figure(found) for found in baseline]):
            cells += [f"{value:.0f}" for value in (statistics.median(values), min(values), max(values))]
        table.add_row(name, *cells)
    console.print(table)
    medians = [statistics.median(found.ours for found in each) for each in (baseline, runs)]
    console.print(f"without Docker's part, all clients are back {medians[0] / medians[1]:.1f} times as soon")


def measured(repeats: int, what: str, once: Callable[[], Restart]) -> list[Restart]:
    runs: list[Restart] = []
    while len(runs) < repeats:
        runs.append(once())
        console.print(f"{what}, {len(runs)} of {repeats}: {runs[-1]}")
    return runs


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
            playing = partial(Crowd, chain, crowd, "client", interval=INTERVAL, begin_within=4.0)
            with from_afar(world, "client", SOURCES):
                with playing() as begun:
                    begun.all_are("answered", 60)
                    runs = measured(given.repeats, "entry", partial(restart_entry, chain, begun))
                chain.run("down")
                with bare(chain, crowd) as server, playing() as begun:
                    begun.all_are("answered", 60)
                    baseline = measured(given.repeats, "bare", partial(restart, world, server, begun, BARE_SECONDS))
            show(given.clients, runs, baseline)
        finally:
            if chain is not None:
                chain.run("down", check=False)
            world.stop()


if __name__ == "__main__":
    main()
