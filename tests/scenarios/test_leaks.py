"""Nothing leaks: tokens are sent by a client and pushed by a provider all the while, and looked for everywhere.

A run counts only when at least `ENOUGH` packets of a client reached the entry before an exit opened, the capture
dropped nothing, and the token was seen where it belongs: a capture that sees nothing proves nothing.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from scene import Capture, Chain, capturing, deaf_providers, downloading, new_token, pushing, streaming
from world import World, docker, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ground import Ground

pytestmark = [pytest.mark.docker, pytest.mark.long]

RESTART_SECONDS = 10  # longer than a container takes to come back: what arrives meanwhile must not get past it
ENOUGH = 20  # packets refused before an exit opened


@contextmanager
def watched(world: World, chain: Chain, ground: Ground) -> Iterator[tuple[Capture, set[str]]]:
    """Send, push and capture while the block runs; give the capture and the set of bridges that may show the token."""
    token = new_token()
    internet = docker("network", "inspect", "-f", "{{.Id}}", world.site.network("internet"))[:12]
    allowed = {f"br-{internet}"} | chain.link_bridges()
    targets = [next(exit_["tunnel_address"] for exit_ in chain.entry_status()["exits"] if exit_["name"] == "paris")]
    if not ground.l2tp:  # a PPP server has no route to what is behind its customer
        targets.append("10.13.13.2")
    with (
        capturing(world, token) as capture,
        pushing(world, ground.preferred.name, token, ground.rate // 4, *targets),
        downloading(world, token, ground.rate, RESTART_SECONDS * ground.patience),
        streaming(world, token, ground.rate),
    ):
        yield capture, allowed
    assert capture.dropped == 0, "the capture lost packets: this run proves nothing"
    assert capture.seen.get(f"br-{internet}"), "the capture did not see the token where it must be"


def repeats(ground: Ground) -> int:
    return int(os.environ.get("CHAIN_LEAK_REPEATS", ground.repeats))


def assert_no_leak(capture: Capture, allowed: set[str]) -> None:
    outside = capture.outside(allowed)
    assert not outside, f"leaked: {outside}\n{[capture.samples[place] for place in outside]}"


def wait_for_refused(chain: Chain, above: int) -> None:
    eventually(lambda: chain.refused() >= above, 120, f"{above} packets of clients refused")


def test_cold_starts(world: World, chain: Chain, ground: Ground) -> None:
    with watched(world, chain, ground) as (capture, allowed):
        for _ in range(repeats(ground)):
            chain.down()
            with deaf_providers(world):
                starting = chain.start("up", "--wait", "240")
                chain.knock()
                wait_for_refused(chain, ENOUGH)
            output, _ = starting.communicate(timeout=300)
            assert starting.returncode == 0, output
            chain.answered()
            allowed.update(chain.link_bridges())
    assert_no_leak(capture, allowed)


@pytest.mark.parametrize("how", ["kill", "compose restart"])
def test_exit_goes_and_comes(world: World, chain: Chain, ground: Ground, how: str) -> None:
    with watched(world, chain, ground) as (capture, allowed):
        for number in range(repeats(ground)):
            # Only one exit is left, so that the client's packets have nowhere to go while it is away.
            with chain.silenced("oslo"):
                eventually(lambda: not _open(chain, "oslo"), 60, "oslo is closed")
                chain.answered()
                before = chain.refused()
                _end(chain, "exit-paris", how, by_policy=number % 5 == 0)
                eventually(lambda: _open(chain, "paris"), 240, "paris is open again")
                assert chain.refused() - before >= ENOUGH
                chain.answered()
    assert_no_leak(capture, allowed)


@pytest.mark.parametrize("how", ["kill", "compose restart"])
def test_entry_goes_and_comes(world: World, chain: Chain, ground: Ground, how: str) -> None:
    with watched(world, chain, ground) as (capture, allowed):
        for number in range(repeats(ground)):
            with chain.silenced("oslo"), chain.silenced("paris"):
                _end(chain, "entry", how, by_policy=number % 5 == 0)
                eventually(chain.entry_status, 120, "the entry is back")
                chain.knock()
                wait_for_refused(chain, ENOUGH)
            chain.answered()
    assert_no_leak(capture, allowed)


def _open(chain: Chain, name: str) -> bool:
    return any(exit_["name"] == name and exit_["open"] for exit_ in chain.entry_status().get("exits", ()))


def _end(chain: Chain, service: str, how: str, *, by_policy: bool) -> None:
    """End a container and have it back, by its restart policy or, quicker, by hand."""
    if how == "compose restart":
        docker("compose", "-f", str(chain.folder / "run" / "compose.yaml"), "restart", "-t", "1", service)
    elif by_policy:
        chain.kill(service)
    else:
        docker("kill", "-s", "KILL", chain.container(service))
        docker("start", chain.container(service))


BARRIERS = ("lock", "peers", "mac", "forwarding")
CONTROL_RESTARTS = 3


def overlay(chain: Chain, removed: set[str]) -> str:
    """Write a Compose file that takes barriers away from a rendered chain; give its path."""
    folder = chain.folder / "sabotage"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text((Path(__file__).parent / "sabotage" / "sitecustomize.py").read_text())
    service = {
        "environment": {"SABOTAGE": ",".join(sorted(removed)), "PYTHONPATH": "/opt/sabotage:/opt/chain"},
        "volumes": [f"{folder}:/opt/sabotage:ro"],
        "sysctls": {"net.ipv4.ip_forward": "1" if "forwarding" in removed else "0"},
    }
    file = chain.folder / "sabotage.yaml"
    file.write_text(yaml.safe_dump({"services": dict.fromkeys(("entry", "exit-paris", "exit-oslo"), service)}))
    return str(file)


def leaked_through(world: World, chain: Chain, ground: Ground, kept: set[str]) -> dict[str, int]:
    """Count tokens outside while only `kept` barriers stand, through restarts of exit and entry."""
    rendered = str(chain.folder / "run" / "compose.yaml")
    files = ["-f", rendered, "-f", overlay(chain, set(BARRIERS) - kept)]
    docker("compose", *files, "up", "-d", "--quiet-pull")
    chain.knock()
    chain.answered()
    counts = {}
    for service in ("exit-paris", "entry"):
        with watched(world, chain, ground) as (capture, allowed):
            for _ in range(min(CONTROL_RESTARTS, repeats(ground))):
                docker("compose", *files, "restart", "-t", "1", service)
                chain.knock()
                chain.answered()
        counts[service] = sum(capture.outside(allowed).values())
    return counts


def test_positive_control_and_what_each_barrier_does(
    world: World, chain: Chain, ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    cases: list[set[str]] = [set(), *({barrier} for barrier in BARRIERS), set(BARRIERS)]
    if ground.patience > 1:  # emulation: the runtime is the same code, and each case takes minutes there
        cases = [set(), set(BARRIERS)]
    try:
        table = {tuple(sorted(kept)): leaked_through(world, chain, ground, kept) for kept in cases}
    finally:
        chain.up()
        chain.knock()
    # `up` makes anew what somebody started with an override file.
    for service in ("entry", "exit-paris", "exit-oslo"):
        assert "SABOTAGE" not in docker("inspect", "-f", "{{.Config.Env}}", chain.container(service))
    lines = [
        "",
        f"Tokens outside a tunnel, {min(CONTROL_RESTARTS, repeats(ground))} restarts each:",
        f"{'barriers kept':20} exit  entry",
    ]
    for kept, counts in table.items():
        name = "none" if not kept else "all" if len(kept) == len(BARRIERS) else f"{kept[0]} alone"
        lines.append(f"{name:20} {counts['exit-paris']:4}  {counts['entry']:5}")
    with capsys.disabled():
        sys.stdout.write("\n".join(lines) + "\n")
    assert table[()]["exit-paris"] > 0, "without barriers nothing was seen: this test can't see a leak"
    assert table[()]["entry"] > 0, "without barriers nothing was seen: this test can't see a leak"
    assert sum(table[tuple(sorted(BARRIERS))].values()) == 0
