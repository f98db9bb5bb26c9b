from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from chain.node import control

if TYPE_CHECKING:
    from pathlib import Path


def answered(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> dict[str, object]:
    """Ask a runtime that says this; give what comes of it."""
    path = folder / "control.sock"
    monkeypatch.setattr(control, "CONTROL_SOCKET", path)
    heard: list[bytes] = []

    def serve() -> None:
        channel, _ = listener.accept()
        with channel:
            heard.append(channel.makefile("rb").readline())
            channel.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        runtime = threading.Thread(target=serve)
        runtime.start()
        found = control.ask({"verb": "status"})
        runtime.join()
    assert json.loads(heard[0]) == {"verb": "status"}
    return found


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b'{"exits": []}\n', {"exits": []}),
        (b"", {"error": "the runtime hung up"}),
        (b"nonsense\n", {"error": "the runtime does not answer: Expecting value: line 1 column 1 (char 0)"}),
    ],
)
def test_the_runtimes_answer_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, found: dict[str, object]
) -> None:
    assert answered(tmp_path, monkeypatch, answer) == found


def test_without_a_runtime_there_is_an_error_and_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "CONTROL_SOCKET", tmp_path / "none")
    assert control.call("status") == 1
    assert json.loads(capsys.readouterr().out)["error"].startswith("the runtime does not answer: ")
