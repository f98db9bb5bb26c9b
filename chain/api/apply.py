"""Hand a changed state to a running entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.api.load import load
from chain.api.project import changing
from chain.api.up import read_files, write_files
from chain.errors import ChainError, ExitCode, Problem
from chain.plan import Observed, plan

if TYPE_CHECKING:
    from chain.api.project import Project
    from chain.engine.connection import Engine


def apply_if_running(project: Project, engine: Engine) -> bool:
    """Write the new state and have a running entry take it. False: it is not running. Raises ChainError (NOT_UP).

    Only the entry's own file is written: other changes in chain.yaml wait for `chain up`.
    """
    with changing(project):
        loaded = load(project, engine)
        name = loaded.topology.name
        if engine.entry(name) is None:
            return False
        wanted = {path: text for path, text in loaded.files().items() if path.startswith("entry/")}
        present = {path: text for path, text in read_files(project.run).items() if path.startswith("entry/")}
        write_files(project, wanted, plan(wanted, (), "", Observed(present, (), None, frozenset())))
        answer = engine.ask_entry(name, "apply")
        if answer["generation"] != loaded.topology.state.generation:
            raise ChainError(
                Problem(
                    "entry", f"it runs generation {answer['generation']}", "`chain up` applies chain.yaml as it is now"
                ),
                ExitCode.NOT_UP,
            )
        return True
