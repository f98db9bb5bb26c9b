"""Take a chain down: containers, then networks, nothing left. The lock stays until its container is gone."""

from __future__ import annotations

import contextlib
import re
import shutil
from typing import TYPE_CHECKING

from chain.api.preflight import not_ours
from chain.api.project import changing
from chain.config import loader
from chain.contract import LINE_LIMIT
from chain.errors import ChainError, ExitCode, Problem
from chain.exits import SETTINGS
from chain.render import COMPOSE_FILE
from chain.secret import read_regular

if TYPE_CHECKING:
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.engine.connection import Engine

_NAME = re.compile(r'^name: "(chain-[a-z0-9_-]+)"$', re.MULTILINE)


def down(project: Project, engine: Engine, progress: Progress) -> list[str]:
    """Remove a chain's containers and networks; give what was removed. Raises ChainError."""
    with changing(project, progress):
        removed = end_tests(project, engine, progress)
        return removed + [
            item for name in projects(project, engine) for item in _remove(name, project, engine, progress)
        ]


def running_tests(project: Project, engine: Engine) -> set[str]:
    """Name the Compose projects of tests of this folder's exits: one goes on, or its command was killed."""
    rendered = _rendered(project.test)
    return engine.projects_in(str(project.test.run)) | ({rendered} if rendered else set())


def end_tests(project: Project, engine: Engine, progress: Progress, *, shielded: bool = False) -> list[str]:
    """Remove what tests of exits have left; give what that was. Raises ChainError (ENGINE).

    Whoever calls holds `changing`, so that no test goes on. `shielded`: a terminal's Ctrl-C does not end Compose.
    """
    test = project.test
    removed = [
        item
        for name in sorted(running_tests(project, engine))
        for item in _remove(name, test, engine, progress, shielded=shielded)
    ]
    if test.run.is_dir():
        shutil.rmtree(test.run, ignore_errors=True)
        with contextlib.suppress(OSError):  # the chain's own files are in it
            project.run.rmdir()
    return removed


def projects(project: Project, engine: Engine) -> list[str]:
    """Name the Compose projects to take down: what runs from this folder, under whatever name it was started.

    Raises ChainError (CONFIG) when a chain of that name runs from another folder.
    """
    own = str(project.run)
    if running := engine.projects_in(own):
        return sorted(running)
    name = compose_project(project)
    if others := sorted(engine.folders_of(name) - {own}):
        raise ChainError(not_ours(name.removeprefix("chain-"), others[0]), ExitCode.CONFIG)
    return [name]


def _remove(name: str, project: Project, engine: Engine, progress: Progress, *, shielded: bool = False) -> list[str]:
    before = engine.leftovers(name)
    file = project.run / COMPOSE_FILE
    if before:
        with progress.step("Removing containers and networks"):
            engine.compose_down(name, file if file.exists() else None, shielded=shielded)
        engine.remove_networks(name, keep=())
    left = engine.leftovers(name)
    if left:
        raise ChainError(
            [
                Problem(item, "still there", "something else uses it; end that and run `chain down` again")
                for item in left
            ],
            ExitCode.ENGINE,
        )
    return before


def compose_project(project: Project) -> str:
    """Name the Compose project: that of the rendered file, which is what was started, before that of chain.yaml.

    Raises ChainError (CONFIG) when neither tells.
    """
    return _rendered(project) or f"chain-{loader.load(project.file, SETTINGS).name}"


def _rendered(project: Project) -> str | None:
    """Name the Compose project of the rendered file, if there is one."""
    with contextlib.suppress(OSError):
        text = read_regular(project.run / COMPOSE_FILE, LINE_LIMIT).decode(errors="replace")
        if found := _NAME.search(text):
            return found[1]
    return None
