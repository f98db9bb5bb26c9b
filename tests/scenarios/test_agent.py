"""Without its agent an entry goes on: what is open stays open, what is lost is closed, and nothing is opened."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from faults import kill_program
from ground import LONG
from leaks import assert_no_leak, watched
from scene import Chain, new_token, streaming
from world import World, both_outputs, docker, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground

pytestmark = [pytest.mark.docker, pytest.mark.long]

DOWN_SECONDS = 60.0 if LONG else 15.0


@contextmanager
def kept_down(chain: Chain, world: World) -> Iterator[None]:
    """End the agent, and each that follows it, while the block runs."""
    pid = docker("inspect", "-f", "{{.State.Pid}}", chain.container("entry")).strip()
    script = f"while :; do pkill -KILL --ns {pid} --nslist pid -f chain.agent; sleep 0.02; done"
    with world.background("observer", "sh", "-c", script):
        eventually(lambda: not chain.entry_status(), 30, "the agent is down")
        yield
    eventually(chain.entry_status, 60, "the agent is back")


def ends(chain: Chain) -> int:
    return both_outputs(chain.container("entry")).count("the agent ended")


def test_traffic_flows_on_while_there_is_no_agent(
    chain: Chain, world: World, ground: Ground, tell: Callable[[str], None]
) -> None:
    chain.answered()
    rate = 50 if ground.patience > 1 else 200
    before = ends(chain)
    with streaming(world, new_token(), rate) as figures:
        with kept_down(chain, world):
            time.sleep(DOWN_SECONDS)  # what is asserted lasts so long
        eventually(lambda: chain.is_open("paris"), 60 * ground.patience, "the new agent knows its exits")
        chain.answered()
    tell(f"{ends(chain) - before} agents ended in {DOWN_SECONDS:.0f} s; the stream: {figures}")
    assert ends(chain) - before > 10
    assert figures["sent"] > rate * DOWN_SECONDS / 2
    assert figures["lost"] == 0, figures


def test_an_exit_that_goes_meanwhile_is_closed(chain: Chain, world: World, ground: Ground) -> None:
    chain.answered()
    with watched(world, chain, ground) as (capture, allowed):
        with kept_down(chain, world):
            chain.kill("exit-paris")
            eventually(partial(is_closed, chain), 30 * ground.patience, "paris is closed")
        eventually(lambda: chain.is_open("paris"), 120 * ground.patience, "paris is open again")
        chain.answered()
    assert_no_leak(capture, allowed)


def is_closed(chain: Chain) -> bool:
    """Ask the kernel, since there is no agent to ask."""
    state = docker("exec", chain.container("entry"), "nft", "list", "set", "inet", "vpn", "open_links")
    return state.count('"') == 2  # one exit's interface


@pytest.mark.rare  # it is waited for half a minute; tests/netns tries it with the supervisor alone
def test_an_agent_that_hangs_is_replaced(chain: Chain, world: World, ground: Ground) -> None:
    before = ends(chain)
    kill_program(chain.container("entry"), "chain.agent", world, "STOP")
    eventually(lambda: ends(chain) > before, 60 * ground.patience, "the agent is ended")
    eventually(lambda: chain.is_open("paris"), 60 * ground.patience, "the new agent knows its exits")
    chain.answered()
