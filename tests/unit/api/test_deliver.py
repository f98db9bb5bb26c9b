from __future__ import annotations

import json
import socket
import sys
import threading
import traceback
from typing import TYPE_CHECKING

import pytest

from chain import __version__
from chain.api.deliver import Command, FailedError, Webhook, is_program
from tests.receiver import DRIP, HANG, NONSENSE, receiving, write_certificate

if TYPE_CHECKING:
    from pathlib import Path

EVENT = b'{"event": "move", "number": 7}\n'
SECRET = "/services/T0K3N?key=hunter2"


def webhook(folder: Path, url: str, seconds: float = 10.0) -> Webhook:
    file = folder / "hook"
    file.write_text(f"{url}\n")
    found = Webhook(file, "secrets/hook")
    found.seconds = seconds
    return found


def refusal(target: Webhook | Command) -> str:
    """Give why it was not delivered, and look through all that Python would tell of it."""
    with pytest.raises(FailedError) as failed:
        target.deliver(EVENT)
    told = "".join(traceback.format_exception(failed.value))
    assert not [part for part in ("hunter2", "T0K3N", "localhost") if part in told]
    return str(failed.value)


def test_an_event_is_posted_as_json_to_exactly_this_url(tmp_path: Path) -> None:
    with receiving(204) as server:
        webhook(tmp_path, server.address + SECRET).deliver(EVENT)
        webhook(tmp_path, server.address.replace("//", "//us%40er:pass@") + "?a=b#c").deliver(EVENT)
    (path, headers, body), (bare_path, named, _) = server.came
    assert (path, body) == (SECRET, EVENT)
    assert (headers["Content-Type"], headers["User-Agent"]) == ("application/json", f"chain/{__version__}")
    assert headers["Host"] == server.address.removeprefix("http://")
    assert "Authorization" not in headers
    assert (bare_path, named["Host"], named["Authorization"]) == ("/?a=b", headers["Host"], "Basic dXNAZXI6cGFzcw==")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (500, "it answered 500"),
        (404, "it answered 404"),
        (302, "it answered 302, a redirection, which is not followed"),
        (308, "it answered 308, a redirection, which is not followed"),
        (NONSENSE, "it gave no answer of HTTP"),
    ],
)
def test_an_answer_that_does_not_say_that_all_is_well_is_a_failure(answer: int, why: str, tmp_path: Path) -> None:
    with receiving(answer) as server:
        assert refusal(webhook(tmp_path, server.address + SECRET)) == why
    assert [path for path, _, _ in server.came] == [SECRET]


@pytest.mark.parametrize("answer", [HANG, DRIP])
@pytest.mark.parametrize("secure", [False, True])
def test_a_server_that_never_comes_to_an_end_is_left(
    answer: int,
    secure: bool,  # noqa: FBT001 - one of two cases
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = write_certificate(tmp_path / "certificate", "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with receiving(answer, certificate=certificate if secure else None) as server:
        assert refusal(webhook(tmp_path, server.address + SECRET, seconds=0.3)) == "no answer within 0.3 s"
        assert len(server.came) == 1


def test_a_server_that_never_shakes_hands_is_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://localhost:{mute.getsockname()[1]}{SECRET}"
        assert refusal(webhook(tmp_path, url, seconds=0.3)) == "no answer within 0.3 s"


def test_a_certificate_has_to_be_trusted_and_of_this_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = write_certificate(tmp_path / "certificate", "localhost")
    with receiving(200, certificate=certificate) as server:
        hook = webhook(tmp_path, server.address + SECRET)
        assert "not of an authority that is trusted, or of another name" in refusal(hook)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        hook.deliver(EVENT)
        other = webhook(tmp_path, server.address.replace("localhost", "127.0.0.1") + SECRET)
        assert "not of an authority that is trusted, or of another name" in refusal(other)
    assert [path for path, _, _ in server.came] == [SECRET]


def test_who_can_not_be_reached_is_not_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with receiving(200) as server:
        plain = server.address.replace("http:", "https:")
        assert refusal(webhook(tmp_path, plain + SECRET)) == "it speaks no TLS that can be used"
    assert refusal(webhook(tmp_path, f"http://127.0.0.1:{port}{SECRET}")) == "Connection refused"
    assert refusal(webhook(tmp_path, f"http://hunter2.invalid{SECRET}")) == "its name can't be looked up"
    no_url = "what is in that file is no URL of http or https"
    assert refusal(webhook(tmp_path, f"hunter2{SECRET}")) == no_url
    assert refusal(webhook(tmp_path, f"http://hunter2..{SECRET}")) == no_url
    assert refusal(webhook(tmp_path, "CHANGE-ME")) == "this secret still says CHANGE-ME"


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_program_reads_the_event_in_the_projects_folder_and_sees_little_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOUD_TOKEN", "hunter2")
    monkeypatch.setenv("LANG", "C.UTF-8")
    program = (
        "import json, os, sys; event = json.load(sys.stdin); print('out'); print('err', file=sys.stderr);"
        "json.dump([event, sorted(os.environ)], open('seen', 'w'))"
    )
    Command(python(program), tmp_path).deliver(EVENT)
    event, variables = json.loads((tmp_path / "seen").read_text())
    assert event == json.loads(EVENT)
    assert set(variables) <= {"PATH", "HOME", "LANG", "LC_CTYPE"}  # Python itself may add the last one
    assert capfd.readouterr() == ("", "")


def test_a_program_that_fails_is_known_by_its_code(tmp_path: Path) -> None:
    assert refusal(Command(python("raise SystemExit(3)"), tmp_path)) == "its exit code is 3"
    assert refusal(Command(python("import os; os.kill(os.getpid(), 15)"), tmp_path)) == "signal 15 ended it"
    assert refusal(Command(["./none"], tmp_path)) == "it can't be started: No such file or directory"
    Command(["true"], tmp_path).deliver(EVENT * 100_000)  # which it does not read


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        start = f"import socket, time; s = socket.create_connection({server.getsockname()}); time.sleep(3600)"
        both = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {start!r}])"
        hook = Command(python(both), tmp_path)
        hook.seconds = 3600.0
        said: list[str] = []
        running = threading.Thread(target=lambda: said.append(refusal(hook)))
        running.start()
        channel, _ = server.accept()
        hook.abandon()
        running.join()
    assert said == ["signal 9 ended it"]
    with channel:
        assert channel.recv(1) == b""  # the one that it started has ended too
    hook = Command(["sleep", "3600"], tmp_path)
    hook.seconds = 0.05
    assert refusal(hook) == "it took longer than 0.05 s"


def test_a_program_is_found_before_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "notify").write_text("#!/bin/sh\n")
    assert not is_program("./notify", tmp_path)
    (tmp_path / "notify").chmod(0o755)
    assert is_program("./notify", tmp_path)
    assert is_program(str(tmp_path / "notify"), tmp_path.parent)
    assert not is_program("notify", tmp_path)
    assert is_program("true", tmp_path)
