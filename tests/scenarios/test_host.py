"""The engine's host: its restarts, and its settings that containers inherit, on a host of the tests' own."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from world import INTERNET_HOST, docker, eventually, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground
    from scene import Chain
    from world import World

# `l2tp` keeps them in the virtual machine, whose host nobody else uses.
pytestmark = [pytest.mark.docker, pytest.mark.l2tp, pytest.mark.long, pytest.mark.rare]

VM = Path(__file__).resolve().parents[1] / "lab" / "vm.sh"
RP_FILTER = ("net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter")
RESOLVERS = {"ordinary": "198.18.0.53", "loopback": "127.0.0.53"}


def carries(chain: Chain, world: World, ground: Ground) -> None:
    """Start the chain anew, and see UDP, TCP, ICMP and DNS of a client pass by the preferred exit."""
    chain.down()
    chain.up()
    dress(chain, world)
    eventually(lambda: chain.is_open("paris"), 120 * ground.patience, "paris is open")
    eventually(lambda: chain.answered()["seen"] == ground.preferred.outside, 120 * ground.patience, "it is used")
    body = world.exec("client", "curl", "-sS", "-m", "60", f"http://{INTERNET_HOST}/").strip()
    assert body == ground.preferred.outside
    world.exec("client", "ping", "-c", "3", "-W", "10", INTERNET_HOST)
    names = json.loads(world.exec("client", "python3", "client.py", "dns", "10.13.13.1", "a.example"))
    assert names == [INTERNET_HOST, ground.preferred.outside]


def dress(chain: Chain, world: World) -> None:
    """Give the client its configuration; its container may have been started anew."""
    config = json.loads(chain.run("client", "show", "phone", "--json").stdout)["config"]
    world.exec("client", "python3", "client.py", "up", stdin=config)
    chain.knock()


@pytest.fixture
def host(world: World) -> Iterator[Callable[..., str]]:
    """Give a way to run a command on the engine's host; its settings are brought back."""

    def run(*command: str, stdin: str | None = None) -> str:
        return world.exec("observer", "nsenter", "-t", "1", "-m", "-n", *command, stdin=stdin)

    before = {key: run("sysctl", "-n", key).strip() for key in RP_FILTER}
    resolvers = run("cat", "/etc/resolv.conf")
    yield run
    for key, value in before.items():
        run("sysctl", "-q", "-w", f"{key}={value}")
    run("tee", "/etc/resolv.conf", stdin=resolvers)


@pytest.mark.parametrize("value", ["0", "1", "2"])
def test_whatever_the_hosts_rp_filter(
    chain: Chain, world: World, ground: Ground, host: Callable[..., str], value: str
) -> None:
    for key in RP_FILTER:
        host("sysctl", "-q", "-w", f"{key}={value}")
    carries(chain, world, ground)


@pytest.mark.parametrize("kind", RESOLVERS)
def test_whatever_the_hosts_resolver(
    chain: Chain, world: World, ground: Ground, host: Callable[..., str], kind: str
) -> None:
    host("tee", "/etc/resolv.conf", stdin=f"nameserver {RESOLVERS[kind]}\n")
    asked = f"{name_of(ground.preferred)}"
    before = world.logs("names").count(asked)
    carries(chain, world, ground)
    assert world.logs("names").count(asked) > before


def test_engine_and_host_come_back(
    chain: Chain, world: World, ground: Ground, tell: Callable[[str], None], host: Callable[..., str]
) -> None:
    chain.answered()
    status = chain.status()
    table = ["Seconds from when the engine answers again until traffic flows:"]
    for what in ("engine ended", "engine killed", "host reset"):
        if what == "host reset":
            subprocess.run([VM, "reset"], check=True, timeout=600)
        else:
            pid = host("pidof", "dockerd").strip()
            signal = "-KILL" if what == "engine killed" else "-TERM"
            # The command's own container may end before it does.
            docker("exec", world.container("observer"), "kill", signal, pid, check=False)
            eventually(lambda: not answers(), 60, "the engine is gone")
        eventually(answers, 240, "the engine answers")
        began = time.monotonic()
        # What stands around the chain is nobody's to start but ours. A host that was reset has files that end in zeros,
        # containers' logs among them, which Docker then can't read.
        world.start(anew=what == "host reset")
        around = time.monotonic()
        dress(chain, world)
        seen = chain.answered(seconds=300)["seen"]
        table.append(
            f"{what:16} {time.monotonic() - began:6.1f}, of which the world around it took {around - began:.1f}"
        )
        tell("\n".join(table))
        assert seen in (ground.preferred.outside, world.site.wireguard2.outside)
        eventually(lambda: chain.is_open("paris"), 120 * ground.patience, "paris is open")
    assert chain.status()["generation"] == status["generation"]
    assert json.loads(chain.run("up", "--json", "--wait", "240").stdout)["steps"] == []


def answers() -> bool:
    done = subprocess.run(["docker", "ps", "-q"], capture_output=True, check=False, timeout=60)
    return done.returncode == 0
