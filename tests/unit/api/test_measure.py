"""What is decided around a test of an exit. The tests themselves, with containers, are in tests/scenarios."""

from __future__ import annotations

import fcntl
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chain.api import measure
from chain.api.load import load
from chain.api.measure import Request, request, try_exit, wait
from chain.api.progress import Silent
from chain.api.project import write_atomic
from chain.checks import DockerNetwork
from chain.contract import HostFacts, Measurement
from chain.errors import ChainError, ExitCode
from chain.node.resolve import question
from tests.unit.api.conftest import ScriptedEngine

if TYPE_CHECKING:
    from chain.api.load import Loaded
    from chain.api.project import Project
    from chain.engine.connection import ContainerState

WHOAMI = "ch:whoami.cloudflare@1.1.1.1"
ROLES = ("vpn_server_ip", "vpn_ipsec_psk", "vpn_username", "vpn_password")
MEASURED = Measurement(
    target="10.0.0.1",
    answers_ms=(3.0, 1.0, 2.5),
    outside="203.0.113.9",
    outside_why="",
    mtu=1400,
    fits=1400,
    fits_why="",
    bytes=3_000_000,
    seconds=1.5,
    download_why="",
)


def wanted(name: str = "paris", url: str | None = None) -> Request:
    return request(name, WHOAMI, url, 10.0)


def says(state: str, since: float = 1.0, name: str = "paris", warning: str = "") -> dict[str, Any]:
    """Give what an exit says of itself."""
    said = {"name": name, "kind": "l2tp", "state": state, "since": since, "cause": f"why {state}", "advice": "look"}
    return {"exits": [said | {"warning": warning, "open": state == "up", "targets": ["10.0.0.1"]}]}


@pytest.fixture
def ready(project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose exit could be dialled, on an engine that can run it."""
    project.secrets.mkdir(mode=0o700)
    for role in ROLES:
        write_atomic(project.secrets / role, "value\n", 0o600)
    engine.host = HostFacts(time=1_800_000_000.0, routes=(), addresses=(), udp_ports=())
    engine.kernel = dict.fromkeys(("ppp", "l2tp", "xfrm", "esp"), True)
    engine.measured = MEASURED
    monkeypatch.setattr(engine, "check", lambda: None)  # there is no Docker behind it
    return project


# The command line


def test_what_is_asked_of_whom_is_read() -> None:
    found = request("paris", WHOAMI, "https://files.example:8443/large?size=9", 5.0)
    order = found.order
    assert (found.exit, found.wait, order.url) == ("paris", 5.0, "https://files.example:8443/large?size=9")
    assert (order.whoami, order.whoami_server, order.chaos) == ("whoami.cloudflare", "1.1.1.1", True)
    usual = request("paris", "o-o.myaddr.l.google.com@216.239.32.10", None, 5.0).order
    assert (usual.whoami, usual.chaos, usual.url) == ("o-o.myaddr.l.google.com", False, "")


@pytest.mark.parametrize(
    "whoami", ["", "a", "a@b.example", "@1.1.1.1", "in:a@1.1.1.1", "a b@1.1.1.1", "\u00e9@1.1.1.1"]
)
def test_what_is_no_question_is_refused(whoami: str) -> None:
    with pytest.raises(ChainError, match="is not NAME@ADDRESS") as refused:
        request("paris", whoami, None, 5.0)
    assert refused.value.code is ExitCode.USAGE


LONGEST = ".".join(["a" * 63] * 3 + ["b" * 61])


@pytest.mark.parametrize(
    ("whoami", "why"),
    [
        ("a.example@127.0.0.11", "nobody beyond a tunnel has the address 127.0.0.11"),
        ("a.example@0.0.0.0", "nobody beyond a tunnel"),
        ("a.example@0.1.2.3", "nobody beyond a tunnel"),
        ("a.example@169.254.1.1", "nobody beyond a tunnel"),
        ("a.example@224.0.0.1", "nobody beyond a tunnel"),
        ("a.example@255.255.255.255", "nobody beyond a tunnel"),
        ("a.example@1.2.3", r"1\.2\.3 is no IPv4 address"),
        ("a.example@1.2.3.256", r"1\.2\.3\.256 is no IPv4 address"),
        (f"{'a' * 64}.example@1.1.1.1", "is no name: it has 253 characters at most, and 1 to 63 between its dots"),
        (f"{LONGEST}c@1.1.1.1", "is no name"),
        ("a..example@1.1.1.1", "is no name"),
        (".a@1.1.1.1", "is no name"),
        (".@1.1.1.1", "is no name"),
    ],
)
def test_a_question_that_nobody_can_answer_is_refused(whoami: str, why: str) -> None:
    with pytest.raises(ChainError, match=f"^--whoami: .*{why}") as refused:
        request("paris", whoami, None, 5.0)
    assert refused.value.code is ExitCode.USAGE


@pytest.mark.parametrize("whoami", [f"{LONGEST}@1.1.1.1", "a.example.@10.0.0.1", f"{'a' * 63}@192.0.2.1"])
def test_a_question_at_the_limits_is_asked(whoami: str) -> None:
    order = request("paris", whoami, None, 5.0).order
    assert question(order.whoami, 0)
    assert f"{order.whoami}@{order.whoami_server}" == whoami


def test_a_url_with_a_secret_in_it_is_not_shown() -> None:
    url = "https://files.example:8443/d/token?key=secret"
    hidden = request("paris", WHOAMI, url, 5.0, secret_url=True)
    assert (hidden.order.url, hidden.shown_url) == (url, "https://files.example:8443/…")
    assert request("paris", WHOAMI, url, 5.0).shown_url == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "it does not begin with http"),
        ("files.example/large", "it does not begin with http"),
        ("ftp://files.example/large", "it does not begin with http"),
        ("http:///large", "it does not begin with http"),
        ("http://me:word@files.example/", "it has a user name, and none is ever sent"),
        ("http://[2001:db8::1]/", "no exit carries IPv6"),
        ("http://files.example:0/", "0 is no port"),
        ("http://files.example:99999/", "Port out of range"),
        ("http://files.example/a b", "written as %XX"),
        ("http://files.example/\u00e9", "written as %XX"),
        ("http://files.example/a\r\nHost: b", "written as %XX"),
    ],
)
def test_what_is_no_url_is_refused(url: str, why: str) -> None:
    with pytest.raises(ChainError, match=why) as refused:
        request("paris", WHOAMI, url, 5.0)
    assert refused.value.code is ExitCode.USAGE


# In the chain


def test_an_exit_that_the_chain_runs_is_measured_there(ready: Project, engine: ScriptedEngine) -> None:
    engine.runs_as_rendered("exit-paris", load(ready, engine).files())
    engine.exit_statuses = {"paris": [None, says("dialling"), says("up")]}
    tried = try_exit(ready, engine, Silent(), wanted(url="http://files.example/large"))
    assert tried.found == {
        "name": "paris",
        "kind": "l2tp",
        "through": [],
        "alone": False,
        "outside": {"address": "203.0.113.9", "asked": "1.1.1.1", "why": ""},
        "latency": {
            "target": "10.0.0.1",
            "asked": 10,
            "answered": 3,
            "median_ms": 2.5,
            "min_ms": 1.0,
            "max_ms": 3.0,
        },
        "mtu": {"computed": load(ready, engine).topology.exits[0].mtu, "tunnel": 1400, "fits": 1400, "why": ""},
        "download": {
            "url": "http://files.example/large",
            "bytes": 3_000_000,
            "seconds": 1.5,
            "bytes_per_second": 2_000_000,
            "why": "",
        },
    }
    assert not tried.problems
    assert engine.ordered[0].resolvers == ("9.9.9.9@53", "1.1.1.1@53")
    assert not ready.run.exists()


def test_what_is_not_as_it_should_be_is_said(ready: Project, engine: ScriptedEngine) -> None:
    engine.runs_as_rendered("exit-paris", load(ready, engine).files())
    engine.exit_statuses = {"paris": [says("up", warning="it limps")]}
    engine.measured = replace(MEASURED, fits=1300, outside="", outside_why="no \x1b[2Janswer")
    tried = try_exit(ready, engine, Silent(), wanted())
    assert (tried.found["download"], tried.found["outside"]["address"]) == (None, None)
    assert tried.found["outside"]["why"] == "no \ufffd[2Janswer"
    assert [str(problem) for problem in tried.problems] == [
        "exit paris: it limps\n    → look",
        (
            "exit paris: packets of 1400 bytes, the tunnel's full size, get lost, and those of up to 1300 bytes pass\n"
            "    → `mtu: 1300` on this exit, and `chain up`"
        ),
    ]


def test_a_tunnel_that_was_lost_meanwhile_is_not_up(ready: Project, engine: ScriptedEngine) -> None:
    engine.runs_as_rendered("exit-paris", load(ready, engine).files())
    engine.exit_statuses = {"paris": [says("up")]}
    engine.measured = replace(MEASURED, answers_ms=())
    with pytest.raises(ChainError, match="none of 10 questions was answered") as failed:
        try_exit(ready, engine, Silent(), wanted())
    assert failed.value.code is ExitCode.NOT_UP


def test_that_what_runs_is_not_what_chain_yaml_says_is_told(ready: Project, engine: ScriptedEngine) -> None:
    engine.runs_as_rendered("exit-paris", load(ready, engine).files())
    engine.exit_statuses = {"paris": [says("up")]}
    write_atomic(ready.secrets / "vpn_password", "another\n", 0o600)
    changed = "exit paris: its settings or secrets have changed since it was started: what runs was tested\n"
    changed += "    → `chain up` applies them"
    assert [str(problem) for problem in try_exit(ready, engine, Silent(), wanted()).problems] == [changed]
    engine.exit_statuses = {"paris": [says("locked"), says("down", 2.0), says("down", 3.0)]}
    with pytest.raises(ChainError) as failed:
        try_exit(ready, engine, Silent(), wanted())
    assert (failed.value.code, str(failed.value.problems[1])) == (ExitCode.NOT_UP, changed)
    engine.states[0] = replace(engine.states[0], image="chain-exit-l2tp:older")
    with pytest.raises(ChainError, match="made by another version of chain") as refused:
        try_exit(ready, engine, Silent(), wanted())
    assert refused.value.code is ExitCode.NOT_RUNNING


def test_an_exit_that_is_not_there_is_none(ready: Project, engine: ScriptedEngine) -> None:
    with pytest.raises(ChainError, match="no such exit") as refused:
        try_exit(ready, engine, Silent(), wanted("rome"))
    assert refused.value.code is ExitCode.CONFIG


HOPS = """\
entry: {endpoint: vpn.example.org}
exits:
  bern: {kind: l2tp, via: paris}
  paris: {kind: wireguard, endpoint: "192.0.2.2:51820", public_key: KEY, address: 10.65.0.2/32}
""".replace("KEY", "3hSkUNaT6/OFOBQR2O6IevrHpJzR6t8xSDnCikOJbTM=")


@pytest.mark.parametrize("state", ["running", "restarting"])
def test_what_an_exit_runs_through_is_not_dialled_twice(ready: Project, engine: ScriptedEngine, state: str) -> None:
    ready.file.write_text(HOPS)
    engine.runs("exit-paris", state)
    with pytest.raises(ChainError, match="it runs through paris, which the chain runs already") as refused:
        try_exit(ready, engine, Silent(), wanted("bern"))
    assert refused.value.code is ExitCode.NOT_RUNNING


# Waiting


def waited(engine: ScriptedEngine, *line: str) -> str:
    """Wait in vain; give what is said of it."""
    with pytest.raises(ChainError) as failed:
        wait("main", line, engine, Silent(), 3600.0)
    assert failed.value.code is ExitCode.NOT_UP
    return "\n".join(str(problem) for problem in failed.value.problems) + f"\n{failed.value.detail}"


def test_after_two_failed_dials_nobody_waits_for_a_third(engine: ScriptedEngine) -> None:
    engine.runs("exit-paris")
    dials = [says("locked"), says("dialling"), says("down", 2.0), says("dialling"), says("down", 3.0), says("up")]
    engine.exit_statuses = {"paris": [*dials]}
    assert waited(engine, "paris") == (
        "exit paris: down: why down\n    → look\n── exit-paris ──\nlast words of id-exit-paris"
    )


def test_that_it_was_down_before_is_no_failed_dial(engine: ScriptedEngine) -> None:
    engine.exit_statuses = {"paris": [says("down"), says("down"), says("down", 2.0), says("up")]}
    assert wait("main", ("paris",), engine, Silent(), 3600.0) == []


def test_the_outermost_exit_comes_first_and_is_to_blame(engine: ScriptedEngine) -> None:
    engine.exit_statuses = {
        "bern": [says("down", name="bern"), says("up", 2.0, name="bern")],
        "paris": [says("dialling"), says("up")],
    }
    assert wait("main", ("bern", "paris"), engine, Silent(), 3600.0) == []
    assert engine.watched == ["paris", "bern"]
    engine.exit_statuses["paris"] = [says("locked"), says("down", 2.0), says("down", 3.0)]
    assert waited(engine, "bern", "paris") == (
        "exit paris: down: why down\n    → look\n"
        "exit bern: it runs through paris, whose tunnel is not up, and so was not dialled\n    → mend paris first\n"
    )


WELL = says("down")["exits"][0]


@pytest.mark.parametrize(
    "status",
    [
        {"generation": "1"},
        {"exits": None},
        {"exits": []},
        {"exits": [7]},
        {"exits": [WELL, WELL]},
        {"exits": {"0": WELL}},
        *(
            {"exits": [{key: value for key, value in WELL.items() if key != left_out}]}
            for left_out in ("since", "open")
        ),
        {"exits": [WELL | {"state": None}]},
        {"exits": [WELL | {"cause": ["\x1b[2J"]}]},
        {"exits": [WELL | {"advice": 7}]},
        {"exits": [WELL | {"since": []}]},
        {"exits": [WELL | {"since": True}]},
        {"exits": [WELL | {"open": "yes"}]},
    ],
)
def test_a_container_that_says_what_no_exit_says_is_not_up(engine: ScriptedEngine, status: dict[str, Any]) -> None:
    engine.exit_statuses = {"paris": [status, says("up")]}
    assert waited(engine, "paris").startswith(
        "exit paris: its container says of itself what no exit says, and may have been taken over\n"
    )


def test_an_exit_is_called_what_chain_yaml_calls_it_and_its_words_steer_no_terminal(engine: ScriptedEngine) -> None:
    said = WELL | {"name": "oslo", "kind": 7, "cause": "\x1b[2J" + "x" * 1000}
    engine.exit_statuses = {"paris": [{"exits": [said | {"since": since}]} for since in (1.0, 2, 3.5)]}
    text = waited(engine, "paris")
    assert text.startswith("exit paris: down: \ufffd[2Jxxx")
    assert len(text) < 400


def test_a_container_that_ended_is_not_waited_for(engine: ScriptedEngine) -> None:
    engine.runs("exit-paris", "exited")
    engine.runs("exit-oslo", "exited")  # which nobody asked about
    engine.exit_statuses = {"paris": [None]}
    assert waited(engine, "paris").startswith(
        "container exit-paris: it ended with 1 and does not stay up\n    → its log is below\n── exit-paris ──"
    )


def test_a_runtime_that_says_nothing_is_named(engine: ScriptedEngine) -> None:
    engine.runs("exit-paris")
    engine.exit_statuses = {"paris": [None]}
    with pytest.raises(ChainError, match="container exit-paris: its runtime does not answer"):
        wait("main", ("paris",), engine, Silent(), 0.0)


# By itself


@pytest.fixture
def composed(ready: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    """What was started instead of containers; they are there, and say that they are up."""
    started: list[Loaded] = []

    def compose_up(loaded: Loaded, _: object) -> None:
        started.append(loaded)
        assert {str(path.relative_to(ready.run)) for path in ready.run.rglob("*.*") if path.is_file()} == {
            "test/.unfinished",
            "test/compose.yaml",
            "test/exits/paris/settings.json",
        }

    monkeypatch.setattr(measure, "compose_up", compose_up)
    monkeypatch.setattr(engine, "leftovers", lambda _: [])
    engine.exit_statuses = {"paris": [says("up")]}
    return started


def test_an_exit_that_nobody_runs_is_started_and_taken_down(
    ready: Project, engine: ScriptedEngine, composed: list[Loaded]
) -> None:
    own = load(ready, engine).topology.exits[0].link.subnet
    engine.others = [DockerNetwork("chain-main_link-paris", "chain-main", (own,), "br-0")]
    tried = try_exit(ready, engine, Silent(), wanted())
    assert tried.found["alone"]
    (started,) = composed
    assert (started.topology.project, started.project.run) == ("chain-main_test", ready.root / "run" / "test")
    assert not started.topology.exits[0].link.subnet.overlaps(own)
    assert [secret.path for secret in started.topology.exits[0].secrets] == [f"secrets/{role}" for role in ROLES]
    assert engine.tried == [["check-kernel", "ppp", "l2tp", "xfrm", "esp"]]
    assert not ready.run.exists()


def test_the_chains_own_files_stay(ready: Project, engine: ScriptedEngine, composed: list[Loaded]) -> None:
    ready.run.mkdir()
    try_exit(ready, engine, Silent(), wanted())
    assert composed
    assert not ready.run.exists()  # it was empty
    ready.run.mkdir()
    (ready.run / "notes").write_text("the user's own")
    try_exit(ready, engine, Silent(), wanted())
    assert [path.name for path in ready.run.iterdir()] == ["notes"]


def test_asking_again_does_not_cut_the_way_out_short(
    ready: Project, engine: ScriptedEngine, composed: list[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> Any:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:  # on the way out already, and not yet where it is taken down
            for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), ending)

    monkeypatch.setattr(engine, "watch_exit", opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as above
    with pytest.raises(KeyboardInterrupt):
        try_exit(ready, engine, Silent(), wanted())
    assert composed
    assert not ready.run.exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_however_it_ends_it_is_taken_down(
    ready: Project, engine: ScriptedEngine, composed: list[Loaded], ending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> Any:
        os.kill(os.getpid(), ending)

    monkeypatch.setattr(engine, "watch_exit", opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, and is then left so
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(KeyboardInterrupt):
        try_exit(ready, engine, Silent(), wanted())
    assert composed
    assert not ready.run.exists()
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_who_ignores_a_hangup_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with measure._heard(measure._interrupt):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_chain_that_came_up_meanwhile_is_not_dialled_again(
    ready: Project, engine: ScriptedEngine, composed: list[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = load(ready, engine).files()
    monkeypatch.setattr(measure, "build_images", lambda *_: engine.runs_as_rendered("exit-paris", files))
    assert not try_exit(ready, engine, Silent(), wanted()).found["alone"]
    assert not composed


def test_nobody_else_changes_the_chain_meanwhile(
    ready: Project, engine: ScriptedEngine, composed: list[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "measure", lambda *_: MEASURED if locked(ready) else None)
    assert try_exit(ready, engine, Silent(), wanted())
    assert composed
    assert not locked(ready)


def locked(project: Project) -> bool:
    folder = os.open(project.root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(folder)
    return False


def test_another_folders_test_is_left_alone(ready: Project, engine: ScriptedEngine, composed: list[Loaded]) -> None:
    class Elsewhere(ScriptedEngine):
        def containers(self, chain: str) -> list[ContainerState]:
            return super().containers(chain) if chain == "main_test" else []

    elsewhere = Elsewhere()
    vars(elsewhere).update(vars(engine))
    elsewhere.runs("exit-paris", folder="/srv/other/run/test")
    with pytest.raises(
        ChainError, match="an exit of a chain of this name is being tested from /srv/other\n"
    ) as refused:
        try_exit(ready, elsewhere, Silent(), wanted())
    assert refused.value.code is ExitCode.CONFIG
    assert not composed


def test_missing_secrets_of_others_do_not_matter(
    ready: Project, engine: ScriptedEngine, composed: list[Loaded]
) -> None:
    text = "entry: {endpoint: vpn.example.org}\nexits:\n  paris: {kind: l2tp}\n  rome: {kind: l2tp}\n"
    ready.file.write_text(text)
    for role in ROLES:  # the plain names serve nobody any more
        (ready.secrets / role).rename(ready.secrets / f"paris_{role}")
    assert try_exit(ready, engine, Silent(), wanted()).found["alone"]
    assert len(composed) == 1
    with pytest.raises(ChainError, match="rome_vpn_password: this secret's file is missing") as refused:
        try_exit(ready, engine, Silent(), wanted("rome"))
    assert refused.value.code is ExitCode.CONFIG
