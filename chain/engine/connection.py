"""One Docker engine: local or remote (DOCKER_HOST, contexts). Everything asked of it passes through here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.checks import DockerNetwork, Publisher
from chain.contract import LINE_LIMIT, HostFacts, Measurement, from_json, printable, to_json
from chain.errors import ChainError, ExitCode, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping

    import docker
    from docker.models.containers import Container
    from python_on_whales import DockerClient

    from chain.contract import Order

OLDEST_API = (1, 44)  # health checks with a start interval; not every build of an engine tells a release's number
OLDEST_ENGINE = (25, 0)  # the release that has this API
OLDEST_COMPOSE = (2, 24)
OLDEST_BUILDX = (0, 10)  # named build contexts; builds without a statement of provenance
RETRY_SECONDS = 0.1  # between two looks for an entry that is not there yet
WATCH_GRACE = 5.0  # seconds that a program may take longer than it was told to watch
FOLLOW_SECONDS = 3600.0  # after which one that tells of events is started anew
FOLLOW_SILENCE = 90.0  # seconds without a word of it; it has one every two, or waits a minute for the entry's answer
MEASURE_SECONDS = 300.0  # that all measurements of one exit may take together; half of it is the most that they need
EXIT_LINE = 1 << 16  # bytes of an exit's longest line
CHUNK = 1 << 16
FRAME = struct.Struct(">4xL")  # before each piece of a program's output: of which stream, and its length
LARGEST_PACKET = 65535
LABEL_PROJECT = "com.docker.compose.project"
LABEL_FOLDER = "com.docker.compose.project.working_dir"
LABEL_CHAIN, LABEL_ROLE, LABEL_EXIT = "chain.name", "chain.role", "chain.exit"
LABEL_CHECK = "chain.check"
LOG_LINE = 2000  # characters of a log's line that are shown
CHECK_STALE = "10m"  # a check takes a second or two; an older container is one whose command was killed


@dataclass(frozen=True)
class ContainerState:
    """One of a chain's containers, as the engine sees it."""

    service: str
    id: str
    state: str  # running, exited, restarting, created, …
    health: str  # starting, healthy, unhealthy, or empty
    restarts: int
    image_id: str  # that it was made from
    started_at: str
    exit_code: int
    folder: str = ""  # of the Compose file that it was made from
    compose_files: str = ""  # all that it was made from, as Compose names them: separated by commas
    image: str = ""  # what its image was called when it was made
    labels: Mapping[str, str] = field(default_factory=dict)


class Engine:
    """A connection that is made at first use. Raises ChainError (ENGINE) when there is no usable engine."""

    @cached_property
    def sdk(self) -> docker.DockerClient:
        import docker

        host = os.environ.get("DOCKER_HOST") or _context_host()
        try:
            client = docker.DockerClient(base_url=host) if host else docker.from_env()
            version = client.version()
        except (docker.errors.DockerException, ValueError) as error:  # ValueError: an address that is none
            raise ChainError(
                Problem(
                    f"Docker engine at {_shown(host) if host else 'the default socket'}",
                    "it does not answer",
                    "start it, or install one; is this user allowed to use it (group docker)?",
                ),
                ExitCode.ENGINE,
                detail=_shown(str(error).partition("\n")[0][:200]),
            ) from None
        if _version(version["ApiVersion"]) < OLDEST_API:
            raise ChainError(
                Problem(
                    "Docker engine",
                    f"version {version['Version']} is too old",
                    f"upgrade to {_text(OLDEST_ENGINE)} or newer",
                ),
                ExitCode.ENGINE,
            )
        return client

    def check(self) -> None:
        """Raise ChainError (ENGINE) when the engine does not answer or is too old."""
        self.sdk.ping()

    def check_compose(self) -> str:
        """Give Compose's version. Raises ChainError (ENGINE) when it is missing or too old."""
        return _plugin("compose", OLDEST_COMPOSE, "Docker Compose", "version", "--short")

    def check_buildx(self) -> str:
        """Give buildx's version. Raises ChainError (ENGINE) when it is missing or too old."""
        return _plugin("buildx", OLDEST_BUILDX, "Docker buildx", "version")

    def version(self) -> str:
        """Give the engine's version and its host's kernel, as text."""
        found = self.sdk.version()
        return f"{found['Version']}, kernel {found['KernelVersion']}"

    # Images

    def has_image(self, name: str) -> bool:
        return self.image_id(name) is not None

    def image_id(self, name: str) -> str | None:
        """Give the identity of what a name stands for now; another one once it was built anew."""
        import docker

        try:
            return str(self.sdk.images.get(name).id)
        except docker.errors.ImageNotFound:
            return None

    def packages_time(self, name: str) -> float:
        """Give the Unix time at which an image's packages were installed.

        Not the image's own: the builder may have had the layer with the packages from an earlier build.
        """
        layers = self.sdk.images.get(name).history()
        layers = [layer for layer in layers if "apt-get" in layer["CreatedBy"]] or layers
        return float(max(layer["Created"] for layer in layers))

    def pull(self, name: str) -> bool:
        """Fetch the newest image of this name. False: no registry gives it here."""
        import docker

        repository, _, tag = name.rpartition(":")
        try:
            self.sdk.images.pull(repository, tag)
        except (docker.errors.DockerException, OSError):  # OSError: what breaks connections, in words of `requests`
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
        cache: bool,
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
                cache=cache,
                # It tells when it was made, so that each build would have another identity, with the same contents too.
                provenance=False,
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
        for item in self.sdk.containers.list(
            all=True, ignore_removed=True, filters={"label": f"{LABEL_CHAIN}={chain}"}
        ):
            with contextlib.suppress(Exception):  # removed between the listing and the look at it
                found.append(_state(item))
        return sorted(found, key=lambda state: state.service)

    def entry(self, chain: str) -> Container | None:
        """Find the running entry of one chain."""
        return self._running(f"{LABEL_CHAIN}={chain}", f"{LABEL_ROLE}=entry")

    def exit(self, chain: str, name: str) -> Container | None:
        """Find a running exit of one chain."""
        return self._running(f"{LABEL_CHAIN}={chain}", f"{LABEL_EXIT}={name}")

    def _running(self, *labels: str) -> Container | None:
        found = self.sdk.containers.list(ignore_removed=True, filters={"label": list(labels), "status": "running"})
        return found[0] if found else None

    def ask_entry(self, chain: str, verb: str, *arguments: str) -> dict[str, Any]:
        """Run `chain-node VERB ARGUMENTS` in the entry. Raises ChainError (NOT_RUNNING) when it can't be asked."""
        import docker

        entry = self.entry(chain)
        hint = "`chain up` starts it; `chain logs entry` shows what it says"
        if entry is None:
            raise ChainError(Problem(f"chain {chain}", "the entry is not running", hint), ExitCode.NOT_RUNNING)
        try:
            _, output = entry.exec_run(["chain-node", verb, *arguments], demux=True)
        except docker.errors.APIError as error:
            raise ChainError(
                Problem(f"chain {chain}", f"the entry can't be asked: {error.explanation}", hint), ExitCode.NOT_RUNNING
            ) from None
        try:
            answer = _object(output[0] or b"")
        except ValueError:
            answer = {"error": "the runtime did not answer"}
        if "error" in answer:
            raise ChainError(Problem(f"chain {chain}, entry", str(answer["error"]), hint), ExitCode.NOT_RUNNING)
        return answer

    def watch_entry(self, chain: str, seconds: float) -> Generator[dict[str, Any] | None, None, None]:
        """Give the entry's status as it changes, at least every few seconds; None while it can't be asked.

        However few the seconds, there is one look.
        """
        return self._watch(lambda: self.entry(chain), seconds, LINE_LIMIT)

    def watch_exit(self, chain: str, name: str, seconds: float) -> Generator[dict[str, Any] | None, None, None]:
        """Give an exit's own status, likewise. Whoever has seen enough closes it, which ends the program there."""
        return self._watch(lambda: self.exit(chain, name), seconds, EXIT_LINE)

    @staticmethod
    def _watch(
        find: Callable[[], Container | None], seconds: float, longest: int
    ) -> Generator[dict[str, Any] | None, None, None]:
        import docker

        end = time.monotonic() + seconds
        while True:
            left = max(end - time.monotonic(), RETRY_SECONDS)
            container = find()
            answered = False
            if container is not None:
                watching = _answers(
                    container, "watch", str(round(left, 1)), seconds=left + WATCH_GRACE, longest=longest
                )
                # What can't be read is no answer, and whoever says it is asked again.
                with (
                    contextlib.suppress(docker.errors.APIError, ConnectionError, TimeoutError, ValueError),
                    contextlib.closing(watching),
                ):
                    for answer in watching:
                        answered = "error" not in answer
                        yield answer if answered else None
            if not answered:  # the end of a stream that answered is no news: it may just have had its time
                yield None
            if time.monotonic() >= end:
                return
            time.sleep(RETRY_SECONDS)

    def follow_entry(self, chain: str) -> Generator[dict[str, Any], None, None]:
        """Give what the entry tells of events, all that it remembers first, until the connection with it ends.

        It has ended at once where the entry can't be asked.
        """
        import docker

        if entry := self.entry(chain):
            telling = _answers(
                entry,
                *("follow", str(FOLLOW_SECONDS)),
                seconds=FOLLOW_SECONDS + WATCH_GRACE,
                silence=FOLLOW_SILENCE,
                longest=LINE_LIMIT,
            )
            with (
                contextlib.suppress(docker.errors.APIError, ConnectionError, TimeoutError, ValueError),
                contextlib.closing(telling),
            ):
                yield from telling

    def measure(self, chain: str, name: str, order: Order, progress: Callable[[str], None]) -> Measurement:
        """Have a running exit measure its tunnel; `progress` gets what it is at. Raises ChainError (NOT_UP)."""
        import docker

        why = "its container is gone, or says nothing"
        try:
            if container := self.exit(chain, name):
                # Not as an argument, which process lists show: the order may name a file that not everybody may have.
                asked = _answers(container, "measure", said=to_json(order), seconds=MEASURE_SECONDS, longest=EXIT_LINE)
                with contextlib.closing(asked):
                    for answer in asked:
                        match answer:
                            case {"doing": str(text)}:
                                progress(printable(text, LOG_LINE))
                            case {"error": str(text)}:
                                why = printable(text, LOG_LINE)
                            case _:
                                return _plausible(from_json(Measurement, json.dumps(answer)), order)
        except docker.errors.APIError as error:
            why = str(error.explanation)
        except TimeoutError:
            why = f"it did not end within {MEASURE_SECONDS:.0f} s"
        except ConnectionError:
            why = "the connection with it was lost"
        except ValueError as error:
            why = printable(f"what it says can't be used: {error}", LOG_LINE)
        hint = f"once more; `chain logs exit-{name}` shows what it says"
        raise ChainError(Problem(f"exit {name}", f"nothing could be measured: {why}", hint), ExitCode.NOT_UP)

    def log_tail(self, container: str, lines: int = 25, *, times: bool = False) -> str:
        raw: bytes = self.sdk.containers.get(container).logs(tail=lines, timestamps=times)
        return "\n".join(log_lines([raw]))

    def follow_logs(self, container: str, tail: int, *, times: bool = False) -> Iterator[str]:
        logs = self.sdk.containers.get(container).logs(stream=True, follow=True, tail=tail, timestamps=times)
        return log_lines(logs)

    def run_check(self, image: str, command: list[str]) -> str:
        """Try what the engine's kernel can do: without a network, and with the host's devices to look at.

        Raises ChainError (ENGINE).
        """
        return self._run_once(
            image, command, network_mode="none", volumes={"/dev": {"bind": "/host-dev", "mode": "ro"}}
        )

    def look_at_host(self, image: str) -> HostFacts:
        """Look at the engine's host from its own network. Raises ChainError (ENGINE)."""
        # `userns_mode`: an engine that maps users lends the host's network only without that.
        output = self._run_once(image, ["look-at-host"], network_mode="host", userns_mode="host")
        try:
            return from_json(HostFacts, output)
        except ValueError as error:
            raise _not_seen(error) from None

    def _run_once(self, image: str, command: list[str], **options: Any) -> str:
        """Run one short-lived container to its end; give its output. Raises ChainError (ENGINE)."""
        import docker

        try:
            output: bytes = self.sdk.containers.run(
                image,
                command,
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN"],
                read_only=True,
                remove=True,
                labels=[LABEL_CHECK],
                **options,
            )
        except docker.errors.DockerException as error:
            raise _not_seen(error) from None
        with contextlib.suppress(docker.errors.APIError):  # somebody else is pruning
            self.sdk.containers.prune(filters={"label": LABEL_CHECK, "until": CHECK_STALE})
        return output.decode()

    def publishers(self, port: int) -> list[Publisher]:
        """List the running containers that have this UDP port of the host."""
        found = self.sdk.api.containers(filters={"publish": f"{port}/udp"})
        return [
            Publisher(item["Names"][0].removeprefix("/"), item["Labels"].get(LABEL_PROJECT, ""))
            for item in found
            if any(bound.get("PublicPort") == port and bound["Type"] == "udp" for bound in item["Ports"])
        ]

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

    def networks(self) -> list[DockerNetwork]:
        """List all networks with their IPv4 subnets, whosever they are."""
        return [_network(item.attrs) for item in self.sdk.networks.list()]

    def projects_in(self, folder: str) -> set[str]:
        """Name the Compose projects whose chain was started from this folder."""
        filters = {"label": [f"{LABEL_FOLDER}={folder}", LABEL_CHAIN]}
        return {
            item.labels[LABEL_PROJECT]
            for item in self.sdk.containers.list(all=True, ignore_removed=True, filters=filters)
        }

    def folders_of(self, project: str) -> set[str]:
        """Name the folders that a Compose project's containers were started from, where they say so."""
        filters = {"label": f"{LABEL_PROJECT}={project}"}
        found = self.sdk.containers.list(all=True, ignore_removed=True, filters=filters)
        return {item.labels.get(LABEL_FOLDER, "") for item in found} - {""}

    def leftovers(self, project: str) -> list[str]:
        """List what still carries a Compose project's label."""
        filters = {"label": f"{LABEL_PROJECT}={project}"}
        containers = [
            f"container {item.name}"
            for item in self.sdk.containers.list(all=True, ignore_removed=True, filters=filters)
        ]
        networks = [f"network {item.name}" for item in self.sdk.networks.list(filters=filters)]
        volumes = [f"volume {item.name}" for item in self.sdk.volumes.list(filters=filters)]
        return containers + networks + volumes

    def remove_networks(self, project: str, keep: Collection[str]) -> None:
        """Remove a project's networks but those of these keys: Compose forgets a network that its file lost."""
        import docker

        for item in self.sdk.networks.list(filters={"label": f"{LABEL_PROJECT}={project}"}):
            if item.attrs["Labels"].get("com.docker.compose.network") not in keep:
                # Still in use: `leftovers` tells who asks.
                with contextlib.suppress(docker.errors.APIError):
                    item.remove()

    # Compose

    def prepare_compose(self) -> None:
        """Load Compose's library, which takes as long as a container's start: time to use while one starts."""
        import python_on_whales  # noqa: F401 - the import is the point

    def compose(self, project: str, file: Path) -> DockerClient:
        """Give Compose for one project."""
        from python_on_whales import DockerClient

        return DockerClient(compose_files=[str(file)], compose_project_name=project)

    def compose_down(self, project: str, file: Path | None, *, shielded: bool = False) -> None:
        """Remove a project's containers, networks and volumes. Raises ChainError (ENGINE).

        Without its file Compose finds by its labels what there is to remove. `shielded`: in a session of its own, since
        a terminal sends its signals to all programs of a command, and Compose heeds even those that it was to ignore.
        """
        files = ["--file", str(file)] if file else []
        options = ["down", "--remove-orphans", "--volumes"]
        done = subprocess.run(
            ["docker", "compose", *files, "--project-name", project, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            start_new_session=shielded,
        )
        if done.returncode:
            words = done.stderr.strip().splitlines()
            what = words[-1] if words else f"it ended with {done.returncode}"
            raise ChainError(Problem("docker compose down", what, "run it again"), ExitCode.ENGINE)


def _answers(
    container: Container,
    *arguments: str,
    said: str = "",
    seconds: float,
    silence: float = math.inf,
    longest: int,
) -> Generator[dict[str, Any], None, None]:
    """Run `chain-node` in a container, say one line to it, and give each of its own, which are JSON, as they come.

    The container may have been taken over: neither what it says nor for how long may be without end. `silence`: how
    many seconds it may say nothing. Raises docker's APIError; ValueError for a line of more than `longest` bytes, or
    that is no object; ConnectionError; TimeoutError.
    """
    channel = container.exec_run(["chain-node", *arguments], stdin=True, stderr=False, socket=True).output
    connection = getattr(channel, "_sock", channel)  # Docker's SDK gives a file of it, or itself where it is encrypted
    try:
        if said:
            connection.sendall(f"{said}\n".encode())
        for line in _lines(_output(connection, time.monotonic() + seconds, silence), longest):
            yield _object(line)
    finally:
        # The program ends with its standard input, and so with this process too.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        channel.close()
        connection.close()


def _output(connection: socket.socket, end: float, silence: float = math.inf) -> Iterator[bytes]:
    """Give what a program prints, from the frames that the engine puts it into. Raises OSError."""

    def read(most: int) -> bytes:
        left = min(end - time.monotonic(), silence)
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        return connection.recv(most)

    while head := read(FRAME.size):
        while len(head) < FRAME.size:
            if not (more := read(FRAME.size - len(head))):
                return
            head += more
        (size,) = FRAME.unpack(head)
        while size:
            if not (chunk := read(min(size, CHUNK))):
                return
            size -= len(chunk)
            yield chunk


def _lines(chunks: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """Put lines together. Raises ValueError for one of more bytes than `longest`."""
    rest = bytearray()
    for chunk in chunks:
        *ends, begun = chunk.split(b"\n")
        for end in ends:
            yield bytes(rest + end)
            rest.clear()
        rest += begun
        if len(rest) > longest:
            raise ValueError(f"a line of more than {longest} bytes")


def _object(line: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError for all else."""
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("too many brackets") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - it is not the caller's mistake
    return found


def _plausible(measured: Measurement, order: Order) -> Measurement:
    """Give what was measured, if it can be. Raises ValueError."""
    answers, sizes = measured.answers_ms, (measured.mtu, measured.fits)
    if len(answers) > order.asked or not all(0 <= answer <= MEASURE_SECONDS * 1e3 for answer in answers):
        raise ValueError("more answers than questions, or at other times")
    if not all(0 < size <= LARGEST_PACKET for size in sizes if size is not None) or (
        measured.fits and not measured.mtu
    ):
        raise ValueError("a size that no packet has")
    # Rounded to milliseconds; a last piece may exceed what was wanted.
    if not (0 <= measured.bytes <= 2 * order.most and 0 <= measured.seconds <= MEASURE_SECONDS) or (
        0 < measured.seconds < 1e-3  # noqa: PLR2004 - a millisecond
    ):
        raise ValueError("a download that was not asked for")
    return measured


def _state(item: Container) -> ContainerState:
    attrs = item.attrs
    state = attrs["State"]
    return ContainerState(
        service=item.labels.get("com.docker.compose.service", item.name),
        id=item.id,
        state=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        restarts=attrs.get("RestartCount", 0),
        image_id=attrs["Image"],  # Compose's own label may name, of an image for many platforms, the one for this
        started_at=state.get("StartedAt", ""),
        exit_code=state.get("ExitCode", 0),
        folder=item.labels.get(LABEL_FOLDER, ""),
        compose_files=item.labels.get("com.docker.compose.project.config_files", ""),
        image=attrs["Config"]["Image"],
        labels=item.labels,
    )


def _not_seen(error: Exception) -> ChainError:
    words = getattr(error, "explanation", None) or str(error)
    return ChainError(
        Problem(
            "engine's host",
            f"no container could look at it: {words.splitlines()[0][:200]}",
            "`docker info` and the engine's log may tell why",
        ),
        ExitCode.ENGINE,
    )


def _network(attrs: Mapping[str, Any]) -> DockerNetwork:
    pools = (attrs.get("IPAM") or {}).get("Config") or ()
    options = attrs.get("Options") or {}
    return DockerNetwork(
        name=attrs["Name"],
        project=(attrs.get("Labels") or {}).get(LABEL_PROJECT, ""),
        subnets=tuple(IPv4Network(pool["Subnet"]) for pool in pools if "." in pool.get("Subnet", "")),
        device=options.get("com.docker.network.bridge.name", f"br-{attrs['Id'][:12]}"),
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


def log_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Give a log's lines, from whatever pieces it comes in, fit to be shown: a container may have been taken over."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LOG_LINE:
            lines, rest = [*lines, rest], b""
        yield from map(_log_line, lines)
    if rest:
        yield _log_line(rest)


def _log_line(raw: bytes) -> str:
    return printable(raw.decode(errors="replace").rstrip().expandtabs(), LOG_LINE)


def _builder_line(line: object) -> str:
    text = line[1] if isinstance(line, tuple) else line
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).rstrip()


def _plugin(command: str, oldest: tuple[int, int], name: str, *arguments: str) -> str:
    """Give the version of one of the docker command's plugins. Raises ChainError (ENGINE): missing or too old."""
    text = _docker(command, *arguments)
    if text is None or _version(text) < oldest:
        what = "the plugin is missing" if text is None else f"version {text} is too old"
        raise ChainError(
            Problem(name, what, f"install the plugin docker-{command}, {_text(oldest)} or newer"), ExitCode.ENGINE
        )
    return _text(_version(text))


def _shown(host: str) -> str:
    """Give an engine's address without the password that may stand in it."""
    return re.sub(r"//[^/@]*@", "//…@", host)


def _context_host() -> str | None:
    """Give the endpoint of the current `docker context`, which the SDK does not read."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if not os.environ.get("DOCKER_CONTEXT") and not (folder / "config.json").exists():
        return None  # no context was ever chosen: there is no need to start a program that says so
    return _docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}") or None


def _docker(*arguments: str) -> str | None:
    """Run the docker command; give what it prints, or None where it or what is asked of it is not there."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(text: str) -> tuple[int, int]:
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _text(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)
