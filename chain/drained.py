"""What an entry's status says of exits that nothing new is sent to. Pure."""

from __future__ import annotations

import re
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
    """Give the commands that let clients out again by one of these exits; nothing where only time does."""
    ways = (_by_hand(name, why) for name, why in reasons.items())
    return " or ".join(dict.fromkeys(" and ".join(f"`chain undrain {each}`" for each in way) for way in ways if way))


def _by_hand(name: str, reasons: list[str]) -> list[str]:
    """Name the exits to undrain for this one to be used; nothing if one reason is not by hand."""
    found = [(name if reason == BY_HAND else _outer(reason)) for reason in reasons]
    return found if all(found) else []


def _outer(reason: str) -> str:
    """Name the exit that was drained by hand, and that this one runs through, if that is the reason."""
    match = re.fullmatch(rf"runs through (\S+) \({BY_HAND}\)", reason)
    return match[1] if match else ""
