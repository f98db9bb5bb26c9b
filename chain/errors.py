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
        """Give the message as it is shown; a file's keys are anybody's text, and must not steer a terminal."""
        where, what, hint = (
            "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in part)
            for part in (self.where, self.what, self.hint)
        )
        text = f"{where}: {what}" if where else what
        return f"{text}\n    → {hint}" if hint else text


class ChainError(Exception):
    """Problems found together, with the exit code they deserve. Never carries a secret's value."""

    def __init__(self, problems: Problem | list[Problem], code: ExitCode = ExitCode.FAILED, detail: str = "") -> None:
        """Keep the problems in their order; `detail` is longer text to print below, such as a container's log."""
        self.problems = [problems] if isinstance(problems, Problem) else list(dict.fromkeys(problems))
        self.code = code
        self.detail = detail
        super().__init__("\n".join(str(problem) for problem in self.problems))
