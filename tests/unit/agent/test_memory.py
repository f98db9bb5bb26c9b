from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from chain.agent import memory

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_saved_is_read_again_and_is_nobody_elses(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    assert memory.load(file) == {}
    memory.save(file, {"key": "203.0.113.7:4711"})
    assert memory.load(file) == {"key": "203.0.113.7:4711"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for broken in ("", "[]", "{", "[" * 100_000):
        file.write_text(broken)
        assert memory.load(file) == {}
