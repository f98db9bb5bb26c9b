"""What is chosen by hand or by the clock: orders, and windows of maintenance, as events for the failover."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from chain.agent import choice, memory
from chain.agent.failover import Drained, Pinned, Undrained
from chain.contract import BY_HAND, MEMORY_DIR
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chain.agent.failover import Failover
    from chain.contract import DesiredState

VERBS = ("switch", "drain", "undrain")
FILE = Path(MEMORY_DIR, "steering.json")


@dataclass
class Steering:
    """What was chosen by hand, until told otherwise: also by the next agent."""

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

    def events(self) -> list[Drained | Pinned]:
        """Give all of it, for a failover that knows nothing yet."""
        drained: list[Drained | Pinned] = [Drained(name, BY_HAND) for name in self.drains]
        return drained + [Pinned(choice.key(group), name) for group, name in self.pins.items()]

    def note(self, order: Pinned | Drained | Undrained) -> bool:
        """Take an order; tell whether it changes anything."""
        before = dict(self.pins), list(self.drains)
        match order:
            case Pinned(group, None):
                self.pins.pop(choice.name(group), None)
            case Pinned(group, str(exit_)):
                self.pins[choice.name(group)] = exit_
            case Drained(exit_):
                self.drains += [] if exit_ in self.drains else [exit_]
            case Undrained(exit_):
                self.drains[:] = [each for each in self.drains if each != exit_]
        return before != (self.pins, self.drains)


def remembered() -> Steering:
    return Steering.of(memory.load(FILE))


def remember(steering: Steering) -> None:
    try:
        memory.save(FILE, vars(steering))
    except OSError as error:
        log("agent", f"what was chosen by hand can't be remembered: {error.strerror}")


def ordered(question: Mapping[str, Any], failover: Failover, exits: Collection[str]) -> Pinned | Drained | Undrained:
    """Read an order to pin a group to an exit, or to drain an exit. Raises ValueError where there is none such."""
    name = question["exit"]
    if question["verb"] == "switch":
        group = question["group"]
        if choice.key(group) not in failover.buckets:
            raise ValueError(f"no group {group}")
        if name is not None and name not in failover.exits(choice.key(group)):
            raise ValueError(f"exit {name} is not in group {group}")
        return Pinned(choice.key(group), name)
    if name not in exits:
        raise ValueError(f"no exit {name}")
    return (Drained if question["verb"] == "drain" else Undrained)(name, BY_HAND)
