from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chain.agent import datapath, steering
from chain.agent.datapath import Datapath
from chain.agent.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chain.topology import Topology

TEXT = """\
entry: {endpoint: vpn.example.org}
exits:
  paris: {kind: l2tp, server: 192.0.2.1}
  oslo: {kind: l2tp, server: 192.0.2.2}
clients:
  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}
"""


class Nft:
    """Takes the binding's place: a kernel needs root. It holds nothing, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def cmd(self, text: str) -> tuple[int, str, str]:
        if not text.startswith("list "):
            self.told.append(text)
        return 0, "", ""

    def set_json_output(self, on: bool) -> None:  # noqa: FBT001 - the binding's signature
        del on


@pytest.fixture
def nft() -> Nft:
    return Nft()


@pytest.fixture
def judge(nft: Nft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    monkeypatch.setattr(datapath, "HEALTH", tmp_path / "healthy")
    monkeypatch.setattr(steering, "FILE", tmp_path / "steering.json")
    return Judge(Datapath(nft))


def test_without_a_state_there_is_nothing_to_show(judge: Judge) -> None:
    with pytest.raises(RuntimeError, match="no state"):
        judge.status("")


def test_where_no_exit_is_there_all_is_blocked_and_shown_so(
    judge: Judge, nft: Nft, built: Callable[[str], Topology]
) -> None:
    judge.take_over(built(TEXT).state, {}, {})
    assert not datapath.HEALTH.exists()
    assert not [line for line in nft.told[-1].splitlines() if line.startswith("add element inet vpn open_")]
    found = judge.status("")
    assert [exit_["state"] for exit_ in found["exits"]] == ["silent", "silent"]
    assert [(group["name"], group["exit"]) for group in found["groups"]] == [("default", None)]
    assert [(client["name"], client["exit"]) for client in found["clients"]] == [("phone", None)]


def test_an_order_is_remembered_for_the_next_agent(
    judge: Judge, nft: Nft, built: Callable[[str], Topology], capsys: pytest.CaptureFixture[str]
) -> None:
    judge.take_over(built(TEXT).state, {}, {})
    judge.steer({"verb": "switch", "group": "default", "exit": "oslo"})
    assert '"event": "switch"' in capsys.readouterr().out
    with pytest.raises(ValueError, match="no exit paris"):  # its link is not there
        judge.steer({"verb": "drain", "exit": "paris"})
    another = Judge(Datapath(nft))
    another.take_over(built(TEXT).state, {}, {})
    assert another.status("")["groups"][0]["pinned"] == "oslo"
