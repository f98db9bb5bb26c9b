"""A thousand clients of one chain: who moves when an exit goes, and how soon all are back after the entry's restart."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from crowds import SOURCES, Crowd, admit, dismiss, members, restart_entry
from scene import from_afar
from world import WIREGUARD2, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crowds import Member
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
NEW_EACH_TIME = 60000  # flows: those that there are stay with their exit
OWN_TIMER = 15e3  # milliseconds, after which a client notices by itself


@dataclass(frozen=True)
class Share:
    """Those of the clients that used one exit."""

    before: dict[str, Any]  # how all were then
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def ways(self, look: dict[str, Any]) -> list[list[str]]:
        """Give the addresses outside that each has had since, one after the other."""
        return [
            [address for address, _ in look["clients"][name]["ways"][len(self.before["clients"][name]["ways"]) - 1 :]]
            for name in self.names
        ]

    def lost(self, look: dict[str, Any]) -> int:
        """Count the questions that had no answer since."""

        def missing(found: dict[str, Any]) -> int:
            return int(sum(found["clients"][name]["sent"] - found["clients"][name]["answered"] for name in self.names))

        return missing(look) - missing(self.before)


@pytest.fixture(scope="module")
def many(chain: Chain, world: World) -> Iterator[list[Member]]:
    """A thousand clients, which may come in, in a group that shares them by weight."""
    usual, made = chain.file.read_text(), members(CLIENTS)
    try:
        admit(chain, made, THREE_TO_ONE)
        chain.up()
        with from_afar(world, SERVICE, SOURCES):
            yield made
    finally:
        chain.file.write_text(usual)
        dismiss(chain, made)
        chain.up()
        chain.knock()


@contextmanager
def crowd_of(chain: Chain, many: list[Member], flows: int) -> Iterator[Crowd]:
    """Have them ask once a second, all of them answered."""
    with Crowd(chain, many, SERVICE, interval=1.0, begin_within=4.0, flows=flows) as begun:
        begun.all_are("answered", 60)
        yield begun


def test_only_clients_of_an_exit_that_goes_move_and_they_come_back(
    chain: Chain, many: list[Member], ground: Ground, tell: Callable[[str], None]
) -> None:
    with crowd_of(chain, many, flows=NEW_EACH_TIME) as crowd:
        before = crowd.ask("rest")
        was = {name: client["ways"][-1][0] for name, client in before["clients"].items()}
        paris, oslo = (
            Share(before, [name for name, outside in was.items() if outside == provider.outside])
            for provider in (ground.preferred, WIREGUARD2)
        )
        tell(f"{len(paris)} clients by paris, {len(oslo)} by oslo")
        assert abs(len(paris) - CLIENTS * 3 // 4) <= 1
        assert len(paris) + len(oslo) == CLIENTS
        chain.kill("exit-paris")
        there_and_back = [[ground.preferred.outside, WIREGUARD2.outside, ground.preferred.outside]] * len(paris)
        eventually(lambda: paris.ways(crowd.ask("look")) == there_and_back, 60, "the clients of paris are back there")
        after = crowd.ask("rest")
    tell(f"lost by clients of paris: {paris.lost(after)}, of oslo: {oslo.lost(after)}")
    assert paris.ways(after) == there_and_back
    assert oslo.ways(after) == [[WIREGUARD2.outside]] * len(oslo)
    assert oslo.lost(after) == 0


def test_all_are_back_at_once_when_the_entry_was_restarted(
    chain: Chain, many: list[Member], tell: Callable[[str], None]
) -> None:
    with crowd_of(chain, many, flows=1) as crowd:
        found = restart_entry(chain, crowd)
    tell(str(found))
    assert found.silences == 0, "some waited for their own timers"
    assert found.total < OWN_TIMER
