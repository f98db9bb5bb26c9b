"""One Docker engine: local or remote (DOCKER_HOST, contexts). Everything asked of it passes through here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    import docker
    from docker.models.containers import Container
    from python_on_whales import DockerClient

OLDEST_ENGINE = (25, 0)  # health checks with a start interval
OLDEST_COMPOSE = (2, 24)
RETRY_SECONDS = 0.1  # between two looks for an entry that is not there yet
LABEL_CHAIN, LABEL_ROLE, LABEL_EXIT = "chain.name", "chain.role", "chain.exit"
LABEL_CHECK = "chain.check"
CHECK_STALE = "10m"  # a check takes a second or two; an older container is one whose command was killed


@dataclass(frozen=True)
class ContainerState:
    """One of a chain's containers, as the engine sees it."""

    service: str
    role: str
    id: str
    state: str  # running, exited, restarting, created, …
    health: str  # starting, healthy, unhealthy, or empty
    restarts: int
    image: str
    started_at: str
    exit_code: int
    folder: str = ""  # of the Compose file that it was made from
    compose_files: str = ""  # all that it was made from, as Compose names them: separated by commas


class Engine:
    """A connection that is made at first use. Raises ChainError (ENGINE) when there is no usable engine."""

    @cached_property
    def sdk(self) -> docker.DockerClient:
        import docker

        host = os.environ.get("DOCKER_HOST") or _context_host()
        try:
            client = docker.DockerClient(base_url=host) if host else docker.from_env()
            version = client.version()
        except docker.errors.DockerException as error:
            raise ChainError(
                Problem(
                    f"Docker engine at {host or 'the default socket'}",
                    "it does not answer",
                    "start it, or install one; is this user allowed to use it (group docker)?",
                ),
                ExitCode.ENGINE,
                detail=str(error).splitlines()[0][:200],
            ) from None
        found = _version(version["Version"])
        if found < OLDEST_ENGINE:
            raise ChainError(
                Problem(
                    "Docker engine",
                    f"version {version['Version']} is too old",
                    f"upgrade to {_text(OLDEST_ENGINE)} or newer",
                ),
                ExitCode.ENGINE,
            )
        return client

    def check_compose(self) -> None:
        """Raise ChainError (ENGINE) when Compose is missing or too old."""
        done = subprocess.run(["docker", "compose", "version", "--short"], capture_output=True, text=True, check=False)
        if done.returncode or _version(done.stdout) < OLDEST_COMPOSE:
            what = f"version {done.stdout.strip()} is too old" if done.returncode == 0 else "the plugin is missing"
            raise ChainError(
                Problem("Docker Compose", what, f"install the plugin docker-compose, {_text(OLDEST_COMPOSE)} or newer"),
                ExitCode.ENGINE,
            )

    # Images

    def has_image(self, name: str) -> bool:
        import docker

        try:
            self.sdk.images.get(name)
        except docker.errors.ImageNotFound:
            return False
        return True

    def build(
        self,
        path: Path,
        *,
        tag: str,
        contexts: Mapping[str, str],
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        secrets: list[str],
        progress: Callable[[str], None],
    ) -> None:
        """Build with BuildKit, on the host's network, since a chain's own networks may not exist yet."""
        from python_on_whales import DockerException
        from python_on_whales import docker as cli

        lines: Any  # what it is depends on `stream_logs`, in a way its type does not tell
        try:
            lines = cli.buildx.build(
                str(path),
                tags=[tag],
                build_args=dict(arguments),
                build_contexts=dict(contexts),
                labels=dict(labels),
                network="host",
                secrets=secrets,
                progress="plain",
                load=True,
                stream_logs=True,
            )
            for line in lines:
                progress(_builder_line(line))
        except DockerException as error:
            raise RuntimeError(str(error)) from None

    # Containers

    def containers(self, chain: str) -> list[ContainerState]:
        """List the containers of one chain, whatever started them."""
        found = []
        for item in self.sdk.containers.list(all=True, filters={"label": f"{LABEL_CHAIN}={chain}"}):
            with contextlib.suppress(Exception):  # removed between the listing and the look at it
                found.append(_state(item))
        return sorted(found, key=lambda state: state.service)

    def entry(self, chain: str) -> Container | None:
        """Find the running entry of one chain."""
        filters = {"label": [f"{LABEL_CHAIN}={chain}", f"{LABEL_ROLE}=entry"], "status": "running"}
        found = self.sdk.containers.list(filters=filters)
        return found[0] if found else None

    def ask_entry(self, chain: str, verb: str) -> dict[str, Any]:
        """Run `chain-node VERB` in the entry. Raises ChainError (NOT_RUNNING) when it can't be asked."""
        import docker

        entry = self.entry(chain)
        hint = "`chain up` starts it; `chain logs entry` shows what it says"
        if entry is None:
            raise ChainError(Problem(f"chain {chain}", "the entry is not running", hint), ExitCode.NOT_RUNNING)
        try:
            _, output = entry.exec_run(["chain-node", verb], demux=True)
        except docker.errors.APIError as error:
            raise ChainError(
                Problem(f"chain {chain}", f"the entry can't be asked: {error.explanation}", hint), ExitCode.NOT_RUNNING
            ) from None
        try:
            answer: dict[str, Any] = json.loads((output[0] or b"").decode())
        except ValueError:
            answer = {"error": "the runtime did not answer"}
        if "error" in answer:
            raise ChainError(Problem(f"chain {chain}, entry", str(answer["error"]), hint), ExitCode.NOT_RUNNING)
        return answer

    def watch_entry(self, chain: str, seconds: float) -> Iterator[dict[str, Any] | None]:
        """Give the entry's status as it changes, at least every few seconds; None while it can't be asked.

        However few the seconds, there is one look.
        """
        import docker

        end = time.monotonic() + seconds
        while True:
            left = max(end - time.monotonic(), RETRY_SECONDS)
            entry = self.entry(chain)
            answered = False
            if entry is not None:
                rest = b""
                with contextlib.suppress(docker.errors.APIError):
                    stream = entry.exec_run(
                        ["chain-node", "watch", str(round(left, 1))], stream=True, stderr=False
                    ).output
                    for chunk in stream:
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            with contextlib.suppress(ValueError):
                                answer: dict[str, Any] = json.loads(line)
                                answered = "error" not in answer
                                yield answer if answered else None
            if not answered:  # the end of a stream that answered is no news: it may just have had its time
                yield None
            if time.monotonic() >= end:
                return
            time.sleep(RETRY_SECONDS)

    def log_tail(self, container: str, lines: int = 25) -> str:
        raw: bytes = self.sdk.containers.get(container).logs(tail=lines)
        return raw.decode(errors="replace").rstrip()

    def follow_logs(self, container: str, tail: int) -> Iterator[bytes]:
        stream: Iterator[bytes] = self.sdk.containers.get(container).logs(stream=True, follow=True, tail=tail)
        return stream

    def run_check(self, image: str, command: list[str]) -> str:
        """Run one short-lived container without a network to look at the engine's kernel; give its output."""
        import docker

        output: bytes = self.sdk.containers.run(
            image,
            command,
            network_mode="none",
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN"],
            remove=True,
            labels=[LABEL_CHECK],
            volumes={"/dev": {"bind": "/host-dev", "mode": "ro"}},
        )
        with contextlib.suppress(docker.errors.APIError):  # somebody else is pruning
            self.sdk.containers.prune(filters={"label": LABEL_CHECK, "until": CHECK_STALE})
        return output.decode()

    # Networks

    def network(self, name: str) -> tuple[IPv4Network, IPv4Address | None] | None:
        """Look one network up by name: its subnet and its gateway."""
        for item in self.sdk.networks.list(names=[name]):
            if item.name == name:
                for pool in item.attrs["IPAM"]["Config"] or ():
                    subnet = IPv4Network(pool["Subnet"]) if ":" not in pool["Subnet"] else None
                    if subnet:
                        return subnet, IPv4Address(pool["Gateway"]) if pool.get("Gateway") else None
        return None

    def leftovers(self, project: str) -> list[str]:
        """List what still carries a Compose project's label."""
        filters = {"label": f"com.docker.compose.project={project}"}
        containers = [f"container {item.name}" for item in self.sdk.containers.list(all=True, filters=filters)]
        networks = [f"network {item.name}" for item in self.sdk.networks.list(filters=filters)]
        volumes = [f"volume {item.name}" for item in self.sdk.volumes.list(filters=filters)]
        return containers + networks + volumes

    def remove_networks(self, project: str, keep: Collection[str]) -> None:
        """Remove a project's networks but those of these keys: Compose forgets a network that its file lost."""
        import docker

        for item in self.sdk.networks.list(filters={"label": f"com.docker.compose.project={project}"}):
            if item.attrs["Labels"].get("com.docker.compose.network") not in keep:
                # Still in use: `leftovers` tells who asks.
                with contextlib.suppress(docker.errors.APIError):
                    item.remove()

    # Compose

    def compose(self, project: str, file: Path | None) -> DockerClient:
        """Give Compose for one project; without its file it still finds, by its labels, what there is to remove."""
        from python_on_whales import DockerClient

        return DockerClient(compose_files=[str(file)] if file else [], compose_project_name=project)


def _state(item: Container) -> ContainerState:
    attrs = item.attrs
    state = attrs["State"]
    return ContainerState(
        service=item.labels.get("com.docker.compose.service", item.name),
        role=item.labels.get(LABEL_ROLE, ""),
        id=item.id,
        state=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        restarts=attrs.get("RestartCount", 0),
        image=attrs["Config"]["Image"],
        started_at=state.get("StartedAt", ""),
        exit_code=state.get("ExitCode", 0),
        folder=item.labels.get("com.docker.compose.project.working_dir", ""),
        compose_files=item.labels.get("com.docker.compose.project.config_files", ""),
    )


def lost(error: Exception) -> ChainError | None:
    """Say what a failure of the connection means; None: `error` is of another kind."""
    if type(error).__module__.partition(".")[0] not in ("docker", "requests", "urllib3"):
        return None
    # The engine's own words, where it answered; those of a broken connection are a library's inner names.
    words = getattr(error, "explanation", None) or type(error).__name__
    return ChainError(
        Problem("Docker engine", f"it did not do what it was asked: {words}", "is it being restarted? then try again"),
        ExitCode.ENGINE,
    )


def _builder_line(line: object) -> str:
    text = line[1] if isinstance(line, tuple) else line
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).rstrip()


def _context_host() -> str | None:
    """Give the endpoint of the current `docker context`, which the SDK does not read."""
    done = subprocess.run(
        ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None if done.returncode == 0 else None


def _version(text: str) -> tuple[int, int]:
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _text(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)
