"""What the agent keeps in small files, across its own restarts and the entry's."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

    from chain.contract import DesiredState


@dataclass
class Steering:
    """What was chosen by hand."""

    pins: dict[str, str] = field(default_factory=dict)  # group → the exit that it is to use
    drains: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Self:
        """Read what was saved, as far as it makes sense."""
        pins, drains = found.get("pins"), found.get("drains")
        return cls(
            {group: exit_ for group, exit_ in pins.items() if isinstance(exit_, str)} if isinstance(pins, dict) else {},
            [exit_ for exit_ in drains if isinstance(exit_, str)] if isinstance(drains, list) else [],
        )

    def holding(self, state: DesiredState) -> Steering:
        """Give what there still is such an exit and such a group for."""
        members = {group.name: group.exits for group in state.groups}
        exits = {exit_.name for exit_ in state.exits}
        return Steering(
            {group: exit_ for group, exit_ in self.pins.items() if exit_ in members.get(group, ())},
            [exit_ for exit_ in self.drains if exit_ in exits],
        )


def load(path: Path) -> dict[str, Any]:
    """Read what was saved; nothing, where there is nothing that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def save(path: Path, value: dict[str, Any]) -> None:
    """Write atomically, for the owner alone. Raises OSError."""
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(value, file)
    part.replace(path)
