"""Providers' names: who is asked for them, and that a chain follows its provider to another address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faults import FAULTS, has_moved
from scene import uplink_address
from world import docker, eventually, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ground import Ground
    from scene import Chain
    from world import World

pytestmark = [pytest.mark.docker, pytest.mark.long]

MOVED = "provider's address changed"
CAPTURE = "/tmp/names.pcap"


@pytest.fixture
def at_home(world: World, chain: Chain, ground: Ground) -> Iterator[None]:
    """Take the provider back to where it was."""
    yield
    if has_moved(world, ground):
        FAULTS[MOVED](chain, world, ground)
    world.set_names({name_of(ground.preferred): ground.preferred.wan})
    eventually(lambda: chain.is_open("paris"), 120 * ground.patience, "paris is open")


@pytest.mark.usefixtures("at_home")
def test_a_provider_is_followed_and_only_its_exit_asks_where_it_is(world: World, chain: Chain, ground: Ground) -> None:
    name = name_of(ground.preferred)
    asked = f"asked by {uplink_address(chain, world)}: {name}"
    assert asked in world.logs("names").splitlines()
    # Without the first option the kernel holds packets back for a second, and the last ones are lost with the program.
    tcpdump = ("tcpdump", "--immediate-mode", "-U", "-nn", "-i", "any", "-w", CAPTURE, "udp port 53")
    with world.background("observer", *tcpdump):
        eventually(lambda: world.exec("observer", "sh", "-c", f"test -s {CAPTURE} && echo yes || true"), 60, "capture")
        before = world.logs("names").splitlines().count(asked)
        FAULTS[MOVED](chain, world, ground)
        eventually(lambda: world.logs("names").splitlines().count(asked) > before, 120 * ground.patience, "a question")
        # One that was lost is open, and not used before it has proved itself.
        eventually(lambda: chain.answered()["seen"] == ground.preferred.outside, 120 * ground.patience, "paris is used")
        eventually(lambda: questions(world, name), 30, "a question is captured: else this could not see a leak")
    about = questions(world, name)
    assert [line for line in about if f"> {world.site.names_host}.53" not in line] == []


def test_a_name_that_nobody_knows_is_said_to_be_the_cause(world: World, chain: Chain, ground: Ground) -> None:
    world.set_names({})
    try:
        docker("restart", "-t", "1", chain.container("exit-paris"))
        said = f"the server's name can't be resolved ({world.site.names_host}: no such name)"
        eventually(lambda: said in cause(chain), 120 * ground.patience, "the cause is said")
        assert chain.answered()["seen"] != ground.preferred.outside
    finally:
        world.set_names({name_of(ground.preferred): ground.preferred.wan})
    eventually(lambda: chain.answered()["seen"] == ground.preferred.outside, 120 * ground.patience, "paris is used")


def questions(world: World, name: str) -> list[str]:
    """Give what was captured of questions for a name."""
    lines = world.exec("observer", "tcpdump", "-nn", "-r", CAPTURE, "udp dst port 53").splitlines()
    return [line for line in lines if name in line]


def cause(chain: Chain) -> str:
    return "".join(exit_["cause"] for exit_ in chain.entry_status().get("exits", ()) if exit_["name"] == "paris")
