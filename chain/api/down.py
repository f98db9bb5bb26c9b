"""Take a chain down: containers, then networks, nothing left. The lock stays until its container is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.config import loader
from chain.errors import ChainError, ExitCode, Problem
from chain.exits import REGISTRY
from chain.render import COMPOSE_FILE

if TYPE_CHECKING:
    from chain.api.progress import Progress
    from chain.api.project import Project
    from chain.engine.connection import Engine


def down(project: Project, engine: Engine, progress: Progress) -> list[str]:
    """Remove a chain's containers and networks; give what was removed. Raises ChainError."""
    from python_on_whales import DockerException

    config = loader.load(project.file, {name: kind.settings for name, kind in REGISTRY.items()})
    name = f"chain-{config.name}"
    before = engine.leftovers(name)
    file = project.run / COMPOSE_FILE
    if before:
        with progress.step("Removing containers and networks"):
            try:
                engine.compose(name, file if file.exists() else None).compose.down(
                    remove_orphans=True, volumes=True, quiet=True
                )
            except DockerException as error:
                words = (error.stderr or str(error)).strip().splitlines()
                raise ChainError(
                    Problem("docker compose down", words[-1] if words else "failed", "run it again"), ExitCode.ENGINE
                ) from None
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
