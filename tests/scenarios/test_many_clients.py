"""A thousand clients of one chain: who moves when an exit goes, and how soon all are back after the entry's restart."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from crowds import SOURCES, Crowd, admit, dismiss, members, restart_entry
from scene import from_afar
from world import WIREGUARD2, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground
    from scene import Chain
    from world import World

pytestmark = [pytest.mark.docker, pytest.mark.long]

CLIENTS = 1000
SERVICE = "client2"
THREE_TO_ONE = {
    "exits": ["paris", "oslo"],
    "policy": "balance",
    "weights": {"paris": 3, "oslo": 1},
    "fail_back": "1s",
}
OWN_TIMER = 15e3  # milliseconds, after which a client notices by itself


@pytest.fixture(scope="module")
def crowd(chain: Chain, world: World) -> Iterator[Crowd]:
    """A thousand clients, all of them answered, in a group that shares them by weight."""
    usual, made = chain.file.read_text(), members(CLIENTS)
    try:
        admit(chain, made, THREE_TO_ONE)
        began = time.monotonic()
        chain.up()
        sys.stdout.write(f"`chain up` with {CLIENTS} more clients: {time.monotonic() - began:.1f} s\n")
        with (
            from_afar(world, SERVICE, SOURCES),
            Crowd(chain, made, SERVICE, interval=1.0, begin_within=4.0) as begun,
        ):
            begun.all_are("answered", 60)
            yield begun
    finally:
        chain.file.write_text(usual)
        dismiss(chain, made)
        chain.up()
        chain.knock()


def test_only_clients_of_an_exit_that_goes_move_and_they_come_back(
    chain: Chain, crowd: Crowd, ground: Ground, tell: Callable[[str], None]
) -> None:
    paris, oslo = ground.preferred.outside, WIREGUARD2.outside
    before = crowd.ask("rest")
    first = {name: client["ways"][-1][0] for name, client in before["clients"].items()}
    split = Counter(first.values())
    tell(f"{split[paris]} clients by paris, {split[oslo]} by oslo")
    assert abs(split[paris] - CLIENTS * 3 // 4) <= 1
    assert split[paris] + split[oslo] == CLIENTS

    def since(look: dict[str, Any], exit_: str) -> list[list[str]]:
        """Give the addresses outside that each client of an exit has had, one after the other."""
        return [
            [address for address, _ in client["ways"][len(before["clients"][name]["ways"]) - 1 :]]
            for name, client in look["clients"].items()
            if first[name] == exit_
        ]

    def lost(look: dict[str, Any], exit_: str) -> int:
        return sum(
            client[what] * sign - before["clients"][name][what] * sign
            for name, client in look["clients"].items()
            if first[name] == exit_
            for what, sign in (("sent", 1), ("answered", -1))
        )

    chain.kill("exit-paris")
    there_and_back = [[paris, oslo, paris]] * split[paris]
    eventually(lambda: since(crowd.ask("look"), paris) == there_and_back, 60, "the clients of paris are back there")
    after = crowd.ask("rest")
    assert since(after, paris) == there_and_back
    assert since(after, oslo) == [[oslo]] * split[oslo]
    tell(f"lost by clients of paris: {lost(after, paris)}, of oslo: {lost(after, oslo)}")
    assert lost(after, oslo) == 0


def test_all_are_back_at_once_when_the_entry_was_restarted(
    chain: Chain, crowd: Crowd, tell: Callable[[str], None]
) -> None:
    found = restart_entry(chain, crowd)
    tell(str(found))
    assert found.silences == 0
    assert found.total < OWN_TIMER
    assert found.called == CLIENTS
