"""Say by hand which exit is used, and hear of what happened."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from chain.api.exits import config_of
from chain.api.preflight import check_owner
from chain.engine.connection import lost
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.engine.connection import Engine

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two attempts to follow an entry's events


class Place(NamedTuple):
    """How far the events of one entry were read. The next entry's numbers may be lower, where a clock was set back."""

    entry: int
    number: int


@dataclass(frozen=True)
class Told:
    """What an entry told of events, in their order."""

    entry: int
    events: tuple[dict[str, Any], ...]

    def beyond(self, place: Place | None) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Give those that were not read yet, each with the place behind it."""
        for event in self.events:
            if place is None or place.entry != self.entry or place.number < event["number"]:
                yield Place(self.entry, event["number"]), event

    @property
    def end(self) -> Place:
        """Give the place behind all of them."""
        return Place(self.entry, max((event["number"] for event in self.events), default=self.entry))


def switch(loaded: Loaded, engine: Engine, group: str, exit_: str | None) -> dict[str, Any]:
    """Have a group use one exit while that is good; None: what its policy says, again. Raises ChainError.

    Gives the entry's status, as it is then.
    """
    groups = {each.name: each for each in loaded.topology.state.groups}
    if group not in groups:
        raise ChainError(Problem(f"group {group}", "no such group", f"there are: {', '.join(groups)}"), ExitCode.CONFIG)
    members = groups[group].exits
    if exit_ is not None and exit_ not in members:
        raise ChainError(
            Problem(f"group {group}", f"exit {exit_} is not in it", f"there are: {', '.join(members)}"), ExitCode.CONFIG
        )
    check_owner(loaded, engine)
    return _ordered(loaded, engine, "switch", group, *([exit_] if exit_ else []))


def drain(loaded: Loaded, engine: Engine, exit_: str) -> dict[str, Any]:
    """Send nothing new by an exit, nor by those that run through it, until told otherwise. As `switch`.

    Connections that it carries stay.
    """
    config_of(loaded.config, exit_)
    check_owner(loaded, engine)
    return _ordered(loaded, engine, "drain", exit_)


def undrain(loaded: Loaded, engine: Engine, exit_: str) -> dict[str, Any]:
    """Let a drained exit be used again, and those that run through it. As `switch`."""
    config_of(loaded.config, exit_)
    check_owner(loaded, engine)
    return _ordered(loaded, engine, "undrain", exit_)


def events(loaded: Loaded, engine: Engine, progress: Progress, *, follow: bool) -> Iterator[dict[str, Any]]:
    """Give what happened since the entry's start, as far as it is remembered; and what happens. Raises ChainError."""
    check_owner(loaded, engine)
    answer = engine.ask_entry(loaded.topology.name, "events", "0")
    yield from answer["events"]
    if follow:
        so_far = _told(answer)
        if so_far is None:
            problem = Problem("entry", "it is of an older version, which tells no events as they happen", "`chain up`")
            raise ChainError(problem, ExitCode.NOT_RUNNING)
        place = so_far.end
        for told in listen(loaded, engine, progress):
            for reached, event in told.beyond(place):
                yield event
                place = reached


def listen(
    loaded: Loaded, engine: Engine, progress: Progress, pause: Callable[[float], object] = time.sleep
) -> Iterator[Told]:
    """Give what the entry tells, forever: what it remembers, first and whenever it was away, and what happens.

    An entry or an engine that is away is waited for. Raises ChainError (CONFIG) where the chain is another folder's.
    """
    wait, away = FIRST_PAUSE, False
    while True:
        with bearing_with_engine(), contextlib.closing(engine.follow_entry(loaded.topology.name)) as answers:
            check_owner(loaded, engine)
            for answer in answers:
                if told := _told(answer):
                    if away:
                        progress.note("the entry can be asked again")
                    wait, away = FIRST_PAUSE, False
                    yield told
        if wait > FIRST_PAUSE and not away:  # it went, and was not there a moment later either
            away = True
            progress.note("the entry can't be asked; waiting until it can (`chain status` shows why)")
        pause(wait)
        wait = min(2 * wait, LONGEST_PAUSE)


@contextlib.contextmanager
def bearing_with_engine() -> Iterator[None]:
    """Go on after what an engine does that ends, starts, or is not there yet."""
    try:
        yield
    except ChainError as error:
        if error.code is not ExitCode.ENGINE:
            raise
    except Exception as error:
        if lost(error) is None:
            raise


def _told(answer: Mapping[str, Any]) -> Told | None:
    """Read one line of the entry. None: it is of no use, or says that the entry can't be asked."""
    match answer:
        case {"entry": int(entry), "events": list(events)}:
            usable = [event for event in events if isinstance(event, dict) and isinstance(event.get("number"), int)]
            return Told(entry, tuple(usable))
    return None


def _ordered(loaded: Loaded, engine: Engine, verb: str, *words: str) -> dict[str, Any]:
    engine.ask_entry(loaded.topology.name, verb, *words)
    return engine.ask_entry(loaded.topology.name, "status")
