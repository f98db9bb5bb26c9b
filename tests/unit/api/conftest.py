"""An engine that says what a test has written down for it. It stands at the edge: behind it would be Docker."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from chain.engine.connection import ContainerState, Engine
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from docker.models.containers import Container

    from chain.checks import DockerNetwork, Publisher
    from chain.contract import HostFacts, Measurement, Order


class ScriptedEngine(Engine):
    """Statuses come one after the other, the last one again and again; None: the entry does not run."""

    def __init__(self) -> None:
        self.statuses: list[dict[str, Any] | None] = [None]
        self.applied: dict[str, Any] = {}
        self.states: list[ContainerState] = []
        self.asked: list[str] = []
        self.host: HostFacts | None = None
        self.project = "chain-main"
        self.kernel: dict[str, bool] = {}
        self.tried: list[list[str]] = []
        self.published: list[Publisher] = []
        self.others: list[DockerNetwork] = []
        self.built = "first"
        self.packages = time.time()
        self.exit_statuses: dict[str, list[dict[str, Any] | None]] = {}
        self.watched: list[str] = []
        self.measured: Measurement | None = None
        self.ordered: list[Order] = []
        self.told: list[Iterable[dict[str, Any]]] = []  # what the entry tells of events, each time that it is followed

    def entry(self, chain: str) -> Container | None:
        return SimpleNamespace(name=chain) if self.statuses[0] else None

    def ask_entry(self, chain: str, verb: str, *arguments: str) -> dict[str, Any]:
        self.asked.append(" ".join([verb, *arguments]))
        answer = self.applied
        if verb == "status":
            answer = (self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]) or {}
        if not answer:
            raise ChainError(Problem(f"chain {chain}", "the entry is not running"), ExitCode.NOT_RUNNING)
        return answer

    def watch_entry(self, chain: str, seconds: float) -> Generator[dict[str, Any] | None, None, None]:  # noqa: ARG002 - likewise
        end = time.monotonic() + seconds
        yield from self.statuses
        while time.monotonic() < end:
            yield self.statuses[-1]

    def watch_exit(self, chain: str, name: str, seconds: float) -> Generator[dict[str, Any] | None, None, None]:  # noqa: ARG002 - likewise
        self.watched.append(name)
        yield from self.exit_statuses[name]

    def follow_entry(self, chain: str) -> Generator[dict[str, Any], None, None]:  # noqa: ARG002 - likewise
        if not self.told:
            raise KeyboardInterrupt
        yield from self.told.pop(0)

    def measure(self, chain: str, name: str, order: Order, progress: Callable[[str], None]) -> Measurement:  # noqa: ARG002 - likewise
        assert self.measured is not None
        self.ordered.append(order)
        return self.measured

    def containers(self, chain: str) -> list[ContainerState]:  # noqa: ARG002 - it knows but one chain
        return self.states

    def log_tail(self, container: str, lines: int = 25, *, times: bool = False) -> str:  # noqa: ARG002 - its logs are short
        return f"last words of {container}"

    def version(self) -> str:
        return "26.1.5, kernel 6.12.0"

    def check_compose(self) -> str:
        return "2.26"

    def check_buildx(self) -> str:
        return "0.13"

    def image_id(self, name: str) -> str | None:  # it has all
        return f"{self.built} {name}"

    def packages_time(self, name: str) -> float:  # noqa: ARG002 - all are of one day
        return self.packages

    def run_check(self, image: str, command: list[str]) -> str:  # noqa: ARG002 - it answers all it knows
        self.tried.append(command)
        return json.dumps(self.kernel)

    def look_at_host(self, image: str) -> HostFacts:  # noqa: ARG002 - it has but one host
        if self.host is None:
            raise ChainError(Problem("engine's host", "no"), ExitCode.ENGINE)
        return self.host

    def publishers(self, port: int) -> list[Publisher]:  # noqa: ARG002 - likewise
        return self.published

    def networks(self) -> list[DockerNetwork]:
        return self.others

    def projects_in(self, folder: str) -> set[str]:
        return {self.project for state in self.states if state.folder == folder}

    def folders_of(self, project: str) -> set[str]:
        return {state.folder for state in self.states if project == self.project} - {""}

    def runs(self, service: str, state: str = "running", restarts: int = 0, folder: str = "", image: str = "") -> None:
        """Add a container."""
        self.states.append(ContainerState(service, f"id-{service}", state, "", restarts, image, "", 1, folder))

    def runs_as_rendered(self, service: str, files: Mapping[str, str]) -> None:
        """Add a container that was made from these files."""
        made = yaml.safe_load(files["compose.yaml"])["services"][service]
        self.runs(service)
        self.states[-1] = replace(self.states[-1], image=made["image"], labels=made["labels"])


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()
