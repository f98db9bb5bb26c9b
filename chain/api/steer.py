"""Say by hand which exit is used, and hear of what happened."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from chain.api.exits import config_of
from chain.api.preflight import check_owner
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chain.api.load import Loaded
    from chain.engine.connection import Engine

LOOK_SECONDS = 1.0  # between two looks of one who follows


def switch(loaded: Loaded, engine: Engine, group: str, exit_: str | None) -> None:
    """Have a group use one exit while that is good; None: what its policy says, again. Raises ChainError."""
    groups = {each.name: each for each in loaded.topology.state.groups}
    if group not in groups:
        raise ChainError(Problem(f"group {group}", "no such group", f"there are: {', '.join(groups)}"), ExitCode.CONFIG)
    members = groups[group].exits
    if exit_ is not None and exit_ not in members:
        raise ChainError(
            Problem(f"group {group}", f"exit {exit_} is not in it", f"there are: {', '.join(members)}"), ExitCode.CONFIG
        )
    check_owner(loaded, engine)
    engine.ask_entry(loaded.topology.name, "switch", group, *([exit_] if exit_ else []))


def drain(loaded: Loaded, engine: Engine, exit_: str) -> None:
    """Send nothing new by an exit, until told otherwise; connections that it carries stay. Raises ChainError."""
    _ask(loaded, engine, "drain", exit_)


def undrain(loaded: Loaded, engine: Engine, exit_: str) -> None:
    """Let a drained exit be used again. Raises ChainError."""
    _ask(loaded, engine, "undrain", exit_)


def events(loaded: Loaded, engine: Engine, *, follow: bool) -> Iterator[dict[str, Any]]:
    """Give what happened since the entry's start, as far as it is remembered; and what happens. Raises ChainError."""
    check_owner(loaded, engine)
    since = 0
    while True:
        for event in engine.ask_entry(loaded.topology.name, "events", str(since))["events"]:
            since = event["number"]
            yield event
        if not follow:
            return
        time.sleep(LOOK_SECONDS)


def _ask(loaded: Loaded, engine: Engine, verb: str, exit_: str) -> None:
    config_of(loaded.config, exit_)
    check_owner(loaded, engine)
    engine.ask_entry(loaded.topology.name, verb, exit_)
