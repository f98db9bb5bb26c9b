"""How a long command tells what it is doing, without knowing about terminals."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    def step(self, title: str) -> AbstractContextManager[object]:
        """Mark a step that may take a while; it ends with the context."""

    def detail(self, text: str) -> None:
        """Say what the current step is at."""

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""


class Silent:
    """Progress for scripts and tests."""

    def step(self, title: str) -> AbstractContextManager[object]:  # noqa: ARG002 - the protocol's shape
        return nullcontext()

    def detail(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


SILENT = Silent()
