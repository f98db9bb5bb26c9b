"""Nothing leaks: tokens are sent by a client and pushed by a provider all the while, and looked for everywhere.

A run counts only when at least `ENOUGH` packets of a client reached the entry before an exit opened, the capture
dropped nothing, and the token was seen where it belongs: a capture that sees nothing proves nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from leaks import BARRIERS, ENOUGH, assert_no_leak, leaked_through, watched
from scene import Chain, deaf_providers
from world import World, docker, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from ground import Ground

pytestmark = [pytest.mark.docker, pytest.mark.long]


def repeats(ground: Ground) -> int:
    return int(os.environ.get("CHAIN_LEAK_REPEATS", ground.repeats))


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
                eventually(lambda: not chain.is_open("oslo"), 60, "oslo is closed")
                chain.answered()
                before = chain.refused()
                _end(chain, "exit-paris", how, by_policy=number % 5 == 0)
                eventually(lambda: chain.is_open("paris"), 240, "paris is open again")
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


def _end(chain: Chain, service: str, how: str, *, by_policy: bool) -> None:
    """End a container and have it back, by its restart policy or, quicker, by hand."""
    if how == "compose restart":
        docker("compose", "-f", str(chain.folder / "run" / "compose.yaml"), "restart", "-t", "1", service)
    elif by_policy:
        chain.kill(service)
    else:
        docker("kill", "-s", "KILL", chain.container(service))
        docker("start", chain.container(service))


def test_positive_control(world: World, chain: Chain, ground: Ground, tell: Callable[[str], None]) -> None:
    table = with_barriers([set(), set(BARRIERS)], world, chain, ground, tell)
    assert table[()]["exit-paris"] > 0, "without barriers nothing was seen: this test can't see a leak"
    assert table[()]["entry"] > 0, "without barriers nothing was seen: this test can't see a leak"
    assert sum(table[tuple(sorted(BARRIERS))].values()) == 0


@pytest.mark.rare
def test_what_each_barrier_does(world: World, chain: Chain, ground: Ground, tell: Callable[[str], None]) -> None:
    with_barriers([{barrier} for barrier in BARRIERS], world, chain, ground, tell)


def with_barriers(
    cases: list[set[str]], world: World, chain: Chain, ground: Ground, tell: Callable[[str], None]
) -> dict[tuple[str, ...], dict[str, int]]:
    """Count tokens outside, with only these barriers kept in each case."""
    restarts = min(2, repeats(ground))
    try:
        table = {tuple(sorted(kept)): leaked_through(world, chain, ground, kept, restarts) for kept in cases}
    finally:
        chain.up()
        chain.knock()
    # `up` makes anew what somebody started with an override file.
    for service in ("entry", "exit-paris", "exit-oslo"):
        assert "SABOTAGE" not in docker("inspect", "-f", "{{.Config.Env}}", chain.container(service))
    lines = [
        f"Tokens outside a tunnel, {restarts} restarts each:",
        f"{'barriers kept':20} exit  entry",
    ]
    for kept, counts in table.items():
        name = "none" if not kept else "all" if len(kept) == len(BARRIERS) else f"{kept[0]} alone"
        lines.append(f"{name:20} {counts['exit-paris']:4}  {counts['entry']:5}")
    tell("\n".join(lines))
    return table
