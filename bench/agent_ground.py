"""One entry with many exits, in namespaces of its own, and what it takes; agent_cost.py runs it in a container.

Run as `python3 -c SOURCE`, and by itself as `python3 -c SOURCE report` for the exits' ends. The first line of standard
input says what there is to begin with, each further one what to do: a new state to apply, for how many seconds to
watch, or nothing, which asks for the status. Each is answered by a line of figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.contract import ExitReport, Link
from chain.node.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPACE = "exits"
PATIENCE = 120.0
BESIDE, TICKS = Path("/run/beside"), Path("/run/beside/ticks")
# Python imports this at its start. In the agent it keeps when exits were looked at, how long after the one before, how
# late that was, and how much the agent itself worked in between.
CLOCK = """
import sys
if "chain.agent" in sys.orig_argv:
    import time
    from chain.agent.watch import Watch
    tick, file, last = Watch.tick, open("/run/beside/ticks", "w", buffering=1), [time.monotonic(), 0.0]
    def timed(self, now, *rest):
        began = time.monotonic()
        late = began - self.wake if self.wake else 0.0
        if began - last[0] > 0.001 or late > 0.001:
            file.write(f"{began:.4f} {began - last[0]:.4f} {late:.4f} {time.process_time() - last[1]:.4f}\\n")
        tick(self, now, *rest)
        last[:] = began, time.process_time()
    Watch.tick = timed
"""


def ip(*lines: str, space: str = "") -> None:
    where = ("-netns", space) if space else ()
    subprocess.run(["ip", *where, "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)


def eventually(check: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := check()):
        if time.monotonic() > end:
            raise SystemExit(f"not within {PATIENCE:g} s: {what}")
        time.sleep(0.1)
    return found


def lay_links(state: dict[str, Any]) -> None:
    """Put all exits' ends of the links into one namespace, where each also has somebody to be asked for."""
    subprocess.run(["ip", "netns", "add", SPACE], check=True)
    front = state["front"]
    here = [
        f"link add front0 type veth peer name front0 netns {SPACE}",
        f"address add {front['address']}/24 dev front0",
        "link set front0 up",
    ]
    there = ["link set lo up", "link set front0 up"]
    for number, exit_ in enumerate(state["exits"]):
        link, near = exit_["link"], near_of(number)
        name, length = f"link{number}", link["subnet"].partition("/")[2]
        here += [
            f"link add {name} type veth peer name {name} netns {SPACE}",
            f"address add {link['sender_address']}/{length} dev {name}",
            f"link set {name} up",
        ]
        there += [
            f"link set {name} address {link['exit_mac']}",
            f"address add {link['exit_address']}/{length} dev {name}",
            f"address add {near}/32 dev lo",
            f"link set {name} up",
            f"neighbour replace {link['sender_address']} lladdr {link['sender_mac']} dev {name} nud permanent",
            f"rule add from {near} lookup {2000 + number}",
            f"route add default via {link['sender_address']} dev {name} table {2000 + number}",
        ]
    ip(*here)
    for file in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
        file.write_text("0")
    ip(*there, space=SPACE)


def near_of(number: int) -> str:
    return f"10.66.{number // 250}.{number % 250 + 1}"


async def report() -> None:
    """Report for all exits, from one process, with the reporters that theirs have."""
    since = time.time()

    def reporter(number: int, exit_: dict[str, Any]) -> Reporter:
        told = ExitReport(
            exit_["name"],
            "up",
            since,
            "the tunnel carries",
            tunnel_address="10.8.0.2",
            near=(near_of(number),),
            latency_ms=20.0,
            rx_bytes=123456789,
            tx_bytes=123456789,
        )
        return Reporter(Link(**exit_["link"]), lambda: told, lambda _: None, lambda _: None, who="the entry")

    await asyncio.gather(*(reporter(*each).run() for each in enumerate(json.load(sys.stdin))))


def write(question: dict[str, Any]) -> None:
    for name, text in question["files"].items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def ask(verb: str) -> dict[str, Any]:
    done = subprocess.run(["chain-node", verb], capture_output=True, text=True, check=False)
    answer: dict[str, Any] = json.loads(done.stdout or "{}")
    return answer


def exits_open(reporting: subprocess.Popen[str]) -> int:
    if reporting.poll() is not None:
        raise SystemExit("the exits' reporters ended")
    return sum(exit_.get("open", False) for exit_ in ask("status").get("exits", ()))


def pid_of(words: str) -> int:
    """Find a program by the end of its command line; not a copy of it, which comes later."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().replace(b"\0", b" ").decode().strip().endswith(words):
                found.append(int(path.parent.name))
    return min(found)


def megabytes(pid: int) -> dict[str, float]:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"now": int(lines["VmRSS"].split()[0]) * 1.024e-3, "most": int(lines["VmHWM"].split()[0]) * 1.024e-3}


def weight() -> dict[str, dict[str, float]]:
    return {"agent": megabytes(pid_of("-m chain.agent")), "supervisor": megabytes(pid_of("-m chain.node run"))}


def lateness(since: float) -> dict[str, float]:
    """Give in milliseconds the longest time between two looks at any exit, the latest of those, and the most work."""
    rows = [[float(word) for word in line.split()] for line in TICKS.read_text().splitlines()]
    seen = [row for row in rows if len(row) == 4 and row[0] > since]
    return {
        name: max((row[column] for row in seen), default=0.0) * 1e3
        for column, name in enumerate(("gap", "late", "work"), start=1)
    }


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def traffic(exits: int) -> tuple[int, int]:
    """Give the bytes to all exits and from them, with their Ethernet headers."""
    folder = Path("/sys/class/net")
    sent, received = (
        sum(int((folder / f"link{number}" / "statistics" / f"{way}_bytes").read_text()) for number in range(exits))
        for way in ("tx", "rx")
    )
    return sent, received


def watched(seconds: float, exits: int) -> dict[str, float]:
    agent, began = pid_of("-m chain.agent"), time.monotonic()
    before, (sent, received) = cpu(agent), traffic(exits)
    time.sleep(seconds)
    took, (sent_then, received_then) = time.monotonic() - began, traffic(exits)
    return {
        "cpu": (cpu(agent) - before) / took,
        "sent": (sent_then - sent) / took / exits,
        "received": (received_then - received) / took / exits,
    } | lateness(began)


def shown() -> dict[str, Any]:
    began = time.monotonic()
    ask("status")
    return {"seconds": time.monotonic() - began, **lateness(began), **weight()}


def applied(question: dict[str, Any]) -> dict[str, Any]:
    write(question)
    began = time.monotonic()
    answer = ask("apply")
    if "error" in answer:
        raise SystemExit(f"apply: {answer['error']}")
    took = time.monotonic() - began
    time.sleep(1)  # what it began may still be going on
    return {"seconds": took, **lateness(began), **weight()}


@contextlib.contextmanager
def started(state: dict[str, Any]) -> Iterator[float]:
    """Run the exits' reporters and the entry; give the seconds until all exits are open."""
    (BESIDE / "sitecustomize.py").write_text(CLOCK)
    environment = os.environ | {"PYTHONPATH": f"{BESIDE}{os.pathsep}{os.environ['PYTHONPATH']}"}
    reports = ["ip", "netns", "exec", SPACE, "python3", "-c", sys.orig_argv[2], "report"]
    with (
        Path("/run/entry.log").open("w") as log,
        Path("/run/reports.log").open("w") as said,
        subprocess.Popen(reports, stdin=subprocess.PIPE, stderr=said, text=True) as reporting,
    ):
        if reporting.stdin is not None:
            reporting.stdin.write(json.dumps(state["exits"]))
            reporting.stdin.close()
        began = time.monotonic()
        entry = subprocess.Popen(["chain-node", "run"], stderr=log, env=environment)
        with entry:
            try:
                eventually(lambda: exits_open(reporting) == len(state["exits"]), "all exits are open")
                yield time.monotonic() - began
            except BaseException:
                for file in (log, said):
                    sys.stderr.write(Path(file.name).read_text()[-3000:])
                raise
            finally:
                entry.terminate()
                reporting.terminate()


def main() -> None:
    first = json.loads(sys.stdin.readline())
    BESIDE.mkdir()
    write(first)
    state = json.loads(first["files"]["/etc/chain/state.json"])
    lay_links(state)
    with started(state) as seconds:
        time.sleep(5)  # the first judgements are passed more often
        print(json.dumps({"seconds": seconds, **lateness(0.0), **weight()}), flush=True)
        for line in sys.stdin:
            question = json.loads(line)
            if "watch" in question:
                answer = watched(question["watch"], len(state["exits"]))
            else:
                answer = applied(question) if "files" in question else shown()
            print(json.dumps(answer), flush=True)


if sys.argv[1:] == ["report"]:
    asyncio.run(report())
else:
    main()
