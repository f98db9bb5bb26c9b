"""What an interrupted run of the scenarios left on the engine, and the lock that keeps two runs apart."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from world import docker

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPOSE = "com.docker.compose.project"
OUTSIDE_COMPOSE = "chain-test-"  # begins the names of what a test makes without Compose


def place() -> str:
    """Name the engine at hand, for what is kept of its runs: the virtual machine's, this machine's, or another."""
    if os.environ.get("CHAIN_LAB_HOST"):
        return "lab"
    host = os.environ.get("DOCKER_HOST")
    return f"at-{hashlib.sha256(host.encode()).hexdigest()[:8]}" if host else "native"


@contextmanager
def alone(engine: str) -> Iterator[None]:
    """Keep two runs on one engine apart: their networks have fixed addresses. Raises RuntimeError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "chain")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"scenarios-{engine}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another process runs the scenarios on this engine: wait for its end") from None
        yield


def remove_leftovers(folder: Path, projects: frozenset[str]) -> None:
    """Remove Compose projects whose files lie below `folder`, and what is left of `projects` that have no container.

    After a power cut the engine starts an earlier run's chain again, which then holds the names and addresses; and what
    an entry remembers, such as that an exit was drained by hand, outlives its chain.
    """
    columns = f'{{{{.ID}}}}\t{{{{.Names}}}}\t{{{{.Label "{COMPOSE}"}}}}\t{{{{.Label "{COMPOSE}.config_files"}}}}'
    rows = [line.split("\t") for line in docker("ps", "-a", "--format", columns).splitlines()]
    ours = {project for *_, project, files in rows if Path(files).is_relative_to(folder)}
    others = {project for *_, project, _ in rows} - ours
    if containers := [
        identity for identity, name, project, _ in rows if project in ours or name.startswith(OUTSIDE_COMPOSE)
    ]:
        docker("rm", "-f", "-v", *containers)
    filters = [f"label={COMPOSE}={project}" for project in sorted(ours | (projects - others))]
    for chosen in (*filters, f"name=^{OUTSIDE_COMPOSE}"):
        if networks := docker("network", "ls", "-q", "--filter", chosen).split():
            docker("network", "rm", *networks)
        if volumes := docker("volume", "ls", "-q", "--filter", chosen).split():
            docker("volume", "rm", "-f", *volumes)
