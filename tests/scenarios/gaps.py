"""How long a client is without answers, as its own program sees it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from world import World


class Stopwatch:
    """The client's program, which notices every gap: tests/providers/toolbox/stopwatch.py. A context manager."""

    def __init__(self, world: World, token: str, rate: int, idle: int, flows: int = 100) -> None:
        """Begin with that many packets and new flows a second, and idle connections."""
        numbers = map(str, (rate, idle, flows))
        command = ("python3", "stopwatch.py", world.site.internet_host, *numbers, token)
        self._process = subprocess.Popen(
            ["docker", "exec", "-i", world.container("client"), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._read() != "ready":
            raise RuntimeError("the client's program did not start")

    def look(self, order: str = "") -> dict[str, Any]:
        """Give what happened since the last look. The order `anew`: begin the stream and idle connections anew."""
        if self._process.stdin is None:
            raise RuntimeError("no input")
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._read())
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)  # closes its input, at which it ends

    def _read(self) -> str:
        return self._process.stdout.readline().strip() if self._process.stdout else ""
