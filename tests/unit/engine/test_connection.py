from __future__ import annotations

import json
import os
import queue
import socket
import threading
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Network
from socketserver import ThreadingUnixStreamServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from chain.api.preflight import together
from chain.checks import DockerNetwork
from chain.contract import Measurement, Order, to_json
from chain.engine import connection
from chain.engine.connection import FRAME, OLDEST_API, Engine, _builder_line, _network, _version, log_lines
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker.models.containers import Container


@pytest.mark.parametrize(
    ("text", "version"),
    [("26.1.5", (26, 1)), ("v2.26.1-desktop.1\n", (2, 26)), ("28.0.0-rc.1", (28, 0)), ("dev", (0, 0)), ("", (0, 0))],
)
def test_versions_are_read_from_what_engines_say(text: str, version: tuple[int, int]) -> None:
    assert _version(text) == version
    assert _version("1.44") >= OLDEST_API > _version("1.43")


@pytest.mark.parametrize(
    ("line", "text"), [("#1 done\n", "#1 done"), (("stderr", b"#2 caf\xc3\xa9\n"), "#2 café"), (b"\xff\n", "\ufffd")]
)
def test_a_builders_lines_are_text_in_whatever_form_they_come(line: object, text: str) -> None:
    assert _builder_line(line) == text


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"a\nb", b"c\n"], ["a", "bc"]),
        ([b"caf\xc3", b"\xa9\r\nend"], ["café", "end"]),  # a character in two pieces, a line without its end
        ([b"\x1b[2J\tx\n"], ["\ufffd[2J    x"]),
        ([b"y" * 5000, b"\nz\n"], ["y" * 1999 + "…", "", "z"]),
        ([], []),
    ],
)
def test_a_logs_lines_are_fit_to_be_shown(chunks: list[bytes], lines: list[str]) -> None:
    assert list(log_lines(chunks)) == lines


def printing(chunks: list[bytes], told: list[socket.socket] | None = None) -> SimpleNamespace:
    """Give what the engine gives of a program that prints this and ends; `told`: or goes on, and is told things."""
    ours, theirs = socket.socketpair()
    for chunk in chunks:
        theirs.sendall(FRAME.pack(len(chunk)) + chunk)
    if told is None:
        theirs.close()
    else:  # it goes on until it is left
        told.append(theirs)
    return SimpleNamespace(output=ours)


class Watched(Engine):
    """An engine whose entry prints these chunks, one list for each time that it is asked to."""

    def __init__(self, *streams: list[bytes], told: list[socket.socket] | None = None) -> None:
        self._streams, self._told = iter(streams), told

    def entry(self, chain: str) -> Container | None:  # noqa: ARG002 - it has but one
        chunks = next(self._streams, None)
        return None if chunks is None else SimpleNamespace(exec_run=lambda *_, **__: printing(chunks, self._told))


def watched(monkeypatch: pytest.MonkeyPatch, *streams: list[bytes]) -> list[object]:
    """Watch for as long as there is something to see, and once more."""
    monkeypatch.setattr(connection, "RETRY_SECONDS", 0.0)
    found = Watched(*streams).watch_entry("main", 60.0)
    seen: list[object] = []
    for status in found:
        seen.append(status)
        if len(seen) > sum(len(stream) for stream in streams):
            break
    return seen


def test_an_entrys_statuses_are_put_together_from_whatever_pieces_they_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch, [b'{"a": 1}\n{"a"', b": 2}\n"]) == [{"a": 1}, {"a": 2}, None]


def test_a_stream_that_ends_after_an_answer_does_not_mean_that_the_entry_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert watched(monkeypatch, [b'{"a": 1}\n'], [b'{"a": 2}\n']) == [{"a": 1}, {"a": 2}, None]


# What a container says that has been taken over, or whose runtime is another one.
NONSENSE = [
    b"nonsense\n",
    b"[]\n",
    b"7\n",
    b"null\n",
    b"\xff\n",
    b"[" * 60_000 + b"\n",
    b'{"a": ' + b"9" * 5000 + b"}\n",
]


def test_an_entry_that_can_not_be_asked_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch) == [None]
    for nonsense in NONSENSE:
        assert watched(monkeypatch, [nonsense]) == [None, None]
    assert watched(monkeypatch, [b'{"error": "it does not answer"}\n']) == [None, None]


def test_what_tells_of_an_entry_ends_when_enough_was_seen() -> None:
    told: list[socket.socket] = []
    with closing(Watched([b'{"a": 1}\n'], told=told).watch_entry("main", 60.0)) as statuses:
        assert next(statuses) == {"a": 1}
        told[0].setblocking(False)  # noqa: FBT003 - the socket module's signature
        with pytest.raises(BlockingIOError):
            told[0].recv(1)
    with told[0]:
        assert told[0].recv(1) == b""


def test_what_tells_of_an_entry_is_left_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WATCH_GRACE", 0.0)
    told: list[socket.socket] = []
    assert list(Watched([b'{"a": 1}\n'], told=told).watch_entry("main", 0.1)) == [{"a": 1}]
    with told[0]:
        assert told[0].recv(1) == b""


def test_what_an_entry_tells_of_events_is_given_until_it_ends() -> None:
    told = Watched([b'{"entry": 1, "events"', b': []}\n{"entry": 1, "events": [{"number": 2}]}\n'], [b"nonsense\n"])
    assert list(told.follow_entry("main")) == [{"entry": 1, "events": []}, {"entry": 1, "events": [{"number": 2}]}]
    assert list(told.follow_entry("main")) == []
    assert list(told.follow_entry("main")) == []  # it is not there


def test_an_entry_that_says_nothing_any_more_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FOLLOW_SILENCE", 0.05)
    told: list[socket.socket] = []
    assert list(Watched([b'{"a": 1}\n'], told=told).follow_entry("main")) == [{"a": 1}]
    with told[0]:
        assert told[0].recv(1) == b""


def test_an_engine_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    engine = Engine()  # which asks nothing yet
    with pytest.raises(
        ChainError, match=r"Docker engine at unix:///nowhere/docker\.sock: it does not answer"
    ) as refused:
        engine.containers("main")
    assert refused.value.code is ExitCode.ENGINE


@contextmanager
def engine_of(version: str, api: str, folder: Path) -> Iterator[str]:
    """Answer on a socket as an engine does when it is asked for its version; give the socket's address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {"Version": version, "ApiVersion": api, "MinAPIVersion": "1.12", "KernelVersion": "6.1.0"}
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "a socket without an address"

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingUnixStreamServer(str(folder / "docker.sock"), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"unix://{folder}/docker.sock"
        finally:
            server.shutdown()
            thread.join()


def docker_command(folder: Path, compose: str, buildx: str) -> str:
    """Put a `docker` there whose plugins say that they are of these versions, or are not there; give its folder."""
    program = folder / "docker"
    lines = [
        f"{name}) {f'echo {text}' if text else 'exit 1'};;" for name, text in (("compose", compose), ("buildx", buildx))
    ]
    program.write_text("#!/bin/sh\ncase $1 in\n" + "\n".join(lines) + "\n*) exit 1;;\nesac\n")
    program.chmod(0o755)
    return str(folder)


def test_an_engine_and_a_compose_that_are_too_old_are_named_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", docker_command(tmp_path, "v2.23.3", ""))
    with engine_of("24.0.7", "1.43", tmp_path) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        engine = Engine()
        with pytest.raises(ChainError) as refused:
            together(engine.check, engine.check_compose)
    assert refused.value.code is ExitCode.ENGINE
    assert [str(problem).splitlines() for problem in refused.value.problems] == [
        ["Docker engine: version 24.0.7 is too old", "    → upgrade to 25.0 or newer"],
        [
            "Docker Compose: version v2.23.3 is too old",
            "    → install the plugin docker-compose, 2.24 or newer",
        ],
    ]


def test_an_engine_is_known_by_what_it_can_and_not_by_its_builders_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine_of("2.0.0-beta.24", "1.56", tmp_path) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        Engine().check()


def test_the_docker_commands_plugins_are_known_by_their_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", docker_command(tmp_path, "2.26.1-4", "github.com/docker/buildx v0.13.1 788433953af1"))
    assert (Engine().check_compose(), Engine().check_buildx()) == ("2.26", "0.13")
    monkeypatch.setenv("PATH", docker_command(tmp_path, "", "github.com/docker/buildx v0.7.1"))
    with pytest.raises(ChainError, match="Docker Compose: the plugin is missing"):
        Engine().check_compose()
    with pytest.raises(ChainError, match=r"Docker buildx: version .* is too old"):
        Engine().check_buildx()


def test_without_the_docker_command_its_plugins_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert connection._context_host() is None
    with pytest.raises(ChainError, match="Docker Compose: the plugin is missing"):
        Engine().check_compose()


def test_the_docker_command_is_asked_for_its_context_only_where_one_may_have_been_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho tcp://elsewhere:2375\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    assert connection._context_host() is None
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    assert connection._context_host() == "tcp://elsewhere:2375"
    monkeypatch.delenv("DOCKER_CONTEXT")
    (tmp_path / "config.json").write_text("{}")
    assert connection._context_host() == "tcp://elsewhere:2375"


def test_networks_are_read_as_engines_list_them() -> None:
    attrs = {
        "Name": "yard_link",
        "Id": "0123456789abcdef",
        "Labels": {"com.docker.compose.project": "yard"},
        "Options": {},
        "IPAM": {"Config": [{"Subnet": "10.213.0.0/29"}, {"Subnet": "fd00:1::/64"}]},
    }
    subnets = (IPv4Network("10.213.0.0/29"),)
    assert _network(attrs) == DockerNetwork("yard_link", "yard", subnets, "br-0123456789ab")
    named = attrs | {"Options": {"com.docker.network.bridge.name": "docker0"}, "Labels": None, "IPAM": {"Config": None}}
    assert _network(named) == DockerNetwork("yard_link", "", (), "docker0")


ORDER = Order(asked=1, whoami="a", whoami_server="192.0.2.1", chaos=False)
MEASURED = Measurement(
    target="10.0.0.1",
    answers_ms=(1.5,),
    outside="",
    outside_why="no answer",
    mtu=None,
    fits=None,
    fits_why="",
    bytes=0,
    seconds=0.0,
    download_why="",
)


def saying(**fields: Any) -> bytes:
    return to_json(replace(MEASURED, **fields)).encode() + b"\n"


class Measuring(Engine):
    """An engine whose exit prints these chunks, or is not there."""

    def __init__(self, chunks: list[bytes] | None) -> None:
        self._chunks = chunks
        self.commands: list[list[str]] = []
        self.told: list[socket.socket] = []

    def exit(self, chain: str, name: str) -> Container | None:  # noqa: ARG002 - it has but one
        if self._chunks is None:
            return None

        def exec_run(command: list[str], **_: object) -> SimpleNamespace:
            self.commands.append(command)
            found = printing(self._chunks or [], self.told)
            self.told[-1].shutdown(socket.SHUT_WR)
            return found

        return SimpleNamespace(exec_run=exec_run)


def test_an_exit_tells_what_it_is_doing_and_then_what_it_measured() -> None:
    engine, said = Measuring([b'{"doing": "asking\\u001b"}\n', to_json(MEASURED).encode() + b"\n"]), list[str]()
    assert engine.measure("main", "paris", ORDER, said.append) == MEASURED
    assert said == ["asking\ufffd"]
    # Process lists show a program's arguments, and the order may name a file that not everybody may have.
    assert engine.commands == [["chain-node", "measure"]]
    (told,) = engine.told
    with told:
        assert told.makefile().read() == to_json(ORDER) + "\n"


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        (None, "its container is gone, or says nothing"),
        ([b'{"doing": "asking"}\n'], "its container is gone, or says nothing"),
        ([b'{"error": "the tunnel is down: \\u001bmute"}\n'], "the tunnel is down: \ufffdmute"),
        ([b"{}\n"], "what it says can't be used: Measurement: contract version None"),
        ([b'{"doing": {}}\n'], "what it says can't be used: Measurement: contract version None"),
        *(([nonsense], "what it says can't be used: ") for nonsense in NONSENSE),
        ([b'{"doing": "', b"x" * 70_000], "what it says can't be used: a line of more than 65536 bytes"),
        ([saying(answers_ms=(1.0, 2.0))], "what it says can't be used: more answers than questions"),
        ([saying(answers_ms=(-1.0,))], "what it says can't be used: more answers than questions, or at other times"),
        ([saying(mtu=70_000)], "what it says can't be used: a size that no packet has"),
        ([saying(fits=1400)], "what it says can't be used: a size that no packet has"),
        ([saying(bytes=10**30)], "what it says can't be used: a download that was not asked for"),
        ([saying(seconds=1e-300)], "what it says can't be used: a download that was not asked for"),
        ([saying(seconds=float("inf"))], "what it says can't be used: "),
    ],
)
def test_an_exit_that_measures_nothing_is_not_up(chunks: list[bytes] | None, why: str) -> None:
    with pytest.raises(ChainError, match=f"exit paris: nothing could be measured: {why}") as failed:
        Measuring(chunks).measure("main", "paris", ORDER, lambda _: None)
    assert failed.value.code is ExitCode.NOT_UP


# With Docker's own SDK, and an engine that speaks as one does


class Speaking(BaseHTTPRequestHandler):
    """A container in which each program says what its test wrote down, and goes on until it is left."""

    protocol_version = "HTTP/1.1"
    says: tuple[bytes, ...] = ()
    heard: queue.Queue[bytes]  # all that a program was told, at its end

    def do_GET(self) -> None:
        found = {"Version": "26.1.5", "ApiVersion": "1.45", "MinAPIVersion": "1.24", "KernelVersion": "6.1.0"}
        self._give(found if self.path.endswith("/version") else self._container())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if not self.path.endswith("/start"):
            self._give({"Id": "e1"}, 201)
            return
        self.send_response(101, "UPGRADED")
        for name, value in (("Connection", "Upgrade"), ("Upgrade", "tcp")):
            self.send_header(name, value)
        self.end_headers()
        told = b""
        try:
            for piece in self.says:
                told += self.connection.recv(1000) if piece == HEAR else b""
                self.wfile.write(b"" if piece == HEAR else FRAME.pack(len(piece)) + piece)
            while more := self.connection.recv(1000):
                told += more
        except OSError:
            pass  # it was left while it spoke
        self.heard.put(told)
        self.close_connection = True

    def _container(self) -> object:
        state = {"Id": "c1", "Image": "i1", "Names": ["/exit-paris"], "Labels": {}, "State": "running"}
        return [state] if "/containers/json" in self.path else state

    def _give(self, found: object, code: int = 200) -> None:
        body = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a socket without an address"

    def log_message(self, *_: object) -> None:
        pass


HEAR = b""  # in place of something that is said: it waits until it is told something


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch, folder: Path, *says: bytes) -> Iterator[tuple[Engine, queue.Queue[bytes]]]:
    """Run an engine in whose container programs say this."""
    handler = type("Handler", (Speaking,), {"says": says, "heard": queue.Queue()})
    with ThreadingUnixStreamServer(str(folder / "docker.sock"), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
        engine = Engine()
        try:
            yield engine, vars(handler)["heard"]
        finally:
            engine.sdk.close()
            server.shutdown()
            thread.join()


def test_an_exit_is_ordered_to_measure_by_its_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = list[str]()
    with running(monkeypatch, tmp_path, HEAR, b'{"doing": "asking"}\n', saying()) as (engine, heard):
        assert engine.measure("main", "paris", ORDER, said.append) == MEASURED
        assert heard.get(timeout=10).decode() == to_json(ORDER) + "\n"
    assert said == ["asking"]


def test_an_exit_that_measures_without_end_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connection, "MEASURE_SECONDS", 0.3)
    with running(monkeypatch, tmp_path, HEAR, b'{"doing": "asking"}\n') as (engine, heard):
        with pytest.raises(ChainError, match="it did not end within 0 s"):
            engine.measure("main", "paris", ORDER, lambda _: None)
        assert heard.get(timeout=10)


def test_an_exit_that_speaks_without_end_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with running(monkeypatch, tmp_path, HEAR, *([b"x" * 30_000] * 100)) as (engine, heard):
        with pytest.raises(ChainError, match="a line of more than 65536 bytes"):
            engine.measure("main", "paris", ORDER, lambda _: None)
        assert heard.get(timeout=10)


# Compose


def test_what_takes_a_test_down_does_not_hear_a_terminals_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    program.write_text(
        '#!/bin/sh\necho "$@" $(cut -d" " -f5,6 /proc/$$/stat) >>"$LOG"\n[ -z "$FAILS" ] || '
        "{ echo one >&2; echo two >&2; exit 1; }\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    Engine().compose_down("chain-main", tmp_path / "compose.yaml")
    Engine().compose_down("chain-main_test", None, shielded=True)
    (*usual, group, session), (*shielded, own, alone) = [
        line.split() for line in (tmp_path / "log").read_text().splitlines()
    ]
    down = ["down", "--remove-orphans", "--volumes"]
    assert usual == ["compose", "--file", f"{tmp_path}/compose.yaml", "--project-name", "chain-main", *down]
    assert shielded == ["compose", "--project-name", "chain-main_test", *down]
    assert (int(group), int(session)) == (os.getpgrp(), os.getsid(0))
    assert own == alone != session
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(ChainError, match="docker compose down: two\n"):
        Engine().compose_down("chain-main", None)
