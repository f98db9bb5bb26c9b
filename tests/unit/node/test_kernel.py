from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from chain.exits import REGISTRY
from chain.node import kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, bool]]:
    """Give a report of a kernel where one check passes and one fails."""
    monkeypatch.setattr(kernel, "CHECKS", {"ppp": lambda: True, "esp": lambda: False})

    def ask(*names: str) -> dict[str, bool]:
        assert kernel.report(names) == 0
        answer: dict[str, bool] = json.loads(capsys.readouterr().out)
        return answer

    return ask


def test_it_answers_what_is_asked(asked: Callable[..., dict[str, bool]]) -> None:
    assert asked("esp", "ppp") == {"esp": False, "ppp": True}
    assert asked("esp") == {"esp": False}
    assert asked() == {"ppp": True, "esp": False}


def test_what_it_does_not_know_is_not_there(asked: Callable[..., dict[str, bool]]) -> None:
    assert asked("teleport") == {"teleport": False}


def test_it_knows_all_that_a_kind_needs() -> None:
    assert {need.check for kind in REGISTRY.values() for need in kind.kernel} <= kernel.CHECKS.keys()


def test_a_device_is_a_character_device_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "ppp").write_text("")
    assert not kernel.has_device("ppp", [tmp_path])
    (tmp_path / "null").symlink_to("/dev/null")
    assert kernel.has_device("null", [tmp_path / "nowhere", tmp_path])


def test_a_socket_is_there_or_not() -> None:
    assert kernel.has_socket(socket.AF_UNIX, socket.SOCK_DGRAM, 0)
    assert not kernel.has_socket(socket.AF_UNIX, socket.SOCK_DGRAM, 99)


@pytest.mark.parametrize("broken", ["add", "delete", None])
def test_esp_has_to_work_with_both_kinds_of_cipher(broken: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def succeeds(*command: str) -> bool:
        seen.append(command)
        return command[3] != broken

    monkeypatch.setattr(kernel, "succeeds", succeeds)
    assert kernel.CHECKS["esp"]() is (broken is None)
    if broken is None:
        assert [command[3] for command in seen] == ["add", "delete"] * 2
        assert any("cbc(aes)" in command for command in seen)
        assert any("rfc4106(gcm(aes))" in command for command in seen)
