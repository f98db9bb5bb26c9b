"""`chain exit test`: an exit by itself, in the chain and beside it, through another one, and with a dead provider."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from scene import Chain, beside, deaf_providers, exit_at, new_token, stood_down, streaming
from test_causes import shape
from world import INTERNET_HOST, World, docker, eventually

from chain.errors import ExitCode
from chain.node.kinds import causes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from ground import Ground

    Tell = Callable[[str], None]

pytestmark = [pytest.mark.docker, pytest.mark.long]

WHOAMI = f"ch:whoami.cloudflare@{INTERNET_HOST}"
URL, LARGE = f"http://{INTERNET_HOST}/large", 4_000_000
SERVICE = "client2"


def measured(chain: Chain, name: str, *more: str) -> dict[str, Any]:
    """Test an exit that is well."""
    done = chain.run("exit", "test", name, "--json", "--whoami", WHOAMI, "--wait", "240", *more)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["name"] == name
    assert found["problems"] == []
    return found


def refused(chain: Chain, name: str) -> subprocess.CompletedProcess[str]:
    return chain.run("exit", "test", name, "--whoami", WHOAMI, "--wait", "240", check=False)


def left(chain: Chain) -> str:
    """List what is there of a test."""
    label = f"label=com.docker.compose.project={chain.project}_test"
    networks = docker("network", "ls", "--filter", label, "--format", "{{.Name}}")
    return docker("ps", "-a", "--filter", label, "--format", "{{.Names}}") + networks


def rendered(chain: Chain) -> dict[str, bytes]:
    """Read all that is in run/."""
    run = chain.folder / "run"
    return {str(path.relative_to(run)): path.read_bytes() if path.is_file() else b"" for path in run.rglob("*")}


def started(chain: Chain) -> str:
    """Tell which containers run the chain, and since when."""
    label = f"label=com.docker.compose.project={chain.project}"
    names = docker("ps", "--filter", label, "--format", "{{.Names}}").split()
    return docker("inspect", "-f", "{{.Name}} {{.Id}} {{.State.StartedAt}}", *sorted(names)) if names else ""


def assert_measured(found: dict[str, Any], outside: str, target: str = "") -> None:
    assert found["outside"] == {"address": outside, "asked": INTERNET_HOST, "why": ""}
    latency = found["latency"]
    assert (latency["asked"], latency["answered"]) == (10, 10)
    assert 0 < latency["min_ms"] <= latency["median_ms"] <= latency["max_ms"]
    assert target in ("", latency["target"])
    mtu = found["mtu"]
    if found["kind"] == "xray":
        assert (mtu["tunnel"], mtu["fits"], mtu["why"]) == (None, None, "clients' packets do not pass as they are")
    else:
        assert mtu["fits"] == mtu["tunnel"] <= mtu["computed"]


def test_in_the_chain(chain: Chain, world: World, ground: Ground, tell: Tell) -> None:
    chain.answered()
    before, since = started(chain), since_when(chain)
    with streaming(world, new_token(), 50) as stream:
        found = measured(chain, "paris")
    tell(f"in the chain: {json.dumps(found)}\na client meanwhile: {json.dumps(stream)}")
    assert not found["alone"]
    assert_measured(found, ground.preferred.outside)
    assert stream["lost"] == 0
    found = measured(chain, "paris", "--url", URL)
    tell(f"with a download: {json.dumps(found['download'])}")
    assert found["download"]["bytes"] > 0
    assert found["download"]["bytes_per_second"] > 0
    assert (started(chain), since_when(chain)) == (before, since)
    text = chain.run("exit", "test", "oslo", "--whoami", "a.example@192.0.2.1").stdout
    tell(text)
    assert "exit: oslo (wireguard), as it runs in the chain\n" in text
    assert "address outside: not known, 192.0.2.1 gave no answer by TCP port 53 (" in text
    assert left(chain) == ""


def since_when(chain: Chain) -> dict[str, float]:
    return {exit_["name"]: exit_["since"] for exit_ in chain.entry_status()["exits"]}


def test_by_itself(chain: Chain, world: World, ground: Ground, tell: Tell) -> None:
    with stood_down(chain):
        before = rendered(chain)
        found = measured(chain, "paris", "--url", URL)
        tell(f"by itself: {json.dumps(found)}")
        assert found["alone"]
        assert_measured(found, ground.preferred.outside)
        assert (found["download"]["bytes"], found["download"]["why"]) == (LARGE, "")
        # By TLS, and by a name that is asked for through the tunnel.
        found = measured(chain, "oslo", "--url", "https://a.example/large")
        tell(f"by itself: {json.dumps(found)}")
        assert_measured(found, world.site.wireguard2.outside, "10.66.0.1")
        assert (found["download"]["bytes"], found["download"]["why"]) == (LARGE, "")
        assert left(chain) == ""
        assert rendered(chain) == before


def test_what_can_not_be_downloaded_is_said(chain: Chain) -> None:
    found = measured(chain, "oslo", "--url", "http://nobody.signed/")["download"]
    assert found["bytes_per_second"] is None
    assert found["why"].startswith("the name nobody.signed can't be resolved through the tunnel (")
    found = measured(chain, "oslo", "--url", f"http://{INTERNET_HOST}:81/")["download"]
    assert found["why"] == "Connection refused"


def test_with_a_dead_provider(chain: Chain, world: World, ground: Ground, tell: Tell) -> None:
    of_kind = {"xray": causes.XRAY_NO_ANSWER, "openvpn": causes.OPENVPN_NO_ANSWER, "l2tp": causes.NO_ANSWER}
    cause = of_kind.get(ground.kind, causes.NO_HANDSHAKE)
    with stood_down(chain), deaf_providers(world):
        done = refused(chain, "paris")
        tell(done.stderr)
        assert done.returncode == ExitCode.NOT_UP
        expected = rf"error: exit paris: down: {shape(cause.sentence)}\n    → {shape(cause.advice)}\n"
        assert re.search(expected, done.stderr)
        assert "── exit-paris ──" in done.stderr
        assert left(chain) == ""


def test_beside_the_running_chain(chain: Chain, world: World, ground: Ground, tell: Tell) -> None:
    """An exit that was just added, while clients use another one."""
    text = chain.file.read_text()
    config = yaml.safe_load(text)
    del config["exits"]["paris"]
    try:
        chain.file.write_text(yaml.safe_dump(config, sort_keys=False))
        chain.up()
        chain.knock()
        chain.answered()
        before = started(chain)
        chain.file.write_text(text)
        files = rendered(chain)
        with streaming(world, new_token(), 50) as stream:
            found = measured(chain, "paris")
        tell(f"beside the chain: {json.dumps(found)}\na client meanwhile: {json.dumps(stream)}")
        assert found["alone"]
        assert_measured(found, ground.preferred.outside)
        assert stream["lost"] == 0
        assert stream["seen"] == [world.site.wireguard2.outside]
        assert (started(chain), rendered(chain), left(chain)) == (before, files, "")
    finally:
        chain.file.write_text(text)
        chain.up()
        chain.knock()


def test_through_another_one(chain: Chain, world: World, ground: Ground, tell: Tell) -> None:
    """The line is tried as a whole; where the chain runs the first of it, that is not dialled a second time."""
    first, first_files = exit_at(world, "first", world.site.wireguard2, world.site.wireguard2.wan)
    last, last_files = exit_at(world, "last", ground.preferred, ground.preferred.outside)
    del last["uplink"]
    exits = {"last": last | {"via": "first"}, "first": first}
    line = beside(world, "line", 4, exits, first_files | last_files)
    with stood_down(chain):
        try:
            found = measured(line, "last", "--url", URL)
            tell(f"through another one: {json.dumps(found)}")
            assert (found["alone"], found["through"]) == (True, ["first"])
            assert_measured(found, ground.preferred.outside)
            assert found["download"]["bytes"] == LARGE
            assert not (line.folder / "run").exists()
            with deaf_providers(world):
                done = refused(line, "last")
            tell(done.stderr)
            assert done.returncode == ExitCode.NOT_UP
            assert re.search(f"error: exit first: down: {shape(causes.NO_HANDSHAKE.sentence)}\n", done.stderr)
            assert "error: exit last: it runs through first, whose tunnel is not up" in done.stderr
            text = line.file.read_text()
            config = yaml.safe_load(text)
            del config["exits"]["last"]
            line.file.write_text(yaml.safe_dump(config))
            line.up()
            line.file.write_text(text)
            done = refused(line, "last")
            tell(done.stderr)
            assert done.returncode == ExitCode.NOT_RUNNING
            assert "`chain up` takes last into the chain" in done.stderr
            assert left(line) == ""
        finally:
            line.run("down", check=False)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(lone: Chain, ending: signal.Signals) -> None:
    with begun(lone) as process:
        process.send_signal(ending)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert left(lone) == ""
    assert not (lone.folder / "run").exists()


def test_a_second_ctrl_c_does_not_cut_the_way_out_short(lone: Chain) -> None:
    """As a terminal does it: the programs that the command started get it too."""
    with begun(lone, own_session=True) as process:
        said = ""
        for line in process.stdout or ():
            said += line
            if line.startswith("Waiting for the tunnel …"):
                break
        os.killpg(process.pid, signal.SIGINT)
        until = time.monotonic() + 120
        while left(lone):  # whatever it is at
            assert time.monotonic() < until, said
            os.killpg(process.pid, signal.SIGINT)
        said += process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not (lone.folder / "run").exists()


@pytest.mark.rare
def test_killed(lone: Chain) -> None:
    """What is left goes with the next command, whichever it is."""
    for command in (("exit", "test", "oslo"), ("up", "--wait", "0"), ("down",)):
        with begun(lone) as process:
            process.kill()
        assert left(lone)
        findings = json.loads(lone.run("doctor", "--json", check=False).stdout)["findings"]
        assert [found["level"] for found in findings if found["name"] == "exit test"] == ["warn"]
        assert "end chain-lone_test: " in lone.run("up", "--dry-run").stdout
        lone.run(*command, check=False)
        assert left(lone) == ""
        assert not (lone.folder / "run" / "test").exists()
        lone.down()


@contextmanager
def begun(lone: Chain, *, own_session: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Begin a test of an exit that nobody answers, and come to where it waits."""
    # A job in a shell's background ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = lone.start("exit", "test", "oslo", own_session=own_session)
    try:
        eventually(lambda: f"{lone.project}_test-exit-oslo-1" in left(lone), 180, "the exit by itself")
        yield process
    finally:
        process.kill()
        process.wait(60)
