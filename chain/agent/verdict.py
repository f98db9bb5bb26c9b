"""Whether an exit is good, suspect or dead: from what is asked through it, and from how clients' packets fare. Pure.

Times are seconds of a clock that only goes forward, and always given by the caller. One `Verdict` per exit, called
from one loop: first all answers that have come (`answered`), then `tick`, which says what to ask next; again at `wake`
at the latest. What is judged is what was asked and could have been answered by now: a tick that comes late is no
silence of the exit.

A silence is judged by two things: how many questions in a row had no answer when it was due, so many that chance does
not explain it at the exit's usual loss; and how long it lasts, longer than its usual silences.
docs/tuning.md says what comes of it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import nlargest


class State(StrEnum):
    GOOD = "good"
    SUSPECT = "suspect"  # new flows go elsewhere if they can, and UDP flows that get no answers
    DEAD = "dead"  # nothing goes there, and TCP flows are reset


class Target(StrEnum):
    NEAR = "near"  # the tunnel's own far end, or another address inside the provider's network
    PUBLIC = "public"  # strangers, who are asked in turn


@dataclass(frozen=True)
class Pace:
    """How often one kind of target is asked: seconds between two questions."""

    busy: float  # while clients send
    idle: float  # while they do not
    burst: float  # while an answer is missing, or clients' packets stay unanswered
    recovering: float  # until an exit that was suspected or dead is good again


NEAR = Pace(busy=0.05, idle=0.15, burst=0.02, recovering=0.05)
STRANGERS = Pace(busy=10.0, idle=10.0, burst=0.02, recovering=0.25)
# A question that takes a connection of its own, as through Xray.
COSTLY = Pace(busy=2.0, idle=5.0, burst=0.05, recovering=0.5)


@dataclass(frozen=True)
class Sensitivity:
    """What makes an exit suspect or dead, and good again. Times are in seconds.

    What is asked is given the round-trip time on top.
    """

    suspect_after: float = 0.12  # of silence
    suspect_at_most: float = 0.4  # as far as the exit's usual silences may stretch the former
    dead_after: float = 0.65  # 0.5 is a usual stall
    dead_at_most: float = 2.5
    suspicions_an_hour: int = 4  # false ones that are put up with, before it takes longer
    lossy: float = 0.5  # share of questions without answer that makes an exit suspect, though it is not silent
    calm: float = 0.25  # a suspect one is good again after so long; doubled each time that it happens again soon
    hold_down: float = 10.0  # a dead one that answers again is suspect for so long; doubled likewise
    near: Pace = field(default=NEAR)
    public: Pace = field(default=STRANGERS)


TICK_BUSY, TICK_IDLE = 0.025, 0.05  # how often clients' packets are looked at
GRACE = 0.05  # a tick may be late by so much before it counts as the caller's own absence
SLOWEST = 1.0  # seconds between two questions, however long a silence lasts
SLOWING = 0.05  # of a silence's length lies between two questions
FEW = 3  # answers missing in a row, or come in a row, that are no chance
LEAST, MOST = 5, 16  # answers missing in a row that make a silence
PROVEN = 4  # of them where clients' own packets stay without any answer too
CHANCE = 1e-7  # of that many missing while the exit is well: once in five days of 20 questions a second
MARGIN = 0.015  # seconds that an answer may be late, at least
LENGTHENING = 2.0  # by how much one late answer may stretch what is expected of the next
UNKNOWN_RTT, UNKNOWN_SPREAD = 0.2, 0.1
SLOWEST_ANSWER = 1.5
UNPROVEN = 1.0  # seconds without an answer that make one suspect that never gave any
FORGIVEN = 60.0  # seconds that an exit is good after which the next suspicion, or death, is the first again
HOUR = 3600.0  # for which silences are remembered
LONG = 0.4  # seconds of silence that tell when a longer one is to be expected
LONG_MEMORY = 6 * HOUR  # for which those are; where only strangers are asked, few are seen
RARE = 60.0  # such times in which one false death is put up with
CALM_MOST = 16.0
HOLD_MOST = 30  # times the first

_RING = 128  # questions that are remembered; more than are on the way at once
_MASK = _RING - 1
_ANSWERED = -math.inf  # in place of the time when it was asked
_NEVER = math.inf


class Silences:
    """Those that ended by themselves; and so how long is unusual."""

    PROBATION = 10.0  # seconds: a silence that was the beginning of the end is not usual

    __slots__ = ("_base", "_most", "_newest", "_seen")

    def __init__(self, base: float, most: float) -> None:
        self._base, self._most = base, most
        self._newest: list[tuple[float, float]] = []
        self._seen: deque[tuple[float, float]] = deque(maxlen=1000)

    def learn(self, now: float, length: float) -> None:
        if self._base < length < self._most:  # longer ones are not waited for, however often they come
            self._newest.append((now, length))

    def forget_newest(self) -> None:
        self._newest.clear()

    def recent(self, now: float, memory: float) -> list[float]:
        """Give the lengths of those that ended within so many seconds."""
        while self._newest and self._newest[0][0] < now - self.PROBATION:
            self._seen.append(self._newest.pop(0))
        while self._seen and self._seen[0][0] < now - memory:
            self._seen.popleft()
        return [length for _, length in self._seen]


def all_but(tolerated: int, lengths: list[float], least: float) -> float:
    """Give a length that so many of these exceed, and no more."""
    if len(lengths) <= tolerated:
        return least
    return max(nlargest(tolerated + 1, lengths)[-1] + 0.01, least)


def extrapolated(lengths: list[float], base: float, least: float, times: float) -> float:
    """Give the length of which one in so many times as long a memory is to be expected.

    What they last beyond the base is taken to be exponential, as it is for bursts of loss.
    """
    if not lengths:
        return least
    mean = sum(lengths) / len(lengths) - base
    return max(base + mean * math.log(len(lengths) * times), least)


class Trail:
    """What was asked of one kind of target, and what came back."""

    __slots__ = (
        "_asked",
        "_heard",
        "_held_up",
        "_judged",
        "_last",
        "_measured",
        "_rtt",
        "_sensitivity",
        "_spread",
        "_weight",
        "answers",
        "asked_at",
        "dead_after",
        "due",
        "first",
        "known",
        "long_silences",
        "loss",
        "misses",
        "needed",
        "next",
        "pace",
        "proof",
        "short_silences",
        "suspect_after",
    )

    def __init__(self, sensitivity: Sensitivity, pace: Pace) -> None:
        self._sensitivity, self.pace = sensitivity, pace
        self._asked = [_ANSWERED] * _RING  # when; by number
        self._weight = [0.0] * _RING  # in the measured loss: questions of a burst tell little more than one
        self._judged = 0  # the first number of which it is not yet said whether its answer is missing
        self._last = -1  # the last number that was answered
        self._rtt, self._spread = UNKNOWN_RTT, UNKNOWN_SPREAD
        self._measured = False  # since it was taken up
        self._heard = -math.inf, -math.inf  # when the answer that came last was asked, and came
        self._held_up = False  # it was late, or came together with a late one
        self.next = 0
        self.asked_at = -math.inf
        self.answers = 0
        self.misses = 0  # in a row, up to now
        self.first = _NEVER  # when the first question since the last answer was asked
        self.proof = -math.inf  # when the last question that was answered had been asked
        self.known = False  # it has answered since the exit came up, or is known to answer
        self.loss = 0.0
        self.due = self._rtt + 4 * self._spread  # an answer that takes longer is missing
        self.short_silences = Silences(sensitivity.suspect_after, sensitivity.suspect_at_most)
        self.long_silences = Silences(LONG, sensitivity.dead_at_most)
        self.needed, self.suspect_after, self.dead_after = LEAST, sensitivity.suspect_after, sensitivity.dead_after

    @property
    def latency(self) -> float | None:
        """Give the round-trip time in seconds, smoothed."""
        return self._rtt if self.known and self._measured else None

    def begin(self, *, known: bool) -> None:
        """Take up asking: of what was asked before, no answer is expected any more. `known`: it is one that answers."""
        self._asked = [_ANSWERED] * _RING
        self._judged, self._last = self.next, self.next - 1
        self.misses, self.first, self.known, self.asked_at = 0, _NEVER, known, -math.inf
        self._measured = self._held_up = False

    def ask(self, now: float) -> int:
        """Note that a question is asked now; give its number, of 16 bits."""
        number = self.next
        if number - self._judged >= _RING:
            self._judge_next(now)
        place = number & _MASK
        # Every question stands for the time since the one before it.
        self._weight[place] = min((now - self.asked_at) / NEAR.busy, 1.0) / 64
        self._asked[place] = self.asked_at = now
        if self.first == _NEVER:
            self.first = now
        self.next = number + 1
        return number & 0xFFFF

    def answered(self, sequence: int, at: float, quiet_since: float, *, learn: bool = True) -> None:
        """Note the answer to the question of that number; what is no such answer is left alone.

        `quiet_since` is when the last of clients' packets came, if others should have come since. `learn`: a silence
        that ends with this was the exit's.
        """
        number = self.next - 1 - ((self.next - 1 - sequence) & 0xFFFF)
        place = number & _MASK
        if number < 0 or number < self.next - _RING or self._asked[place] == _ANSWERED:
            return
        asked = self._asked[place]
        self._asked[place] = _ANSWERED
        self._measure_way(asked, at)
        if number == self._judged:
            self._judged += 1
            self.loss -= self.loss * self._weight[place]
        elif number < self._judged:  # later than was expected, but there
            self.loss = max(0.0, self.loss - self._weight[place])
        if number > self._last:
            if self.misses > 1 and learn:
                # Answers that were held up come together: they end one silence, not one for each.
                heard = self._heard[1]
                self.short_silences.learn(at, at - max(self.silent_since(quiet_since), heard))
                self.long_silences.learn(at, at - max(self.first, heard) - self.due)
            self._last, self.proof = number, asked
            following = number + 1
            self.first = self._asked[following & _MASK] if following < self.next else _NEVER
            self.misses = max(0, self._judged - following)
        self.answers += 1
        self.known, self._heard = True, (asked, at)

    def silent_since(self, quiet_since: float) -> float:
        """Give since when an answer is missing: to a question, or to clients' packets, which took the way before."""
        return min(self.first + self.due, quiet_since + self.due - self._rtt)

    def judge(self, now: float) -> None:
        """Count the answers that are missing by now."""
        while self._judged < self.next and self._asked[self._judged & _MASK] + self.due <= now:
            self._judge_next(now)

    def spacing(self, now: float, since: float = _NEVER) -> float:
        """Give the seconds between two questions while answers are missing, or something else is since then."""
        age = now - min(self.first, since)
        return min(max(self.pace.burst, age * SLOWING), max(self.pace.busy, SLOWEST))

    def excuse(self, late: float) -> None:
        """Count as if what is unanswered had been asked so much later."""
        if self.first == _NEVER:
            return
        self.first += late
        for number in range(max(self._judged, self._last + 1), self.next):
            self._asked[number & _MASK] += late

    def _judge_next(self, now: float) -> None:
        place = self._judged & _MASK
        weight = self._weight[place]
        self.loss -= self.loss * weight
        if self._asked[place] != _ANSWERED:
            if self.misses == 0:
                self._set_thresholds(now)
            self.loss += weight
            if self._judged > self._last:
                self.misses += 1
        self._judged += 1

    def _set_thresholds(self, now: float) -> None:
        """Say what is unusual of a silence that begins; once, so that the silence itself does not change it."""
        want = self._sensitivity
        self.needed = min(max(math.ceil(math.log(CHANCE) / math.log(min(max(self.loss, 0.01), 0.5))), LEAST), MOST)
        short = self.short_silences.recent(now, HOUR)
        self.suspect_after = min(all_but(want.suspicions_an_hour, short, want.suspect_after), want.suspect_at_most)
        long = self.long_silences.recent(now, LONG_MEMORY)
        self.dead_after = min(extrapolated(long, LONG, want.dead_after, RARE), want.dead_at_most)

    def _measure_way(self, asked: float, at: float) -> None:
        """Take in how long an answer took, but of those that were held up only the first, and that within limits.

        They come together, and say how long the path stood still, not how long it is.
        """
        asked_before, at_before = self._heard
        took = max(at - asked, 0.0)
        late = self._measured and took > self.due
        held_up = self._held_up and at - at_before < abs(asked - asked_before) / 2
        if not held_up:
            self._measure(min(took, self.due * LENGTHENING) if late else took)
        self._held_up = held_up or late

    def _measure(self, sample: float) -> None:
        if self._measured:
            self._spread += (abs(sample - self._rtt) - self._spread) / 4
            self._rtt += (sample - self._rtt) / 8
        else:
            self._rtt, self._spread, self._measured = sample, sample / 4, True
        self.due = min(self._rtt + max(4 * self._spread, MARGIN), SLOWEST_ANSWER)


class Traffic:
    """Whether clients' packets are still answered as they used to be.

    What is missing is counted against half of the usual, so that it only adds up when more than half stays away. Where
    packets are never answered, nothing is usual, and nothing is missing.
    """

    MEMORY = 2.0  # seconds
    PRIOR = 10.0  # packets: as if half of twice as many had been answered before
    LEAST = 4.0  # packets
    LEAK = 1.0  # packets a second: so few may be missing all the time
    LONG = 0.02  # seconds that it lasts at least
    RELIEF = 10.0  # seconds; after a false alarm twice as many have to be missing, and half of it so much later
    FLOWING, BUSY = 0.1, 1.0  # seconds since the last packet from the exit, and to it

    __slots__ = (
        "_at",
        "_came",
        "_height",
        "_height_at",
        "_missing",
        "_unheard",
        "_went",
        "alarm",
        "busy_until",
        "heard_at",
        "received",
        "sent",
        "since",
    )

    def __init__(self, now: float) -> None:
        self._at = self._height_at = now
        self._went, self._came = 0.0, 0.0
        self._missing, self._height = 0.0, self.LEAST
        self.sent = self.received = -1
        self.busy_until = self.heard_at = -math.inf
        self.alarm = False
        self.since = _NEVER  # when they began to be missing
        self._unheard = 0.0  # answers that should have come since the last packet did

    @property
    def unanswered_since(self) -> float:
        """Give the time since when packets stay unanswered, if that is no chance; else infinity."""
        return self.since if self.alarm else _NEVER

    @property
    def quiet_since(self) -> float:
        """Give the time since when nothing comes, where that is no chance; else infinity."""
        return max(self.since, self.heard_at) if self.alarm else _NEVER

    @property
    def nothing_comes(self) -> bool:
        """Say whether so much stays unanswered that loss, however much is usual, does not explain it."""
        return self.alarm and self._unheard >= MOST

    def count(self, now: float, sent: int, received: int) -> None:
        """Take in the counters as they are now."""
        went, came = sent - self.sent, received - self.received
        before, self._at = self._at, now
        if went == 0 and came == 0:
            if self._missing:
                self._weigh(now)
            return
        first = self.sent < 0
        self.sent, self.received = sent, received
        if first or went < 0 or came < 0:  # counters that began anew
            self._unheard = 0.0
            return
        usual = (self._came + self.PRIOR) / (self._went + 2 * self.PRIOR)
        if went:
            self.busy_until = now + self.BUSY
        if came:
            self.heard_at, self._unheard = now, 0.0
        else:
            self._unheard += went * min(usual, 1.0)
        missing = self._missing + went * min(usual, 1.0) / 2 - came - (now - before) * self.LEAK
        if missing <= 0:
            self._missing, self.alarm, self.since = 0.0, False, _NEVER
        else:
            if not self._missing:
                self.since = before
            self._missing = missing
            self._weigh(now)
        kept = math.exp((before - now) / self.MEMORY)
        self._went, self._came = self._went * kept + went, self._came * kept + came

    def _weigh(self, now: float) -> None:
        if self.alarm or self._missing < self.LEAST:
            if now > self.busy_until and not self.alarm:
                self._missing, self.since = 0.0, _NEVER
            return
        self.alarm = now - self.since >= self.LONG and self._missing >= self._required(now)

    def _required(self, now: float) -> float:
        return max(self._height * math.exp2((self._height_at - now) / self.RELIEF), self.LEAST)

    def dismiss(self, now: float, *, false: bool) -> None:
        """Give up the alarm: the exit answers. `false`: nothing else was found wrong with it meanwhile."""
        if false:
            self._height, self._height_at = min(self._required(now) * 2, 1e6), now
        self._missing, self.alarm, self.since, self._unheard = 0.0, False, _NEVER, 0.0

    def flows(self, now: float) -> bool:
        """Say whether clients are being answered as usual."""
        return now - self.heard_at < self.FLOWING and self._missing < self.LEAST


class Verdict:
    """Of one exit. At first it is dead: it has not said that it is up."""

    def __init__(
        self,
        now: float,
        sensitivity: Sensitivity | None = None,
        *,
        near: bool = True,
        public: bool = True,
        before: State = State.GOOD,
        witnessed: bool = False,
    ) -> None:
        """Judge an exit that has these kinds of target; at least one.

        `before`: how it was judged by another, whose reasons are not known; good where nothing is known against it.
        `witnessed`: strangers have answered through it already.
        """
        if not near and not public:
            raise ValueError("an exit without any target can't be judged")
        self._want = want = sensitivity or Sensitivity()
        self._trails: dict[Target, Trail] = {}
        if near:
            self._trails[Target.NEAR] = Trail(want, want.near)
        if public:
            self._trails[Target.PUBLIC] = Trail(want, want.public)
        self._near, self._public = self._trails.get(Target.NEAR), self._trails.get(Target.PUBLIC)
        self._nearest = next(iter(self._trails.values()))
        if self._near and self._public:
            self._public.known = witnessed
        self._traffic = Traffic(now)
        self._marked = 0, 0  # the counters when all was well
        self._up, self._was_up = False, before is State.SUSPECT
        self._has_to_answer = before is State.DEAD
        self._doubt_at = _NEVER  # when an alarm began that is still to be answered
        self._doubt_was_right = False  # something was found wrong with the exit meanwhile
        self._steady_since = _NEVER
        self._steady_answers = 0
        self._calm, self._hold = want.calm, want.hold_down
        self._wait = 0.0  # until it is good again
        self._good_since = -math.inf
        self.state = State.DEAD
        self.cause = "it has not said that it is up"
        self.since = now
        self.failing_since: float | None = None  # since when it gives no answers, where that is why it is not good
        self.wake = now

    @property
    def latency(self) -> float | None:
        """Give the round-trip time in seconds to the nearest that answers; None where nobody has answered."""
        return next((trail.latency for trail in self._trails.values() if trail.known), None)

    @property
    def loss(self) -> float:
        """Give the share of questions that lately had no answer."""
        return self._nearest.loss

    @property
    def witnessed(self) -> bool:
        """Say whether strangers tell that the exit leads to the internet."""
        return self._public is not None and self._public.known

    @property
    def warning(self) -> str:
        """Say what is not as it should be, though the exit is good."""
        near, public = self._near, self._public
        if near is None or public is None or self.state is not State.GOOD:
            return ""
        if near.misses >= FEW and public.known:
            return "the tunnel's far end does not answer, but strangers do"
        return "strangers do not answer, but the tunnel's far end does" if public.misses >= FEW else ""

    def said(self, now: float, *, up: bool, cause: str) -> None:
        """Take the exit's own word, or the end of its report connection, which is `up=False`."""
        if up and not self._up:
            self._up, self.wake, self.failing_since = True, now, None
            self._dismiss(now, false=False)  # of what was sent while it was down
            for trail in self._trails.values():
                # Else an exit whose internet is gone would be good again by a new tunnel to the same provider.
                trail.begin(known=trail is self._public and self._near is not None and self.witnessed)
            if self._has_to_answer:
                self._has_to_answer, self._was_up = False, True
                self._set(now, State.DEAD, "it was dead before, and has not answered since")
            elif self._was_up:
                self._recover(now, "it is up again")
            else:
                self._was_up, self._good_since = True, now
                self._set(now, State.GOOD, cause)
        elif not up:
            self._up = False
            main = self._main()
            silent_since = main.first if main.misses else _NEVER
            self.failing_since = min(silent_since, self._traffic.unanswered_since, self.failing_since or now, now)
            self._die(now, cause)

    def succeed(self, other: Verdict) -> None:
        """Take over how the same exit fared, when others are asked from now on: it is not to begin as a good one."""
        self._was_up = other._was_up and other.state is not State.GOOD
        self._has_to_answer |= other._has_to_answer
        self._calm, self._hold = other._calm, other._hold

    def answered(self, target: Target, sequence: int, at: float) -> None:
        """Take an answer, with the time when it came in."""
        trail = self._trails.get(target)
        if trail is not None:
            # What comes in after nobody has listened ends no silence of the exit's.
            trail.answered(sequence, at, self._traffic.quiet_since, learn=at - self.wake <= GRACE)

    def tick(self, now: float, sent: int, received: int) -> list[tuple[Target, int]]:
        """Judge, and say whom to ask now, with which number. `wake` then says when to call again at the latest.

        `sent` and `received` count the packets of clients into the exit's link and out of it, from whenever on.
        """
        if now - self.wake > GRACE:
            self._excuse(now - self.wake)
        traffic = self._traffic
        traffic.count(now, sent, received)
        busy = now < traffic.busy_until
        if not self._up:
            self.wake = now + TICK_IDLE
            return []
        for trail in self._trails.values():
            trail.judge(now)
        if traffic.alarm or self._doubt_at != _NEVER:
            self._look_at_alarm(now)
        decision = self._decide(now)
        self.wake = min(now + (TICK_BUSY if busy else TICK_IDLE), decision)
        asked: list[tuple[Target, int]] = []
        for target, trail in self._trails.items():
            at = trail.asked_at + self._spacing(now, trail, busy=busy)
            if at <= now + 1e-4:
                asked.append((target, trail.ask(now)))
                at = now + self._spacing(now, trail, busy=busy)
            self.wake = min(self.wake, at)
        return asked

    # What to ask

    def _spacing(self, now: float, trail: Trail, *, busy: bool) -> float:
        pace, near = trail.pace, self._near
        usual = pace.busy if busy else pace.idle
        if not trail.known and trail is not self._nearest:
            return usual  # strangers who have never answered
        if trail.misses or self._traffic.alarm:
            return trail.spacing(now, self._traffic.unanswered_since)
        if trail is not near and near is not None and near.known and near.misses >= FEW:
            # Do strangers answer, when the near one does not?
            return min(max(NEAR.busy, (now - near.first) * SLOWING), usual)
        if self.state is not State.GOOD:
            return min(max(pace.recovering, (now - self.since) * SLOWING), usual)
        return usual

    def _look_at_alarm(self, now: float) -> None:
        """Give up an alarm when the farthest that can answer does."""
        if not self._traffic.alarm:
            self._doubt_at, self._doubt_was_right = _NEVER, False
            return
        self._doubt_at = min(self._doubt_at, now)
        public = self._public
        witness = public if public is not None and (public.known or self._near is None) else self._near
        if witness is not None and witness.proof >= self._doubt_at:
            self._dismiss(now, false=not self._doubt_was_right)

    def _dismiss(self, now: float, *, false: bool) -> None:
        self._traffic.dismiss(now, false=false)
        self._doubt_at, self._doubt_was_right = _NEVER, False

    def _excuse(self, late: float) -> None:
        for trail in self._trails.values():
            trail.excuse(late)
        self._traffic.since += late

    # What it means

    def _decide(self, now: float) -> float:
        """Change the state if that is due. Give the time at which it may be without anything else happening."""
        main, public = self._main(), self._public
        if not main.misses and (public is None or not public.misses):
            self._marked = self._traffic.sent, self._traffic.received
            if self.state is State.GOOD and main.loss < self._want.lossy:
                return _NEVER
        level, cause, at, silent = self._level(now, main)
        self.failing_since = None if silent is None else min(silent.first, self._traffic.unanswered_since)
        self._doubt_was_right |= level is not State.GOOD and self._doubt_at != _NEVER
        if level is State.DEAD and self.state is not State.DEAD:
            self._die(now, cause)
        elif level is State.SUSPECT and self.state is State.GOOD:
            self._forgive(now)
            self._wait, self._calm = self._calm, min(self._calm * 2, CALM_MOST)
            self._set(now, State.SUSPECT, cause)
            self._steady_since = _NEVER
        elif self.state is not State.GOOD:
            self._look_for_recovery(now, main, uneasy=level is not State.GOOD)
        return at

    def _main(self) -> Trail:
        """Give what counts most: the nearest, unless strangers answer and the near one alone does not."""
        near, public = self._near, self._public
        if near is not None and public is not None and near.misses >= FEW and public.proof >= near.first:
            return public
        return self._nearest

    def _level(self, now: float, main: Trail) -> tuple[State, str, float, Trail | None]:
        """Say how bad it is at this moment, whatever it was before.

        Give the cause too, when it may become worse by itself, and whose silence it is, if it is one.
        """
        at = _NEVER
        near, public = self._near, self._public
        if main.misses:
            level, at = self._silence(now, main)
            if level is State.DEAD and (self._traffic.flows(now) or self._may_answer(public, main)):
                level = State.SUSPECT
            if level is not State.GOOD:
                return level, self._told(now, main), at, main
        if near is main and public is not None and public.misses and public.known and near.proof > public.first:
            level, later = self._silence(now, public)
            at = min(at, later)
            # Strangers owe nobody an answer: what clients get counts for more.
            if self._traffic.flows(now):
                public.known = level is not State.DEAD
            elif level is not State.GOOD:
                cause = f"the tunnel's far end answers, but the internet does not: {self._told(now, public)}"
                return (level if self._traffic.alarm else State.SUSPECT), cause, at, public
        limit = self._want.lossy if self.state is State.GOOD else self._want.lossy / 2
        if main.loss >= limit and self.state is not State.DEAD and main.answers > 1 / NEAR.busy:
            return State.SUSPECT, f"{main.loss:.0%} of the probes get no answer", at, None
        return State.GOOD, "", at, None

    def _silence(self, now: float, trail: Trail) -> tuple[State, float]:
        """Say what a silence by itself amounts to, and when it may amount to more."""
        if not trail.known:
            # It says itself that it is up, for which it has an answer of its own.
            unproven = trail.misses >= trail.needed and now >= trail.first + UNPROVEN
            return State.SUSPECT if unproven else State.GOOD, _NEVER
        at = trail.silent_since(self._traffic.quiet_since) + trail.suspect_after
        needed = PROVEN if self._traffic.nothing_comes else trail.needed
        if trail.misses < needed or now < at:
            return State.GOOD, at if at > now else _NEVER
        at = trail.first + trail.dead_after + 2 * trail.due
        return (State.SUSPECT, at) if now < at else (State.DEAD, _NEVER)

    @staticmethod
    def _may_answer(public: Trail | None, main: Trail) -> bool:
        """Say whether strangers may still answer what the near one did not."""
        return public is not None and public is not main and public.known and public.misses < FEW

    def _look_for_recovery(self, now: float, main: Trail, *, uneasy: bool) -> None:
        if uneasy or main.misses >= main.needed:
            self._steady_since = _NEVER
        elif self._steady_since == _NEVER:
            if main.proof > self.since and not main.misses:
                self._steady_since, self._steady_answers = now, main.answers
        elif main.answers - self._steady_answers >= FEW - 1:
            if self.state is State.DEAD:
                self._recover(now, "it answers again")
            elif now - self._steady_since >= self._wait:
                self._good_since = now
                self._set(now, State.GOOD, f"it has answered for {_seconds(now - self._steady_since)}")

    def _recover(self, now: float, why: str) -> None:
        """Let a dead one be used again, but only where nothing better is."""
        self._wait = self._hold
        self._hold = min(self._hold * 2, self._want.hold_down * HOLD_MOST)
        self._steady_since = _NEVER
        for trail in self._trails.values():
            trail.loss = 0.0
        self._set(now, State.SUSPECT, f"{why}; it has to prove itself for {_seconds(self._wait)}")
        self.failing_since = None

    def _forgive(self, now: float) -> None:
        if self.state is State.GOOD and now - self._good_since > FORGIVEN:
            self._calm, self._hold = self._want.calm, self._want.hold_down

    def _die(self, now: float, cause: str) -> None:
        for trail in self._trails.values():
            trail.short_silences.forget_newest()
            trail.long_silences.forget_newest()
        self._forgive(now)
        self._steady_since = _NEVER
        self._set(now, State.DEAD, cause)

    def _set(self, now: float, state: State, cause: str) -> None:
        if state is not self.state:
            self.since = now
        self.state, self.cause = state, cause

    def _told(self, now: float, trail: Trail) -> str:
        sent, received = self._traffic.sent - self._marked[0], self._traffic.received - self._marked[1]
        text = f"no answer to {trail.misses} probes in {_seconds(now - trail.first)}"
        if sent > 0:
            text += f", while {sent} packets were sent and {received or 'none'} came back"
        return text


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.3g} s"
