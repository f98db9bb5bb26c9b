"""Commands that are killed or interrupted at any step, against a real engine: the same command goes on from there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from ground import LONG
from scene import REPOSITORY
from world import docker, eventually

from chain.engine import connection, images
from chain.engine.connection import LABEL_CHECK
from chain.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Collection

    from scene import Chain

    from chain.engine.connection import Engine

pytestmark = [pytest.mark.docker, pytest.mark.long]

HOOK = Path(__file__).parents[1] / "crash"


def run(chain: Chain, *arguments: str, number: int = 0, log: Path | None = None) -> int:
    """Run a command that is killed before its act of this number; give its exit code, -9 for killed."""
    environment = {"PYTHONPATH": str(HOOK), "CRASH_FOLDER": str(chain.folder), "CRASH_AT": str(number)}
    environment["CRASH_LOG"] = str(log or "")
    done = subprocess.run(
        chain.command(*arguments),
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode


def acts(chain: Chain, tmp_path: Path, *arguments: str) -> dict[int, str]:
    """Let a command end by itself; give its acts on the engine and those on files that matter to it, by number.

    tests/crash kills at each act on files; here it is those between which a command's large steps lie.
    """
    log = tmp_path / "acts"
    log.unlink(missing_ok=True)
    run(chain, *arguments, log=log)
    named = dict(enumerate(log.read_text().splitlines(), start=1))
    chosen = ("ask", "start compose --file", "os.rename /config", "os.rename /run/.compose", "os.remove")
    temporary = ("os.remove", "*")
    return {
        number: name for number, name in named.items() if name.startswith(chosen) and (name[:9], name[-1]) != temporary
    }


UP = ("up", "--wait", "0")  # nobody answers the exit: NOT_UP is as far as this chain comes


def assert_up(chain: Chain) -> None:
    """Bring the chain up by the same command as before, and see that nothing is left to do."""
    done = chain.run(*UP, check=False)
    assert done.returncode == ExitCode.NOT_UP, done.stderr
    assert containers(chain) == {"entry", "exit-oslo"}
    assert chain.run("up", "--dry-run").stdout == "Nothing has to change.\n"
    for path in (chain.folder / "run").rglob("*"):
        assert path.suffix != ".part"
        if path.suffix in (".json", ".yaml"):
            assert yaml.safe_load(path.read_text())


def assert_down(chain: Chain) -> None:
    chain.down()
    label = f"label=com.docker.compose.project={chain.project}"
    assert docker("ps", "-aq", "--filter", label) == docker("network", "ls", "-q", "--filter", label) == ""


def containers(chain: Chain) -> set[str]:
    """Name the services that run."""
    label = f"label=com.docker.compose.project={chain.project}"
    return set(docker("ps", "--filter", label, "--format", '{{.Label "com.docker.compose.service"}}').split())


def runs(chain: Chain, service: str) -> bool:
    return service in containers(chain)


def afresh(chain: Chain) -> None:
    """Have the next `up` find nothing of an earlier one."""
    assert_down(chain)
    shutil.rmtree(chain.folder / "run")
    shutil.rmtree(chain.folder / "secrets" / "peers")
    (chain.folder / "secrets" / "entry_private_key").unlink()


def test_up_killed(lone: Chain, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = acts(lone, tmp_path, *UP)
    assert {name.split()[0] for name in steps.values()} == {"ask", "start", "os.rename", "os.remove"}
    for number in list(steps) if LONG else list(steps)[::8]:
        afresh(lone)
        assert run(lone, *UP, number=number) == -signal.SIGKILL
        assert_up(lone)
    if not LONG:
        return
    # Among them was one that had made, and not removed, the container that looks at the kernel.
    left = ("ps", "-aq", "--filter", f"label={LABEL_CHECK}")
    assert docker(*left)
    monkeypatch.setattr(connection, "CHECK_STALE", "1ms")
    engine.run_check(images.describe(["entry"])["entry"].name, ["check-kernel", "tun"])
    assert docker(*left) == ""


def test_up_killed_while_containers_start(lone: Chain) -> None:
    lone.run("build")
    for service in ("entry", "exit-oslo"):
        starting = lone.start(*UP)
        eventually(partial(runs, lone, service), 60, f"{service} runs")
        starting.kill()
        starting.communicate()
        assert_up(lone)
        assert_down(lone)


def test_down_killed(lone: Chain, tmp_path: Path) -> None:
    assert_up(lone)
    for number in acts(lone, tmp_path, "down"):
        assert_up(lone)
        assert run(lone, "down", number=number) == -signal.SIGKILL
        assert_down(lone)
    assert_up(lone)
    stopping = lone.start("down")
    eventually(lambda: len(containers(lone)) < 2, 60, "a container has stopped")
    stopping.kill()
    stopping.communicate()
    assert_down(lone)


def sample(steps: Collection[int]) -> list[int]:
    """Pick every other one, where not all are wanted."""
    return list(steps) if LONG else list(steps)[::2]


def clients(chain: Chain) -> list[str]:
    return [client["name"] for client in chain.entry_status()["clients"]]


def test_client_killed(lone: Chain, tmp_path: Path) -> None:
    add, remove = ("client", "add", "phone"), ("client", "remove", "phone")
    assert_up(lone)
    lone.run(*add)  # makes folders, as no later one does
    lone.run(*remove)
    adding, removing = acts(lone, tmp_path, *add), acts(lone, tmp_path, *remove)
    assert len(adding) > 2
    assert len(removing) > 2
    for number in sample(adding):
        assert run(lone, *add, number=number) == -signal.SIGKILL
        done = lone.run(*add, check=False)
        if done.returncode:
            assert "this client exists" in done.stderr
            assert_up(lone)  # as the message says
        assert clients(lone) == ["phone"]
        assert "PrivateKey" in lone.run("client", "show", "phone").stdout
        lone.run(*remove)
    for number in sample(removing):
        lone.run(*add)
        assert run(lone, *remove, number=number) == -signal.SIGKILL
        assert lone.run(*remove).stdout == "Removed phone.\n"
        assert clients(lone) == []
        assert not list(lone.folder.glob("secrets/*/phone"))


@pytest.mark.parametrize("title", ["Checking the configuration", "Starting containers", "Waiting for the tunnels"])
def test_up_interrupted(lone: Chain, title: str) -> None:
    lone.run("build")
    # A job in a shell's background ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    starting = subprocess.Popen(
        lone.command("up"),
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said = ""
    for line in starting.stderr or ():
        said += line
        if line.startswith(f"{title} …"):
            os.killpg(starting.pid, signal.SIGINT)  # as a terminal's Ctrl-C: programs that it started get it too
    assert starting.wait(60) == 130, said
    assert said.endswith("\ninterrupted; the same command goes on from here\n")
    assert "Traceback" not in said
    assert_up(lone)
