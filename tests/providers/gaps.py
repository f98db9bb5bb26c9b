"""How long a client is without answers, as its own program sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from dialogue import Dialogue, inside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from world import World


def lost_of(series: Mapping[str, Any]) -> int:
    """Give how many of a series were never answered: what is answered after a later one was a gap at first."""
    return int(sum(gap["lost"] for gap in series["gaps"])) - int(series["late"])


class Stopwatch(Dialogue):
    """The client's program, which notices every gap: tests/providers/toolbox/stopwatch.py."""

    def __init__(self, program: Sequence[str], host: str, token: str, *, rate: int, idle: int, flows: int) -> None:
        """Start that program with that many packets and new flows a second, and idle connections."""
        super().__init__(*program, host, *map(str, (rate, idle, flows)), token)
        if self._heard() != "ready":
            raise RuntimeError("the client's program did not start")

    @classmethod
    def of(cls, world: World, token: str, rate: int, idle: int, flows: int = 100) -> Self:
        """Give that of the world's client."""
        program = inside(world.container("client"), "python3", "stopwatch.py")
        return cls(program, world.site.internet_host, token, rate=rate, idle=idle, flows=flows)

    def look(self, order: str = "") -> dict[str, Any]:
        """Give what happened since the last look. The order `anew`: begin the stream and idle connections anew."""
        found: dict[str, Any] = json.loads(self._asked(order))
        return found
