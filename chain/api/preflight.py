"""What the project's folder and the engine's host must offer, checked before anything is touched.

The host may be another machine. Two containers look at it, side by side: one tries what the kernel can do, which must
not happen in the host's own network, where the other one only looks.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from chain import checks
from chain.api.load import check_secrets, crowding
from chain.api.project import is_there
from chain.errors import ChainError, ExitCode, Problem
from chain.exits import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.api.load import Loaded
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.checks import Finding
    from chain.contract import HostFacts
    from chain.engine.connection import Engine
    from chain.exits.base import KernelNeed


@dataclass(frozen=True)
class Look:
    """The engine's host as it was seen, or why it was not; with this machine's time before and after."""

    host: HostFacts | None
    before: float
    after: float
    why_not: str = ""


def check_folder(loaded: Loaded) -> None:
    """Check what lies in the project's folder. Raises ChainError (CONFIG) with all that is wrong."""
    together(lambda: check_secrets(loaded), lambda: check_writable(loaded.project))


class HostTrial:
    """What two containers tell of the engine's host; they take half a second, beside which other work can be done.

    Use as a context: its end waits for the containers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(max_workers=3)
        self._exits: set[tuple[str, str]] | None = None  # name and kind of those that were asked for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin(self, loaded: Loaded) -> None:
        """Start the containers if their image is there. Raises ChainError when the engine can't be asked."""
        image = loaded.examiner
        if self._engine.has_image(image):
            self._looking = self._pool.submit(look, image, self._engine)
            self._trying = self._pool.submit(try_kernel, loaded, self._engine)
            self._pool.submit(self._engine.prepare_compose)
            self._exits = _exits(loaded)

    def result(self, loaded: Loaded) -> tuple[Look, list[Finding]]:
        """Wait for what they tell. Raises ChainError (ENGINE)."""
        if self._exits != _exits(loaded):  # nothing was begun, or chain.yaml has been edited since
            self.begin(loaded)
        if self._exits is None:
            problem = Problem("engine's host", "the image that looks at it has been removed meanwhile", "try again")
            raise ChainError(problem, ExitCode.ENGINE)
        return self._looking.result(), self._trying.result()


def _exits(loaded: Loaded) -> set[tuple[str, str]]:
    return {(exit_.name, exit_.kind) for exit_ in loaded.topology.exits}


def check_owner(loaded: Loaded, engine: Engine) -> None:
    """Refuse a chain of the same name that another folder runs, and one of another name from this folder.

    Raises ChainError (CONFIG).
    """
    own, name = str(loaded.project.run), loaded.topology.name
    others = sorted({state.folder for state in engine.containers(name)} - {own, ""})
    if others:
        raise ChainError(not_ours(name, others[0]), ExitCode.CONFIG)
    former = sorted(engine.projects_in(own) - {loaded.topology.project})
    if former:
        what = f"this folder's chain still runs as {former[0].removeprefix('chain-')}"
        hint = "`chain down` ends it, under its old name; then `chain up`"
        raise ChainError(Problem(f"name: {name}", what, hint), ExitCode.CONFIG)


def not_ours(name: str, run: str) -> Problem:
    """Say that a chain of this name belongs to another folder; `run` is where its Compose file is."""
    hint = f"choose another `name:` here, or end that one: `chain down` in {Path(run).parent}"
    return Problem(f"name: {name}", f"a chain of this name runs from {run}", hint)


def check_listed(loaded: Loaded, engine: Engine) -> None:
    """Check what the engine's own lists tell of ports and networks. Raises ChainError with all that is wrong."""
    publishers, networks = engine.publishers(loaded.topology.port), engine.networks()
    checks.refuse([*checks.port(loaded.topology, publishers, None), *checks.overlaps(loaded.topology, networks, None)])


def check_host(loaded: Loaded, engine: Engine, progress: Progress, trial: HostTrial) -> None:
    """Check what only containers and the engine's lists can tell. Raises ChainError with all that is wrong."""
    built, networks = loaded.topology, engine.networks()
    publishers = engine.publishers(built.port) if built.has_entry else []
    seen, tried = trial.result(loaded)
    if seen.host is None:
        progress.note(f"warning: {seen.why_not}; its routes and ports were not checked")
    started = {exit_.name for exit_ in built.exits}
    for names in checks.neighbours(loaded.config, crowding(loaded.project, loaded.config)):
        if not started & set(names):
            continue
        found = checks.crowded(names)
        progress.note(f"warning: {found.found}: {found.why}\n    → {found.fix}")
    ports = checks.port(built, publishers, seen.host) if built.has_entry else []
    checks.refuse([*tried, *ports, *checks.overlaps(built, networks, seen.host)])


def together(*parts: Callable[[], object]) -> None:
    """Run checks that raise ChainError, side by side; raise one with all their problems and the first one's code."""
    errors: list[ChainError] = []
    with ThreadPoolExecutor() as pool:
        for running in [pool.submit(part) for part in parts]:
            try:
                running.result()
            except ChainError as error:
                errors.append(error)
    if errors:
        problems = [problem for error in errors for problem in error.problems]
        raise ChainError(problems, errors[0].code, "\n".join(error.detail for error in errors if error.detail))


def look(image: str, engine: Engine) -> Look:
    """Have the entry's image look at the engine's host. That it can't is no reason to stop: much works without."""
    before = time.time()
    try:
        return Look(engine.look_at_host(image), before, time.time())
    except ChainError as error:
        problem = error.problems[0]
        return Look(None, before, time.time(), f"{problem.where}: {problem.what}")


def try_kernel(loaded: Loaded, engine: Engine) -> list[Finding]:
    """Ask the engine's kernel, by trying, for what the configured kinds need. Raises ChainError (ENGINE)."""
    needs: dict[str, KernelNeed] = {}
    users: dict[str, list[str]] = {}
    for exit_ in loaded.topology.exits:
        for need in REGISTRY[exit_.kind].kernel:
            needs[need.check] = need
            users.setdefault(need.check, []).append(exit_.name)
    answers: dict[str, bool] = {}
    if needs:
        answers = json.loads(engine.run_check(loaded.examiner, ["check-kernel", *needs]))
    return checks.kernel(needs.values(), users, answers)


def check_writable(project: Project) -> None:
    """Check that what has to be written can be. Raises ChainError (CONFIG)."""
    folders = [project.run, project.run / "entry", project.run / "exits", *project.run.glob("exits/*/")]
    if not (is_there(project.entry_key) and project.peer_keys.is_dir()):
        folders += [project.secrets, project.peer_keys]
    found = dict.fromkeys(blocked for folder in folders if (blocked := _unwritable(folder)))
    if found:
        raise ChainError([_problem(path) for path in found], ExitCode.CONFIG)


def _unwritable(folder: Path) -> Path | None:
    """Give what keeps this folder from being made, or written to, if anything does."""
    there = next(path for path in (folder, *folder.parents) if is_there(path))
    return None if there.is_dir() and os.access(there, os.W_OK | os.X_OK) else there


def _problem(path: Path) -> Problem:
    if not path.is_dir():
        return Problem(str(path), "this is no folder, and one is needed here", "move it away")
    return Problem(str(path), "this folder can't be written to", "check its owner and mode, and its file system's")
