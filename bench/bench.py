"""Measures what users wait for and what a chain takes, each figure beside a baseline from the same run.

`bench.py [PART…]` runs some parts, or all of them. The last one starts the virtual machine where the kernel has no
L2TP.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Self

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "providers")]

import demo  # noqa: E402 - the test ground's own folder is put on the path above
import yaml  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from world import DEMO, UNANSWERED, World, docker  # noqa: E402

from chain.api import keys  # noqa: E402
from chain.engine.connection import Engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PYTHON = sys.executable
CHAIN = str(Path(PYTHON).parent / "chain")
RUNS, SAMPLES = 10, 5
EXITS, CLIENTS = 100, 10_000
QUESTIONS = 200  # of each run
PATIENCE = 60.0  # seconds that a client may wait for its first byte

# Run in the world's client: starts handshakes until the entry is there, and sends until one packet comes back.
FIRST_BYTE = """
import client, socket, sys, time
host, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.settimeout(0.02)
print("ready", flush=True)
again = 0.0
while time.monotonic() < end:
    if time.monotonic() > again:
        client.again()
        again = time.monotonic() + 0.5
    try:
        channel.sendto(b"bench answered? ", (host, 7))
        channel.recv(2048)
        sys.exit()
    except OSError:
        time.sleep(0.02)
sys.exit("no answer")
"""

# Run in the world's client: asks again and again for a name that the resolver knows since the first question.
CACHE_HITS = """
import socket, statistics, struct, sys, time
question = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\\6signed\\0" + struct.pack("!HH", 1, 1)
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.settimeout(10)
channel.connect((sys.argv[1], 53))
found = []
for _ in range(int(sys.argv[2]) + 1):
    began = time.perf_counter()
    channel.send(question)
    answer = channel.recv(2048)
    found.append(time.perf_counter() - began)
    if answer[3] & 15 or not answer[7]:
        sys.exit("no answer")
print(statistics.median(found[1:]) * 1e3)
"""

console = Console(highlight=False)


def timed(command: list[str], *, check: bool = True) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def alternate(runs: int, things: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure several things in turn, so that what else the machine does falls on all of them."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(runs):
        for name, measure in things.items():
            found[name].append(measure())
    return found


def show(title: str, found: Mapping[str, list[float]], unit: str = "s", target: str = "") -> None:
    """Print medians and ratios; the first of them is what the others are compared with."""
    table = Table(title=f"{title}{target and f' (target: {target})'}", title_justify="left")
    for column in ("what", f"median, {unit}", "lowest", "highest", "ratio", "beyond the first"):
        table.add_column(column, justify="left" if column == "what" else "right")
    base = statistics.median(next(iter(found.values())))
    for name, values in found.items():
        median = statistics.median(values)
        figures = (median, min(values), max(values), median / base, median - base)
        table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    console.print(table)


def measure_help() -> None:
    """Start the command, and what it can't do without."""
    commands = {
        "python -c pass": [PYTHON, "-c", "pass"],
        "python -c 'import typer'": [PYTHON, "-c", "import typer"],
        "chain --help": [CHAIN, "--help"],
    }
    things = {name: (lambda command=command: timed(command)) for name, command in commands.items()}
    show("Start of the command", alternate(2 * RUNS, things), target="chain --help below 0.30 s")


def large_config() -> dict[str, object]:
    first = IPv4Address("10.64.0.2")
    key = keys.public_key(keys.new_private_key())
    exits = {
        f"exit{number}": {
            "kind": "wireguard",
            "endpoint": f"203.0.113.{number}:51820",
            "public_key": key,
            "address": f"10.66.0.{number}/32",
        }
        for number in range(EXITS)
    }
    clients = {
        f"client{number}": {
            "address": str(first + number),
            "public_key": keys.public_key(keys.new_private_key()),
        }
        for number in range(CLIENTS)
    }
    return {"entry": {"endpoint": "vpn.example.org", "subnet": "10.64.0.0/16"}, "exits": exits, "clients": clients}


def measure_render() -> None:
    """Render a large chain, beside reading its YAML and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "chain.yaml")
        file.write_text(yaml.safe_dump(large_config(), sort_keys=False))
        read = "import sys, yaml; yaml.load(open(sys.argv[1]), yaml.CSafeLoader)"

        def rendered() -> float:
            shutil.rmtree(file.parent / "run", ignore_errors=True)
            return timed([CHAIN, "render", "-f", str(file)])

        things = {
            "yaml.load of its chain.yaml": lambda: timed([PYTHON, "-c", read, str(file)]),
            "chain render": rendered,
        }
        show(f"Rendering {EXITS} exits and {CLIENTS} clients", alternate(RUNS, things), target="below 1 s")


class Bench:
    """A chain with one exit in the demo's world, under a name of its own, and one client in front of it."""

    def __init__(self, plan: demo.Plan, ground: demo.Ground) -> None:
        self.plan = plan
        l2tp = plan.kind == demo.L2TP.kind
        self.world = World(
            ground.world,
            Engine(),
            clients=(plan.client,),
            site=DEMO,
            with_observer=False,
            with_l2tp=l2tp,
            with_wireguard=not l2tp,
        )
        self.chain = demo.Chain(plan, ground, self.world)

    def __enter__(self) -> Self:
        """Start the world and the chain once, so that all images are there, and connect the client."""
        if docker("ps", "-aq", "--filter", f"name=^{DEMO.name}-"):
            raise SystemExit("a demo runs, whose networks this would use: `make demo-down` removes it")
        console.print(f"Starting a {self.plan.title} provider, an internet, a client and a chain …")
        self.world.build()
        self.world.start()
        self.chain.write_project()
        self.run("up")
        self.chain.connect()
        self.first_byte(self.up())
        return self

    def __exit__(self, *_: object) -> None:
        self.run("down")
        self.world.stop()
        shutil.rmtree(self.chain.ground.folder)

    def run(self, *arguments: str) -> None:
        subprocess.run(
            [CHAIN, *arguments, "-f", str(self.chain.project.file)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def first_byte(self, command: list[str]) -> float:
        """Run a command that starts the chain; give the seconds from there to the client's first answer."""
        waiting = subprocess.Popen(
            [
                *("docker", "exec", self.world.container(self.plan.client), "python3", "-c", FIRST_BYTE),
                *(DEMO.internet_host, str(PATIENCE)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        with waiting:
            if waiting.stdout is None or waiting.stdout.readline() != "ready\n":
                raise SystemExit("the client does not run")
            began = time.perf_counter()
            starting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            failed = waiting.wait()
            took = time.perf_counter() - began
        if starting.wait() or failed:
            raise SystemExit(f"{' '.join(command)} ended with {starting.returncode}, the client with {failed}")
        return took

    def up(self) -> list[str]:
        return [CHAIN, "up", "-f", str(self.chain.project.file)]

    def pss(self, service: str) -> dict[str, float]:
        """Give the megabytes of each program in a container; what programs share counts once, in parts."""
        processes = [
            line.split(maxsplit=1)
            for line in docker("top", self.chain.container(service), "-eo", "pid,comm").splitlines()[1:]
        ]
        # Read by a container, since the engine need not be this machine's.
        privileged = ("--rm", "--privileged", "--pid", "host", "--network", "none", "--entrypoint", "grep")
        image = self.world.wanted_images()[0].name
        files = [f"/proc/{pid}/smaps_rollup" for pid, _ in processes]
        text = docker("run", *privileged, image, "-h", "^Pss:", *files)
        found: dict[str, float] = defaultdict(float)
        for (_, name), line in zip(processes, text.splitlines(), strict=True):
            found[name] += int(line.split()[1]) * 1.024e-3
        return found

    def cgroup(self, service: str) -> float:
        """Give the megabytes that the engine counts for a container, as its limit does."""
        text = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", self.chain.container(service)).split()[0]
        number = text.rstrip("BKMGiTkb")
        return (
            float(number) * {"": 1e-6, "K": 1.024e-3, "M": 1.048576, "G": 1073.741824}[text[len(number) :][:-2].upper()]
        )


def measure_up(bench: Bench) -> None:
    """Start the chain from built images, by `chain up` and by plain Compose from the same rendered files."""

    def started(command: list[str]) -> float:
        bench.run("down")
        if "compose" not in command:
            shutil.rmtree(bench.chain.project.run)  # so that all is to be written, as at the first start
        return bench.first_byte(command)

    compose = ["docker", "compose", "-f", str(bench.chain.project.run / "compose.yaml"), "up", "-d"]
    things = {"docker compose up -d": lambda: started(compose), "chain up": lambda: started(bench.up())}
    show("From the command to a client's first byte", alternate(RUNS, things), target="less than 1 s beyond Compose")


def measure_memory(bench: Bench) -> None:
    """Weigh the containers while they run; the resolver is a process of its own."""
    targets = {"entry": "all 75 MB, without the resolver 60 MB", f"exit-{demo.L2TP.exit}": "all 50 MB"}
    for service in (f"exit-{bench.plan.exit}", "entry"):
        programs = [bench.pss(service) for _ in range(SAMPLES)]
        found = {"all its programs": [sum(sample.values()) for sample in programs]}
        if any("unbound" in sample for sample in programs):
            found["without the resolver"] = [
                sum(size for name, size in sample.items() if name != "unbound") for sample in programs
            ]
        found["its control group"] = [bench.cgroup(service)]
        found |= {f"  {name}": [sample[name] for sample in programs] for name in sorted(programs[0])}
        title = f"Memory of {service}, {bench.plan.title}"
        show(title, found, unit="MB (PSS)", target=targets.get(service, ""))


def measure_dns(bench: Bench) -> None:
    """Ask for a name that the resolver knows, over the tunnel, beside a ping to the same address.

    One after the other without a pause, in which the machine would turn to other things: that is another figure.
    """
    resolver = bench.chain.loaded.topology.state.address.partition("/")[0]
    client = bench.plan.client

    def ping() -> float:
        text = bench.world.exec(client, "ping", "-n", "-A", "-c", str(QUESTIONS), resolver)
        return statistics.median(float(time_) for time_ in re.findall(r"time=([\d.]+)", text))

    def hit(server: str) -> float:
        return float(bench.world.exec(client, "python3", "-c", CACHE_HITS, server, str(QUESTIONS)))

    things = {
        "ping": ping,
        "a cached name": lambda: hit(resolver),
        "  asked of an address that is nobody's": lambda: hit(UNANSWERED),
    }
    title = f"From a client to the entry and back, medians of {QUESTIONS} without a pause"
    show(title, alternate(RUNS, things), unit="ms", target="a cached name below 1 ms")


def here() -> Bench:
    plan = demo.Plan("WireGuard", "bench", "paris", demo.WIREGUARD.kind, demo.WIREGUARD.client, 51832, "10.219.32.0/20")
    return Bench(plan, demo.Ground(demo.CACHE / "bench"))


def with_l2tp() -> Bench:
    """Stand on this machine's engine if its kernel has L2TP, else on the virtual machine's."""
    plan = demo.Plan("L2TP/IPsec", "bench", demo.L2TP.exit, demo.L2TP.kind, demo.L2TP.client, 51832, "10.219.32.0/20")
    engine = Engine()
    if not demo.lacking(engine):
        return Bench(plan, demo.Ground(demo.CACHE / "bench"))
    there = demo.start_vm(engine)
    os.environ["DOCKER_HOST"] = there.host
    os.environ.pop("DOCKER_CONTEXT", None)
    return Bench(plan, demo.Ground(there.folder.with_name("bench"), there.host, there.patience))


PARTS: dict[str, Callable[[], None]] = {"help": measure_help, "render": measure_render}
PARTS_HERE: dict[str, Callable[[Bench], None]] = {"up": measure_up, "memory": measure_memory, "dns": measure_dns}
PARTS_WITH_L2TP: dict[str, Callable[[Bench], None]] = {"memory-l2tp": measure_memory}


def main() -> None:
    known = [*PARTS, *PARTS_HERE, *PARTS_WITH_L2TP]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(known))
    wanted = parser.parse_args().parts or known
    if unknown := set(wanted) - set(known):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for part in wanted:
        if part in PARTS:
            PARTS[part]()
    for start, parts in ((here, PARTS_HERE), (with_l2tp, PARTS_WITH_L2TP)):
        if chosen := [part for part in parts if part in wanted]:
            with start() as bench:
                for part in chosen:
                    parts[part](bench)


if __name__ == "__main__":
    main()
