"""Errors a person reads: where, what, and what to do. Shared by host and containers; stdlib only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the `chain` command answers to the shell; documented in the README."""

    OK = 0
    FAILED = 1  # something nobody foresaw; a bug, until shown otherwise
    USAGE = 2  # the command line itself
    CONFIG = 3  # chain.yaml or a secret is wrong; nothing was touched
    ENGINE = 4  # no engine, or one that cannot run this chain; nothing was touched
    NOT_UP = 5  # containers were started, but the chain does not carry traffic
    NOT_RUNNING = 6  # the command needs a running chain


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, in the three parts every message has."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n    → {self.hint}" if self.hint else text


class ChainError(Exception):
    """Problems found together, with the exit code they deserve. Never carries a secret's value."""

    def __init__(self, problems: Problem | list[Problem], code: ExitCode = ExitCode.FAILED, detail: str = "") -> None:
        """Keep the problems in their order; `detail` is longer text to print below, such as a container's log."""
        self.problems = [problems] if isinstance(problems, Problem) else list(dict.fromkeys(problems))
        self.code = code
        self.detail = detail
        super().__init__("\n".join(str(problem) for problem in self.problems))
