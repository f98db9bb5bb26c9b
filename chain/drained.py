"""What an entry's status says of exits that nothing new is sent to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chain.contract import BY_HAND

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def keeping_in(group: Mapping[str, Any], exits: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Give why each exit is drained that this group could use; nothing when one of them is not, or there is none.

    `group` and `exits`: as the status has them.
    """
    # One that rests is not even dialled, but could be.
    able = [
        each
        for each in exits
        if each["name"] in group.get("exits", ()) and (each.get("open") or each.get("state") == "resting")
    ]
    reasons = {each["name"]: list(each.get("drained") or ()) for each in able}
    return reasons if all(reasons.values()) else {}


def told(reasons: Mapping[str, list[str]]) -> str:
    """Say which exits are drained, and why."""
    return ", ".join(f"{name} ({', '.join(why)})" for name, why in reasons.items())


def undoing(reasons: Mapping[str, list[str]]) -> str:
    """Give the commands of which any lets clients out again; nothing where no one can."""
    return " or ".join(f"`chain undrain {name}`" for name, why in reasons.items() if BY_HAND in why)
