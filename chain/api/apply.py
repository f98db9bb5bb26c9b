"""Hand a changed list of clients to a running entry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chain import topology
from chain.api.load import keep, load
from chain.api.preflight import check_owner
from chain.api.progress import SILENT
from chain.api.project import changing, write_atomic
from chain.contract import DesiredState, from_json
from chain.errors import ChainError, ExitCode, Problem
from chain.render import ENTRY_FILE, entry_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.engine.connection import Engine

UP_FIRST = "`chain up` takes over what has changed; then do this again"


def check_applicable(project: Project, engine: Engine, group: str | None) -> None:
    """Refuse what a running entry can't be given, before anything is touched. Raises ChainError (CONFIG).

    `group` is that of a client to come. An entry that can't be asked has nothing to lose.
    """
    loaded = load(project, engine)
    try:
        check_owner(loaded, engine)
        running = running_state(loaded, engine)
    except ChainError as error:
        if error.code is ExitCode.CONFIG:
            raise
        return
    if running is not None:
        combined(running, loaded.topology.state)
        # A group that chain.yaml has not either is told of by who adds the client.
        if group in _groups(loaded.topology.state) - _groups(running):
            raise ChainError(
                Problem(f"group {group}", "the running chain does not have it yet", UP_FIRST), ExitCode.CONFIG
            )


def apply_if_running(project: Project, engine: Engine, progress: Progress = SILENT) -> list[Problem] | None:
    """Have a running entry take the clients as they are now. None: it is not running. Raises ChainError.

    Only the entry's own file is written, and only the clients in it: other changes in chain.yaml wait for `chain up`.
    Gives what is wrong with some clients and keeps nobody else out.
    """
    with changing(project, progress):
        loaded = load(project, engine)
        running = running_state(loaded, engine)
        if running is None:
            return None
        state = combined(running, loaded.topology.state)
        write_atomic(project.run / ENTRY_FILE, entry_file(state), 0o644)
        keep(loaded)
        answer = engine.ask_entry(state.chain, "apply")
        if answer["generation"] != state.generation:
            raise ChainError(
                Problem(
                    "entry", f"it runs generation {answer['generation']}", "`chain up` applies chain.yaml as it is now"
                ),
                ExitCode.NOT_UP,
            )
        return kept_out(answer)


def kept_out(answer: Mapping[str, Any]) -> list[Problem]:
    """Say who is kept out, as the entry's answer tells. Older entries tell nothing."""
    return [
        Problem(
            f"client {name}",
            f"it is kept out: the entry found no key in secrets/peers/{name}",
            f"restore that file and run `chain up`; or `chain client remove {name}`, and add it again",
        )
        for name in answer.get("kept_out", ())
    ]


def running_state(loaded: Loaded, engine: Engine) -> DesiredState | None:
    """Give the state that the entry runs, its clients perhaps excepted. None: it is not running.

    Raises ChainError: CONFIG when no file tells that state any more.
    """
    name = loaded.topology.name
    if engine.entry(name) is None:
        return None
    settings = topology.settings_of(engine.ask_entry(name, "status")["generation"])
    file = loaded.project.run / ENTRY_FILE
    try:
        written = from_json(DesiredState, file.read_bytes())
    except (OSError, ValueError):  # lost, or of another version
        written = None
    if written is not None and topology.settings_of(written.generation) == settings:
        return written
    raise ChainError(Problem(str(file), "this is not what the entry runs", UP_FIRST), ExitCode.CONFIG)


def combined(running: DesiredState, wanted: DesiredState) -> DesiredState:
    """Give the running state with the wanted clients. Raises ChainError (CONFIG) where they do not fit into it."""
    if (running.clients_subnet, running.clients_subnet6) != (wanted.clients_subnet, wanted.clients_subnet6):
        what = f"the running chain's clients are in {running.clients_subnet}, chain.yaml's in {wanted.clients_subnet}"
        raise ChainError(Problem("entry.subnet", what, UP_FIRST), ExitCode.CONFIG)
    known = _groups(running)
    problems = [
        Problem(f"client {client.name}", f"the running chain does not have its group {client.group} yet", UP_FIRST)
        for client in wanted.clients
        if client.group not in known
    ]
    if problems:
        raise ChainError(problems, ExitCode.CONFIG)
    return topology.sealed(replace(running, clients=wanted.clients))


def _groups(state: DesiredState) -> set[str]:
    return {group.name for group in state.groups}
