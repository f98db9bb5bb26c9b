"""How long a client is without answers, as its own program sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dialogue import Dialogue

if TYPE_CHECKING:
    from world import World


class Stopwatch(Dialogue):
    """The client's program, which notices every gap: tests/providers/toolbox/stopwatch.py."""

    def __init__(self, world: World, token: str, rate: int, idle: int, flows: int = 100) -> None:
        """Begin with that many packets and new flows a second, and idle connections."""
        numbers = map(str, (rate, idle, flows))
        super().__init__(
            world.container("client"), "python3", "stopwatch.py", world.site.internet_host, *numbers, token
        )
        if self._heard() != "ready":
            raise RuntimeError("the client's program did not start")

    def look(self, order: str = "") -> dict[str, Any]:
        """Give what happened since the last look. The order `anew`: begin the stream and idle connections anew."""
        found: dict[str, Any] = json.loads(self._asked(order))
        return found
