"""One exit under watch, whose questions go to a real kernel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.netns.ground import Namespace, namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE, OTHER = "127.0.0.1", "127.0.0.2"
WATCH = """\
import asyncio, json, sys, time
from chain.agent.verdict import Sensitivity, State
from chain.agent.watch import Watch
from chain.contract import ExitLink, ExitReport, Link

async def main():
    link = ExitLink("paris", "l2tp", 0x1001, 1001, Link("", "", "", "", ""))
    watch = Watch(link, "127.0.0.1", Sensitivity(), State(sys.argv[2]))
    found = []
    for state, *near in json.loads(sys.argv[1]):
        try:
            report = ExitReport("paris", state, 0.0, "it dials anew", near=tuple(near))
            watch.heard(time.monotonic(), report, trusted=True)
        except OSError:
            found.append("can't be asked")
        begin = time.monotonic()
        while time.monotonic() < begin + 0.3:
            now = time.monotonic()
            if watch.wake <= now:
                watch.tick(now, 0, 0)
            await asyncio.sleep(max(watch.wake - now, 0.001))
        found.append(watch.state)
    found.append(watch.complaint)
    watch.close()
    print(json.dumps(found))

asyncio.run(main())
"""


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespaces("place") as (namespace,):
        namespace.run("sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 2147483647")  # as container engines set it
        yield namespace


def judged(place: Namespace, *reports: tuple[str, ...], before: str = "good") -> list[str]:
    return watched(place, *reports, before=before)[:-1]


def watched(place: Namespace, *reports: tuple[str, ...], before: str = "good") -> list[str]:
    """Give the verdict after each report, and in the end what is said against the exit."""
    found: list[str] = json.loads(place.python(WATCH, json.dumps(reports), before))
    return found


def test_one_that_dials_anew_has_to_prove_itself_whoever_is_asked_then(place: Namespace) -> None:
    for target in (HERE, OTHER):
        found = watched(place, ("up", HERE), ("down", HERE), ("up", target))
        assert found[:-1] == ["good", "dead", "suspect"]
        assert found[-1], "it is said why it is not good"
    assert watched(place, ("up", HERE)) == ["good", ""]


def test_how_another_judged_it_counts_but_once(place: Namespace) -> None:
    reports = ("up", HERE), ("down", HERE), ("up", OTHER)
    *states, complaint = watched(place, *reports, before="dead")
    assert states[1:] == ["dead", "suspect"]
    assert complaint.startswith("it is up again")


def test_a_good_one_stays_good_when_it_names_another_target(place: Namespace) -> None:
    assert judged(place, ("up", HERE), ("up", OTHER)) == ["good", "good"]


def test_one_that_no_longer_names_anybody_is_judged_by_those_it_named(place: Namespace) -> None:
    assert judged(place, ("up", HERE), ("up",)) == ["good", "good"]
    assert judged(place, ("up",), ("up", HERE)) == ["dead", "good"]


def test_one_that_cannot_be_asked_is_dead_until_it_can(place: Namespace) -> None:
    place.run("sysctl", "-q", "-w", "net.ipv4.ping_group_range=1 0")
    assert judged(place, ("up", HERE), ("up", HERE)) == ["can't be asked", "dead"] * 2
