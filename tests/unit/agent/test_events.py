from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chain.agent.events import tell, tell_needed

if TYPE_CHECKING:
    import pytest


def test_an_event_is_one_line_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    tell("drain", exit="paris", cause="by\nhand")
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)["event"]
    assert event.pop("time") > 0
    assert event == {"event": "drain", "exit": "paris", "cause": "by\nhand"}


def test_needed_exits_are_named_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    tell_needed({"rome", "oslo"})
    assert json.loads(capsys.readouterr().out) == {"needed": ["oslo", "rome"]}
