"""Programs that are asked again and again, by one process that stays."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


def inside(container: str, *command: str) -> tuple[str, ...]:
    """Give the command that runs this one in a container."""
    return ("docker", "exec", "-i", container, *command)


class Dialogue:
    """One that answers each line with a line, and ends with its input. A context manager."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)  # closes its input

    def _asked(self, line: str) -> str:
        """Give the answer to a line. Raises RuntimeError when there is none any more."""
        if self._process.stdin is None:
            raise RuntimeError("no input")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._heard()

    def _heard(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError("the program has ended")
        return line.strip()
