from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from chain.engine import connection
from chain.engine.connection import OLDEST_ENGINE, Engine, _builder_line, _version
from chain.errors import ChainError, ExitCode

if TYPE_CHECKING:
    from docker.models.containers import Container


@pytest.mark.parametrize(
    ("text", "version"),
    [("26.1.5", (26, 1)), ("v2.26.1-desktop.1\n", (2, 26)), ("28.0.0-rc.1", (28, 0)), ("dev", (0, 0)), ("", (0, 0))],
)
def test_versions_are_read_from_what_engines_say(text: str, version: tuple[int, int]) -> None:
    assert _version(text) == version
    assert _version("25.0.0") >= OLDEST_ENGINE > _version("24.0.9")


@pytest.mark.parametrize(
    ("line", "text"), [("#1 done\n", "#1 done"), (("stderr", b"#2 caf\xc3\xa9\n"), "#2 café"), (b"\xff\n", "\ufffd")]
)
def test_a_builders_lines_are_text_in_whatever_form_they_come(line: object, text: str) -> None:
    assert _builder_line(line) == text


class Watched(Engine):
    """An engine whose entry prints these chunks, one list for each time that it is asked to."""

    def __init__(self, *streams: list[bytes]) -> None:
        self._streams = iter(streams)

    def entry(self, chain: str) -> Container | None:  # noqa: ARG002 - it has but one
        chunks = next(self._streams, None)
        return None if chunks is None else SimpleNamespace(exec_run=lambda *_, **__: SimpleNamespace(output=chunks))


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


def test_an_entry_that_can_not_be_asked_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch) == [None]
    assert watched(monkeypatch, [b"nonsense\n"]) == [None, None]
    assert watched(monkeypatch, [b'{"error": "it does not answer"}\n']) == [None, None]


def test_an_engine_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    engine = Engine()  # which asks nothing yet
    with pytest.raises(
        ChainError, match=r"Docker engine at unix:///nowhere/docker\.sock: it does not answer"
    ) as refused:
        engine.containers("main")
    assert refused.value.code is ExitCode.ENGINE
