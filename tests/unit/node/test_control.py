from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from chain.node import control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def answered(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> dict[str, object]:
    """Ask a runtime that says this; give what comes of it."""
    path = folder / "control.sock"
    monkeypatch.setattr(control, "CONTROL_SOCKET", path)
    heard: list[bytes] = []

    def serve() -> None:
        channel, _ = listener.accept()
        with channel:
            stream = channel.makefile("rb")
            heard.extend((stream.readline(), stream.readline()))
            channel.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        runtime = threading.Thread(target=serve)
        runtime.start()
        found = control.ask({"verb": "status"}, b"a further line")
        runtime.join()
    assert json.loads(heard[0]) == {"verb": "status"}
    assert heard[1:] == [b"a further line\n"]
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


@contextmanager
def happening(path: Path, *numbers: list[int]) -> Iterator[list[int]]:
    """Answer as an entry in which these events happen, one list after each question; give what was asked for."""
    asked: list[int] = []
    told: list[int] = []

    def serve() -> None:
        for left, happened in zip(reversed(range(len(numbers))), numbers, strict=True):
            told.extend(happened)
            channel, _ = listener.accept()
            if not left:
                listener.close()  # before the last answer: who asks again is refused at once, and not kept waiting
            with channel:
                since = json.loads(channel.makefile("rb").readline())["since"]
                asked.append(since)
                events = [{"number": number} for number in told if number > since]
                channel.sendall(json.dumps({"entry": 5, "events": events}).encode() + b"\n")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        runtime = threading.Thread(target=serve)
        runtime.start()
        yield asked
        runtime.join()


def test_who_follows_is_told_each_event_once_and_that_one_still_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "CONTROL_SOCKET", tmp_path / "control.sock")
    monkeypatch.setattr(control, "FOLLOW_INTERVAL", 0.0)
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write, "wb") as held:
        monkeypatch.setattr("sys.stdin", stdin)
        with happening(control.CONTROL_SOCKET, [6, 7], [], [9]) as asked:
            # The runtime answers three times, and is gone; one that is gone is no reason to end.
            monkeypatch.setattr(control, "ask", ending(control.ask, held))
            assert control.follow(3600.0) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[event["number"] for event in line["events"]] for line in lines[:2]] == [[6, 7], [9]]
    assert asked == [0, 7, 7]
    assert "does not answer" in lines[2]["error"]


def ending(ask: Any, stdin: Any) -> Any:
    """Close one's standard input once the runtime gives no answer."""

    def asking(question: dict[str, object]) -> dict[str, Any]:
        answer: dict[str, Any] = ask(question)
        if "error" in answer:
            stdin.close()
        return answer

    return asking


def test_an_unchanged_answer_is_given_again_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "CONTROL_SOCKET", tmp_path / "none")
    monkeypatch.setattr(control, "WATCH_HEARTBEAT", -1.0)
    monkeypatch.setattr(control, "FOLLOW_INTERVAL", 0.0)
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write):
        monkeypatch.setattr("sys.stdin", stdin)
        assert control.follow(0.02) == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 1
