from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from chain.api import hooks, steer
from chain.api.load import load
from chain.api.progress import Silent
from chain.api.steer import Place, Told
from chain.errors import ChainError, ExitCode
from tests.receiver import HANG, SECONDS, Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chain.api.project import Project
    from tests.unit.api.conftest import ScriptedEngine

PATH = "/services/T0K3N?key=hunter2"
ROOT = Path(__file__).parents[3]


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(hooks, "JITTER", 0.001)
    monkeypatch.setattr(steer, "FIRST_PAUSE", 0.001)


def configure(project: Project, *found: dict[str, Any], **urls: str) -> None:
    """Give the project these hooks, and files of these names with a URL in each."""
    config = yaml.safe_load(project.file.read_text())
    project.file.write_text(yaml.safe_dump(config | {"hooks": list(found)}))
    project.secrets.mkdir(exist_ok=True, mode=0o700)
    for name, url in urls.items():
        (project.secrets / name).write_text(f"{url}{PATH}\n")
        (project.secrets / name).chmod(0o600)


def posting(name: str, *events: str) -> dict[str, Any]:
    return {"webhook": {"file": f"secrets/{name}"}} | ({"events": list(events)} if events else {})


def told(entry: int, *numbers: int, event: str = "move") -> dict[str, Any]:
    return {"entry": entry, "events": [{"number": number, "event": event, "time": 1.5} for number in numbers]}


def follow(project: Project, engine: ScriptedEngine, *scenes: Iterable[dict[str, Any]]) -> list[str]:
    """Run the hooks on what an entry tells, one list or generator for each time that it is followed; give the notes."""
    progress = Notes()
    engine.told = list(scenes)
    with pytest.raises(KeyboardInterrupt):
        hooks.run(load(project, engine), engine, progress)
    return progress.said[1:]


def numbers(server: Receiver) -> list[int]:
    return [json.loads(body)["number"] for _, _, body in server.came]


def until(done: Callable[[], object], *answers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Tell all this, and go on when that is done."""
    yield from answers
    done()


def places(project: Project) -> list[list[int]]:
    return list(json.loads((project.run / "hooks.json").read_text())["hooks"].values())


def test_what_happens_is_posted_until_it_is_taken(project: Project, engine: ScriptedEngine) -> None:
    with receiving(500, 302, 204) as server:
        configure(project, posting("one"), one=server.address)
        said = follow(project, engine, until(lambda: server.wait_for(4), told(5), told(5, 6, 7)))
    assert numbers(server) == [6, 6, 6, 7]
    assert json.loads(server.came[0][2]) == {"chain": "main", "number": 6, "event": "move", "time": 1.5}
    assert {path for path, _, _ in server.came} == {PATH}  # nobody went where the redirection led
    assert said == []
    assert places(project) == [[5, 7]]
    assert (project.run / "hooks.json").stat().st_mode & 0o777 == 0o600


def test_a_restart_repeats_nothing_and_leaves_nothing_out(project: Project, engine: ScriptedEngine) -> None:
    with receiving(200) as server:
        configure(project, posting("one"), one=server.address)
        # What happened before a hook was there is not for it.
        follow(project, engine, until(lambda: server.wait_for(1), told(5, 6), told(5, 7)))
        follow(project, engine, until(lambda: server.wait_for(3), told(5, 6, 7, 8, 9)))
        # Another entry, whose clock had been set back; and one that is followed again.
        follow(project, engine, until(lambda: server.wait_for(4), told(3, 4)), [told(3, 4)])
        # A new one beside it, and in its place in the file.
        configure(project, {"command": ["true"]}, posting("one"))
        follow(project, engine, until(lambda: server.wait_for(5), told(3, 4), told(3, 4, 8)))
    assert numbers(server) == [7, 8, 9, 4, 8]


def test_only_what_a_hook_asks_for_is_handed_to_it(project: Project, engine: ScriptedEngine) -> None:
    with receiving(200) as server:
        configure(project, posting("one", "move"), one=server.address)
        answers = told(5), told(5, 6, event="exit"), told(5, 7), told(5, 8, event="drain"), told(5, 9)
        follow(project, engine, until(lambda: server.wait_for(2), *answers))
    assert numbers(server) == [7, 9]


def test_what_a_hook_did_not_ask_for_is_not_handed_to_it_when_it_asks_for_more(
    project: Project, engine: ScriptedEngine
) -> None:
    with receiving(200) as server:
        configure(project, posting("one", "move"), one=server.address)
        follow(project, engine, [told(5), told(5, 6, event="exit"), told(5, 7, event="drain")])
        configure(project, posting("one", "move", "exit", "drain"))
        follow(project, engine, until(lambda: server.wait_for(1), told(5, 6, event="exit"), told(5, 7, 8)))
    assert numbers(server) == [8]


def test_one_that_hangs_holds_up_no_other(project: Project, engine: ScriptedEngine) -> None:
    pipe = project.root / "seen"
    os.mkfifo(pipe)
    with receiving(HANG) as hanging, receiving(200) as server:
        commands = {"command": ["sh", "-c", "cat >seen"]}
        configure(project, posting("one"), commands, posting("two"), one=hanging.address, two=server.address)

        def others_are_served() -> None:
            hanging.wait_for(1)
            server.wait_for(3)
            assert [json.loads(pipe.read_text())["number"] for _ in range(3)] == [6, 7, 8]
            hanging.released.set()

        follow(project, engine, until(others_are_served, told(5), told(5, 6, 7, 8)))
    assert numbers(server) == [6, 7, 8]
    assert numbers(hanging)[0] == 6


def test_what_fails_again_and_again_is_dropped_and_that_is_said(project: Project, engine: ScriptedEngine) -> None:
    with receiving(*[503] * hooks.ATTEMPTS, 200) as server:
        configure(project, posting("one"), one=server.address)
        said = follow(project, engine, until(lambda: server.wait_for(hooks.ATTEMPTS + 1), told(5), told(5, 6, 7)))
    assert numbers(server) == [6] * hooks.ATTEMPTS + [7]
    assert said == ["hook 1 (webhook, secrets/one): event 6 was dropped after 8 attempts: it answered 503"]
    assert places(project) == [[5, 7]]


def test_what_was_not_handed_over_before_the_end_is_handed_over_by_the_next_process(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving(500, 200) as server:
        configure(project, posting("one"), one=server.address)
        monkeypatch.setattr(hooks, "FIRST_PAUSE", 3600.0)  # it is waiting for the next attempt when it ends
        assert follow(project, engine, until(lambda: server.wait_for(1), told(5), told(5, 6, 7))) == []
        assert places(project) == [[5, 5]]
        follow(project, engine, until(lambda: server.wait_for(3), told(5, 6, 7)))
    assert numbers(server) == [6, 6, 7]


def test_an_attempt_that_runs_comes_to_its_end(
    project: Project, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "QUIET_END", 0.0)
    pipe, steps = project.root / "pipe", list[str]()
    os.mkfifo(pipe)
    configure(project, {"command": ["sh", "-c", "cat >pipe; cat pipe"]})

    class Steps(Silent):
        def step(self, title: str) -> Any:
            steps.append(title)
            release.start()
            return super().step(title)

    # It begins, and ends when this has been read and something written, which is after one was told to end.
    release = threading.Thread(target=lambda: pipe.write_text("done"))
    engine.told = [until(pipe.read_text, told(5), told(5, 6, 7))]
    with pytest.raises(KeyboardInterrupt):
        hooks.run(load(project, engine), engine, Steps())
    release.join()
    assert steps == ["Waiting for hook 1 (command)"]
    assert places(project) == [[5, 6]]


def test_a_queue_that_is_full_loses_its_oldest(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "MOST_WAITING", 2)
    progress = Notes()
    with receiving(HANG, 200) as server:
        configure(project, posting("one"), one=server.address)
        (hook,) = load_hooks(project)
        found = hooks.Places(project.run / "hooks.json", progress)
        project.run.mkdir()
        target = hooks.target(hook, project.root)
        worker = hooks.Worker("hook 1", hook, target, found, chain="main", progress=progress)
        worker.start()
        worker.take(Told(5, ()))
        worker.take(Told(5, tuple(told(5, 6)["events"])))
        server.wait_for(1)
        worker.take(Told(5, tuple(told(5, *range(7, 20))["events"])))
        server.released.set()
        server.wait_for(4)
        worker.end()
        assert worker.ended(SECONDS)
    # The first one was not answered, and came once more.
    assert numbers(server) == [6, 6, 18, 19]
    assert progress.said == ["hook 1 (webhook, secrets/one): it can't keep up; 11 event(s) were dropped"]
    assert found.of(hooks.identity(hook)) == Place(5, 19)


def load_hooks(project: Project) -> list[Any]:
    from chain.config import loader
    from chain.exits import SETTINGS

    return loader.load(project.file, SETTINGS).hooks


def test_hooks_that_can_not_work_are_refused_at_once(project: Project, engine: ScriptedEngine) -> None:
    with pytest.raises(ChainError, match="it has no `hooks:`") as refused:
        hooks.run(load(project, engine), engine, Silent())
    assert refused.value.code is ExitCode.CONFIG
    configure(project, {"command": ["./none"]}, posting("one"), {"command": ["true"]})
    with pytest.raises(ChainError) as refused:
        hooks.run(load(project, engine), engine, Silent())
    assert refused.value.code is ExitCode.CONFIG
    assert [str(problem).splitlines()[0] for problem in refused.value.problems] == [
        f"{project.root}/secrets/one: this secret's file is missing (hook 2: the URL that it posts to)",
        "hook 1 (command): there is no such program to run",
    ]
    assert not project.run.exists()


def test_a_folder_of_somebody_elses_is_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")  # root, as tests may be run, is refused nothing

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(ChainError, match="Permission denied") as error, hooks.alone(project):
        pass
    assert error.value.code is ExitCode.CONFIG


def test_two_processes_do_not_run_the_same_hooks(project: Project) -> None:
    with hooks.alone(project):
        with pytest.raises(ChainError, match="another `chain hooks` runs") as refused, hooks.alone(project):
            pass
        assert refused.value.code is ExitCode.CONFIG
    with hooks.alone(project):
        pass


@pytest.mark.parametrize("text", ["", "[]", '{"hooks": {"a": 1}}', '{"hooks": {"a": ["b", "c"]}}', '{"hooks": []}'])
def test_a_file_of_places_that_is_broken_is_said_and_begun_anew(text: str, tmp_path: Path) -> None:
    file, progress = tmp_path / "hooks.json", Notes()
    file.write_text(text)
    found = hooks.Places(file, progress)
    assert progress.said == [f"warning: {file} can't be read; hooks begin with what happens from now on"]
    found.put("a", Place(5, 6))
    assert hooks.Places(file, progress).of("a") == Place(5, 6)


def test_places_that_can_not_be_written_hold_up_nothing_and_are_said_once(tmp_path: Path) -> None:
    progress = Notes()
    found = hooks.Places(tmp_path / "none" / "hooks.json", progress)
    for number in (6, 7):
        found.put("a", Place(5, number))
    assert found.of("a") == Place(5, 7)
    (said,) = progress.said
    assert "hooks.json: can't be written: No such file or directory" in said


def test_places_of_hooks_that_are_no_more_are_forgotten(tmp_path: Path) -> None:
    found = hooks.Places(tmp_path / "hooks.json", Silent())
    for key in ("a", "b"):
        found.put(key, Place(5, 6))
    found.keep({"b"})
    assert (found.of("a"), found.of("b")) == (None, Place(5, 6))


def test_an_error_nobody_thought_of_is_no_hooks_end_and_is_not_quoted(project: Project) -> None:
    progress = Notes()
    project.run.mkdir()

    class Broken:
        name, seconds = "command", 1.0

        def deliver(self, event: bytes) -> None:
            raise RuntimeError(f"https://localhost{PATH} {event!r}")

        def abandon(self) -> None:
            pass

    configure(project, {"command": ["true"]})
    (hook,) = load_hooks(project)
    found = hooks.Places(project.run / "hooks.json", progress)
    worker = hooks.Worker("hook 1", hook, Broken(), found, chain="main", progress=progress)
    assert worker._handed_over({"number": 6})
    assert progress.said == ["hook 1 (command): event 6 was dropped after 8 attempts: RuntimeError"]


def test_no_other_command_has_anything_to_do_with_hooks() -> None:
    for module, users in (("hooks", ["chain/cli.py"]), ("deliver", ["chain/api/hooks.py"])):
        words = (f"chain.api import {module}", f"chain.api.{module} import")
        texts = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "chain").rglob("*.py")}
        assert sorted({name for name, text in texts.items() for word in words if word in text}) == users
    assert texts["chain/cli.py"].count("chain.api import hooks") == 1


# `chain hooks`, with an engine whose entry tells of two events and is then quiet.
PROGRAM = """\
import sys
import threading
from chain import cli
from chain.api import hooks
from tests.unit.api.conftest import ScriptedEngine

def tell():
    yield {"entry": 5, "events": []}
    yield {"entry": 5, "events": [{"number": number, "event": "move"} for number in (6, 7)]}
    while not threading.Event().wait(0.05):  # as the entry's heartbeat
        yield {"entry": 5, "events": []}

engine = ScriptedEngine()
engine.told = [tell()]
cli._engine = lambda: engine
hooks.FIRST_PAUSE = hooks.JITTER = 0.001
sys.argv = ["chain", "hooks"]
sys.exit(cli.run())
"""


@pytest.mark.parametrize("told_to_end", [signal.SIGINT, signal.SIGTERM])
def test_the_command_shows_no_url_anywhere_and_ends_when_it_is_told(
    told_to_end: signal.Signals, project: Project
) -> None:
    with receiving(*[500] * hooks.ATTEMPTS, 200) as server:
        configure(project, posting("one"), {"command": ["false"]}, one=server.address)
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=project.root,
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as running:
            try:
                server.wait_for(hooks.ATTEMPTS + 1)
                process = Path("/proc", str(running.pid))
                seen = [(process / name).read_bytes() for name in ("cmdline", "environ")]
                running.send_signal(told_to_end)
                out, err = running.communicate(timeout=SECONDS)
            finally:
                running.kill()
    assert (running.returncode, out) == (0, b"")
    assert b"hook 1 (webhook, secrets/one): event 6 was dropped after 8 attempts: it answered 500\n" in err
    files = [path.read_bytes() for path in project.run.rglob("*") if path.is_file()]
    for part in (b"T0K3N", b"hunter2", server.address.encode()):
        assert not [text for text in (*seen, out, err, *files) if part in text]
