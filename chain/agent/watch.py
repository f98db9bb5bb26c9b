"""One exit under watch: its own words, the agent's questions through it, and how clients' packets fare."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from chain.agent.failover import UNKNOWN, Judged
from chain.agent.prober import Prober
from chain.agent.verdict import COSTLY, State, Target, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from chain.agent.verdict import Sensitivity
    from chain.contract import ExitLink, ExitReport

_IDLE = 0.05  # seconds between two looks at an exit of which nothing is known yet


class Watch:
    def __init__(
        self,
        exit_: ExitLink,
        source: str,
        wanted: Sensitivity,
        before: State = State.GOOD,
        witnesses: Collection[str] = (),
    ) -> None:
        """`source`: the address to ask from. `before`: how the exit was judged by another watch.

        `witnesses`: strangers that have answered through it, beside its near target.
        """
        self.exit, self.wanted = exit_, wanted
        self._source, self._before, self._witnesses = source, before, frozenset(witnesses)
        self._verdict: Verdict | None = None
        self._asking: tuple[Sequence[str], Sequence[str], bool] | None = None
        self._targets: dict[Target, tuple[Prober, Sequence[str]]] = {}
        self._told: Judged | None = None
        self._rests = ""  # why nothing is to be judged
        self.says_up = False  # and what it says may be acted on
        self.wake = 0.0

    @property
    def state(self) -> State:
        return State.DEAD if self._verdict is None else self._verdict.state

    @property
    def latency(self) -> float | None:
        """Give the seconds that a question takes through the exit; None while that is not known."""
        return None if self._verdict is None else self._verdict.latency

    @property
    def loss(self) -> float:
        return 0.0 if self._verdict is None else self._verdict.loss

    @property
    def failing_since(self) -> float | None:
        """Give the monotonic time since when it gives no answers, where that is why it is not good; else None."""
        return None if self._verdict is None else self._verdict.failing_since

    @property
    def complaint(self) -> str:
        """Say why the exit is not good; nothing where it is, or where nothing is known yet."""
        return "" if self._verdict is None or self.state is State.GOOD else self._verdict.cause

    @property
    def warning(self) -> str:
        """Say what is not as it should be, though the exit is good."""
        return "" if self._verdict is None else self._verdict.warning

    @property
    def witnesses(self) -> frozenset[str]:
        """Name the strangers of whom one at least is known to answer through the exit."""
        near, public, _ = self._asking or ((), (), False)
        if self._verdict is not None and self._verdict.witnessed:
            return frozenset(public)
        # With a near target it was seen that they do not answer; without, that is nobody's fault but the exit's.
        return frozenset() if near and public else self._witnesses

    def heard(self, now: float, report: ExitReport | None, *, trusted: bool) -> None:
        """Take the exit's own word, or that it is gone. `trusted`: what it says may be acted on.

        Raises OSError if it can't be asked.
        """
        up = report is not None and report.state == "up"
        self._rests = report.cause if report is not None and report.state == "resting" else ""
        if self._rests:
            self._forget()
        if report is not None and up:
            self._ask_as(now, report)
        before, self.says_up = self.says_up, up and trusted
        if self._verdict is None or before == self.says_up:
            return
        if up:
            cause = "it says that it is up" if trusted else "it comes and goes too often"
        else:
            cause = report.cause if report else "its container does not report"
        self._verdict.said(now, up=self.says_up, cause=cause)
        self.wake = now

    def tick(self, now: float, sent: int, received: int) -> None:
        """Judge, and ask what has to be asked; to be called at `wake` at the latest."""
        verdict = self._verdict
        if verdict is None:
            self.wake = now + _IDLE
            return
        for target, number in verdict.tick(now, sent, received):
            # All of them, since one that never answers says nothing of the exit.
            prober, addresses = self._targets[target]
            for address in addresses:
                prober.ask(address, number)
        self.wake = verdict.wake

    @property
    def told(self) -> State | None:
        """Give the state that was last told."""
        return None if self._told is None else self._told.state

    @property
    def shown(self) -> str | None:
        """Give what was last told, in a word."""
        return "resting" if self._told and self._rests else self.told

    def news(self, *, anew: bool) -> Judged | None:
        """Give the verdict, if it is another one than at the last time, or anew."""
        cause = (self._rests or UNKNOWN) if self._verdict is None else self._verdict.cause
        judged = Judged(self.exit.name, self.state, cause)
        if not anew and self._told is not None and self._told.state is judged.state:
            return None
        self._told = judged
        return judged

    def close(self) -> None:
        for prober, _ in self._targets.values():
            prober.close()
        self._targets.clear()

    def _forget(self) -> None:
        """Judge it as if for the first time when it is up again: it was not lost."""
        self.close()
        self._witnesses = self.witnesses
        self._asking, self._verdict, self._before, self.says_up = None, None, State.GOOD, False

    def _ask_as(self, now: float, report: ExitReport) -> None:
        """Ask whom the exit names, in the way that its tunnel carries. Another choice begins the verdict anew."""
        asking = report.near, report.public, report.names
        if self._asking == asking or not (report.near or report.public):
            return
        self.close()
        self._witnesses = self.witnesses
        self._asking, self.says_up = None, False
        verdict = Verdict(
            now,
            # A question for a name takes a connection of its own.
            replace(self.wanted, near=COSTLY) if report.names else self.wanted,
            near=bool(report.near),
            public=bool(report.public),
            before=self._before,
            witnessed=bool(self._witnesses) and self._witnesses.issubset(report.public),
        )
        self._before = State.GOOD
        if self._verdict is not None:
            verdict.succeed(self._verdict)
        self._verdict = None
        for target, addresses in ((Target.NEAR, report.near), (Target.PUBLIC, report.public)):
            if addresses:
                prober = Prober(
                    self._source,
                    self.exit.mark,
                    names=report.names,
                    answered=partial(verdict.answered, target),
                )
                self._targets[target] = prober, addresses
        self._asking, self._verdict = asking, verdict
