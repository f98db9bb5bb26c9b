"""What runs: the entry's own words, and the engine's where the entry has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chain import checks
from chain.api.load import crowding
from chain.api.preflight import check_owner
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chain.api.load import Loaded
    from chain.engine.connection import ContainerState, Engine

# What keeps a container from running, by Docker's word for its state, and what to try.
NOT_RUNNING = {
    "exited": ("its container ended with {code}", "`chain up` starts it again; {logs}"),
    "dead": ("its container ended with {code}", "`chain up` starts it again; {logs}"),
    "created": ("its container was never started", "`chain up` starts it"),
    "restarting": ("its container ends with {code}, again and again", "{logs}"),
    "absent": ("there is no container of it", "`chain up` makes it"),
}


def status(loaded: Loaded, engine: Engine) -> dict[str, Any]:
    """Give one JSON-ready object. `running` is false when the entry can't be asked; `wanted` is chain.yaml's state.

    It is null while chain.yaml can't be used.
    """
    check_owner(loaded, engine)
    name = loaded.topology.name
    states = engine.containers(name)
    containers = [
        {
            "service": state.service,
            "state": state.state,
            "health": state.health or None,
            "restarts": state.restarts,
            "started_at": state.started_at,
        }
        for state in states
    ]
    wanted = None if loaded.kept else loaded.topology.state.generation
    found: dict[str, Any] = {"chain": name, "wanted": wanted, "containers": containers}
    try:
        answer = engine.ask_entry(name, "status")
    except ChainError as error:
        if error.code is not ExitCode.NOT_RUNNING:
            raise
        return found | {"running": False, "why": error.problems[0].what, "exits": [], "groups": [], "clients": []}
    exits = _ended(_beside_others(loaded, answer.get("exits", [])), states)
    return found | {"running": True} | answer | {"exits": exits}


def _ended(exits: list[dict[str, Any]], states: Iterable[ContainerState]) -> list[dict[str, Any]]:
    """Say of silent exits whose containers do not run that this is why; the entry can't know that."""
    by_service = {state.service: state for state in states}

    def told(exit_: dict[str, Any]) -> dict[str, Any]:
        service = f"exit-{exit_['name']}"
        state = by_service.get(service)
        words = NOT_RUNNING.get(state.state if state else "absent")
        if exit_.get("state") != "silent" or words is None:
            return exit_
        code, logs = state.exit_code if state else 0, f"`chain logs {service}` shows why"
        cause, advice = (each.format(code=code, logs=logs) for each in words)
        return exit_ | {"cause": cause, "advice": advice}

    return [told(exit_) for exit_ in exits]


def _beside_others(loaded: Loaded, exits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say of exits that are not open which others they may be in the way of: none of them knows of the others."""
    together = checks.neighbours(loaded.config, crowding(loaded.project, loaded.config))
    crowded = {name: checks.crowded(names) for names in together for name in names}
    return [
        exit_ | {"warning": f"{crowded[exit_['name']].found}: {crowded[exit_['name']].why}"}
        if exit_["name"] in crowded and not exit_.get("open") and not exit_.get("warning")
        else exit_
        for exit_ in exits
    ]
