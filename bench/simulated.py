"""The real verdict code on a simulated clock: an exit behind a path of given models, asked as the agent asks it."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from losses import Together

from chain.agent.verdict import Sensitivity, State, Target, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from losses import Way

LATE = 0.002  # seconds by which a tick is late, at most, when nothing is wrong
BEYOND = 0.004  # seconds of round trip from the tunnel's far end to the strangers


@dataclass
class Scene:
    """A path, who sends through it, and how the agent does."""

    rtt: float
    out: list[Way] = field(default_factory=list)
    back: list[Way] = field(default_factory=list)
    beyond: list[Way] = field(default_factory=list)  # between the provider and the internet; both directions
    where: float = 0.5  # at which part of each direction its models act: 0 is here, 1 is at the provider
    stream: float = 0.0  # packets a second that clients send
    stream_from: float = 0.0  # when they begin
    at_once: int = 1  # so many of them at a time, as when a page is loaded
    thinking: float = 0.0  # seconds that their answers may take longer
    echoed: bool = True
    near: bool = True
    public: bool = True
    absent_every: float = math.inf  # seconds after which the agent's own loop stands still
    absent: float = 0.0


@dataclass(frozen=True)
class Change:
    at: float
    state: State
    before: State
    cause: str


class World:
    def __init__(self, scene: Scene, random: Random, sensitivity: Sensitivity | None = None) -> None:
        self._scene, self._random = scene, random
        self._out, self._back, self._beyond = Together(scene.out), Together(scene.back), Together(scene.beyond)
        self.verdict = Verdict(0.0, sensitivity, near=scene.near, public=scene.public)
        self.verdict.said(0.0, up=True, cause="a probe was answered")
        self.now = 0.0
        self.asked = dict.fromkeys(Target, 0)
        self._answers: list[tuple[float, Target, int]] = []
        self._packets: list[float] = []  # when they come back
        self._sent = self._received = 0
        self._to_send = scene.stream_from
        self._next_absence = scene.absent_every

    def run(self, until: float) -> Iterator[Change]:
        """Let time pass; say what the verdict became."""
        verdict, scene, random = self.verdict, self._scene, self._random.random
        before = verdict.state
        while self.now < until:
            listened = self.now
            self.now = max(verdict.wake, self.now + 1e-4) + random() * LATE
            absent = self.now >= self._next_absence
            if absent:
                self.now += scene.absent
                self._next_absence = self.now + scene.absent_every
            if scene.stream:
                self._send_until(self.now)
            now, answers = self.now, self._answers
            while answers and answers[0][0] <= now:
                at, target, number = heapq.heappop(answers)
                # Whoever was away reads late, and takes the time of reading for that of coming.
                verdict.answered(target, number, now if absent and at > listened else at)
            for target, number in verdict.tick(now, self._sent, self._received):
                self.asked[target] += 1
                back = self._way(now, near=target is Target.NEAR)
                if back is not None:
                    heapq.heappush(answers, (back, target, number))
            if verdict.state is not before:
                yield Change(now, verdict.state, before, verdict.cause)
                before = verdict.state

    def _way(self, at: float, *, near: bool) -> float | None:
        """Give the time at which what is sent now comes back, or None."""
        scene, half = self._scene, self._scene.rtt / 2
        aside = scene.where * half
        delay = self._out.passes(at + aside)
        if delay is None:
            return None
        at += half + delay
        if not near:
            delay = self._beyond.passes(at)
            if delay is None:
                return None
            at += BEYOND + delay
        delay = self._back.passes(at + half - aside)
        return None if delay is None else at + half + delay

    def _send_until(self, now: float) -> None:
        scene = self._scene
        while self._to_send <= now:
            for _ in range(scene.at_once):
                self._sent += 1
                if scene.echoed and (back := self._way(self._to_send, near=False)) is not None:
                    heapq.heappush(self._packets, back + scene.thinking * self._random.random())
            self._to_send += scene.at_once / scene.stream
        while self._packets and self._packets[0] <= now:
            heapq.heappop(self._packets)
            self._received += 1
