"""What the entry's agent takes, and for how long it looks at no exit while a new state is applied.

The real supervisor and agent run from the entry's image, in a container without a network that is their own; exits are
ends of links in a namespace beside it, which report and answer as real ones do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from rich.console import Console  # noqa: E402 - the package is put on the path above
from rich.table import Table  # noqa: E402

from chain import topology  # noqa: E402
from chain.api import keys  # noqa: E402
from chain.cli import Terminal  # noqa: E402
from chain.config.models import Config  # noqa: E402
from chain.contract import to_json  # noqa: E402
from chain.engine import images  # noqa: E402
from chain.engine.connection import Engine  # noqa: E402
from chain.exits import REGISTRY  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chain.contract import DesiredState

MANY_EXITS, MANY_CLIENTS = 100, 10_000
FEW_EXITS, FEW_CLIENTS = 10, 10
APPLIES, IDLE_SECONDS = 5, 20.0
GROUND = Path(__file__).with_name("agent_ground.py")
STATE = "/etc/chain/state.json"

console = Console(highlight=False)


def state_with(exits: int, clients: int, *, weights: bool = False) -> DesiredState:
    """Make a state. `weights`: a balance, whose buckets are others than those of a list."""
    key = keys.public_key(keys.new_private_key())
    names = [f"exit{number}" for number in range(exits)]
    balance = {"policy": "balance", "weights": {name: 1 + (name == names[0]) for name in names}}
    config = {
        "entry": {"endpoint": "vpn.example.org", "subnet": "10.64.0.0/16"},
        "exits": {name: REGISTRY["l2tp"].settings.model_validate({"kind": "l2tp"}) for name in names},
        "groups": {"default": {"exits": names} | (balance if weights else {})},
        "clients": {
            f"client{number}": {"address": str(IPv4Address("10.64.0.2") + number), "public_key": key}
            for number in range(clients)
        },
    }
    return topology.build(Config.model_validate(config), REGISTRY).state


def with_keys(state: DesiredState, public: list[str]) -> DesiredState:
    """Give each client a key of its own; the configuration need not be checked with each of them."""
    clients = zip(state.clients, public, strict=False)
    return topology.sealed(replace(state, clients=tuple(replace(client, public_key=key) for client, key in clients)))


class Entry:
    """The container. What it is asked goes to agent_ground.py in there, and comes back from it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **question: Any) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("the container has no input or output")
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit("the entry failed")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def entry(image: str) -> Iterator[Entry]:
    sysctls = ("net.ipv4.ip_forward=0", "net.ipv4.ping_group_range=0 2147483647")
    folders = ("/run", "/etc/chain", "/var/lib/chain")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *("docker", "run", "--rm", "--interactive", "--init", "--privileged", "--network", "none"),
            *(word for each in sysctls for word in ("--sysctl", each)),
            *(word for each in folders for word in ("--tmpfs", each)),
            *("--cidfile", f"{folder}/id", "--entrypoint", "python3", image, "-c", GROUND.read_text()),
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield Entry(process)
            finally:
                with contextlib.suppress(OSError):
                    container = Path(folder, "id").read_text()
                    subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=False)


def files_of(state: DesiredState) -> dict[str, str]:
    found = {STATE: to_json(state), "/run/secrets/entry_private_key": keys.new_private_key().reveal()}
    return found | {f"/run/peers/{client.psk_file}": keys.new_private_key().reveal() for client in state.clients}


def show(title: str, rows: list[tuple[str, str, str]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("what", "measured", "wanted"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def megabytes(found: dict[str, float]) -> str:
    return f"{found['now']:.1f} MB, {found['most']:.1f} at most"


def held_up(found: dict[str, float]) -> str:
    return f"{found['late']:.0f} ms late, {found['gap']:.0f} between two, {found['work']:.0f} of work"


def measure_many(image: str, exits: int, clients: int, applies: int, seconds: float) -> None:
    console.print(f"Starting an entry with {exits} exits and {clients} clients …")
    public = [keys.public_key(keys.new_private_key()) for _ in range(clients + 1)]
    more, usual, balanced = (
        with_keys(state_with(exits, count, weights=weights), public)
        for count, weights in ((clients + 1, False), (clients, False), (clients, True))
    )
    with entry(image) as there:
        begun = there.ask(files=files_of(more) | {STATE: to_json(usual)})
        rows = [
            ("until all exits are open", f"{begun['seconds']:.1f} s", ""),
            ("the agent's memory then", megabytes(begun["agent"]), "60 MB"),
            ("a look at an exit meanwhile", held_up(begun), ""),
        ]
        rows.append(("a look at an exit, idle", held_up(there.ask(watch=seconds)), ""))
        found = [there.ask() for _ in range(applies)]
        worst = {key: max(each[key] for each in found) for key in ("late", "gap", "work", "seconds")}
        rows += [
            ("`status`", f"{worst['seconds']:.2f} s", ""),
            ("  a look at an exit meanwhile", held_up(worst), ""),
            ("  the agent's memory then", megabytes(found[-1]["agent"]), ""),
        ]
        for title, one, other in (("a client comes or goes", more, usual), ("a list, a balance", balanced, usual)):
            found = []
            for number in range(applies):
                console.print(f"Applying: {title}, {number + 1} of {applies} …")
                found.append(there.ask(files={STATE: to_json((one, other)[number % 2])}))
            worst = {key: max(each[key] for each in found) for key in ("late", "gap", "work", "seconds")}
            rows += [
                (f"{title}: `apply`", f"{worst['seconds']:.2f} s", ""),
                ("  a look at an exit meanwhile", held_up(worst), "50 ms late"),
                ("  the agent's memory then", megabytes(found[-1]["agent"]), "60 MB"),
                ("  the supervisor's", megabytes(found[-1]["supervisor"]), ""),
            ]
    show(f"{exits} exits and {clients} clients, the worst of {applies}", rows)


def measure_idle(image: str, seconds: float) -> None:
    console.print(f"Watching an idle entry with {FEW_EXITS} exits for {seconds:g} s …")
    state = with_keys(
        state_with(FEW_EXITS, FEW_CLIENTS), [keys.public_key(keys.new_private_key()) for _ in range(FEW_CLIENTS)]
    )
    with entry(image) as there:
        begun = there.ask(files=files_of(state))
        found = there.ask(watch=seconds)
    show(
        f"{FEW_EXITS} exits and {FEW_CLIENTS} clients that are idle, in {seconds:g} s",
        [
            ("the agent's memory", megabytes(begun["agent"]), ""),
            ("its share of a core", f"{found['cpu'] * 100:.1f} %", "2 %"),
            ("to each exit, with Ethernet headers", f"{found['sent']:.0f} B/s", "3000 B/s"),
            ("from each exit", f"{found['received']:.0f} B/s", "3000 B/s"),
            ("a look at an exit", held_up(found), ""),
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exits", type=int, default=MANY_EXITS)
    parser.add_argument("--clients", type=int, default=MANY_CLIENTS)
    parser.add_argument("--applies", type=int, default=APPLIES, help="of each kind")
    parser.add_argument("--seconds", type=float, default=IDLE_SECONDS, help="for which an idle one is watched")
    given = parser.parse_args()
    engine, terminal = Engine(), Terminal()
    image = images.describe(["entry"])["entry"]
    for each in images.missing(engine, [image]):
        with terminal.step(f"Building image {each.name}"):
            images.build(engine, each, terminal.detail)
    measure_many(image.name, given.exits, given.clients, given.applies, given.seconds)
    measure_idle(image.name, given.seconds)


if __name__ == "__main__":
    main()
